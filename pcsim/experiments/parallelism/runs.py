"""Training runs behind the study of parallelism: one curve of test accuracy a run, kept in a JSON lines file.

All orders of one depth start from the same weights, see the same mini-batches and learn by Adam. A run ends
when it reaches the goal that it is given, so that a grid over T costs little; then its line is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pcsim.engine.backprop import BackpropEngine
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import ConfigurationError, NonFiniteError, nearest
from pcsim.hardware.clock import unit
from pcsim.kernels import Array
from pcsim.kernels.backends import make_kernels
from pcsim.learning import Adam
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
from pcsim.training.data import Dataset, load_dataset
from pcsim.training.loop import Engine, Position, train

BACKPROP = "backprop"
BATCH = 64
EPOCHS = {"digits": 20, "fashion-mnist": 5}
SUBSET = 6400  # training samples at most, and as many for the test
HOPELESS = 0.75  # of the goal: who is below after two fifths of the epochs is given up
REACHED, GIVEN_UP = "goal reached", "given up"  # how runs end before all their epochs, by their goal


@dataclass(frozen=True, order=True)
class Case:
    """What decides the numbers of a run.

    Attributes:
        data: name of the data set.
        hidden: number of hidden layers; the depth L of the network is one more.
        width: neurons of each hidden layer.
        order: of the schedule, or "backprop".
        iterations: T; 0 for backprop.
        step_size: ε, the same in every iteration; 0 for backprop.
        rate: of Adam.
        seed: of initial weights and the order of samples.
    """

    data: str
    hidden: int
    width: int
    order: str
    iterations: int
    step_size: float
    rate: float
    seed: int


@dataclass(frozen=True)
class Run:
    """How a run went.

    Attributes:
        case: what was run.
        accuracies: on the test set, after each epoch done, from 0 to 1.
        steps: mini-batches an epoch.
        goal: the accuracy at which it was to end; None for none.
        ended: "all epochs", `REACHED`, `GIVEN_UP` (below `HOPELESS` of the goal), or "not finite".
        seconds: of processor time.
    """

    case: Case
    accuracies: tuple[float, ...]
    steps: int
    goal: float | None
    ended: str
    seconds: float

    def steps_to(self, accuracy: float) -> int | None:
        """Return how many mini-batches it took to reach an accuracy, in whole epochs; None if it did not."""
        for epoch, reached in enumerate(self.accuracies, 1):
            if reached >= accuracy:
                return epoch * self.steps
        return None

    def answers(self, goal: float | None) -> bool:
        """Return whether a run to this goal would tell no more; no goal is a run of all epochs."""
        if self.ended not in (REACHED, GIVEN_UP):
            return True
        if goal is None or self.goal is None:
            return False
        beyond = goal <= self.goal if self.ended == REACHED else goal >= self.goal
        return beyond or self.steps_to(goal) is not None

    @property
    def settled(self) -> float:
        """Median accuracy of the last three epochs: less flattering than the best, steadier than the last."""
        return float(np.median(self.accuracies[-3:])) if self.accuracies else 0.0

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(asdict(self.case) | {k: v for k, v in asdict(self).items() if k != "case"})

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Run:
        """Return what `to_json` has written."""
        own = {name: row[name] for name in Case.__dataclass_fields__}
        rest = {name: row[name] for name in cls.__dataclass_fields__ if name != "case"}
        return cls(Case(**own), **rest | {"accuracies": tuple(rest["accuracies"])})


class Book:
    """The runs of a file: what is there is not trained again.

    Attributes:
        runs: by case.

    Raises:
        ConfigurationError: a file that is something else, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs = {run.case: run for run in read_runs(path)} if path.exists() else {}

    def run(self, case: Case, goal: float | None = None) -> Run:
        """Return a run, trained now if the file has none that answers for this goal.

        Raises:
            ConfigurationError: the file cannot be written.
            DataError: the data set is missing or damaged.
        """
        known = self.runs.get(case)
        if known is None or not known.answers(goal):
            known = self.runs[case] = train_case(case, goal)
            self._append(known)
        return known

    def _append(self, run: Run) -> None:
        """Add a line; what a killed process left of one before is cut off first."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                file.seek(0)
                whole = file.read().rpartition(b"\n")
                file.truncate(len(whole[0]) + len(whole[1]))
                file.write(run.to_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(f"cannot write {self._path}: {error.strerror}") from error


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a JSON lines file, the last of each case.

    An unfinished last line is what a killed process leaves.

    Raises:
        ConfigurationError: the file cannot be read, or a line is no run.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}; expected a file of runs") from error
    runs: dict[Case, Run] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            run = Run.from_row(json.loads(line))
            runs[run.case] = run
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path}, line {number}: {error!r}: expected a run as pcsim study accuracy writes it; "
                "name another file"
            ) from None
    return list(runs.values())


def train_case(case: Case, goal: float | None = None) -> Run:
    """Train until the goal is reached, hope is lost, numbers overflow, or all epochs are done.

    Raises:
        ConfigurationError: an unknown order or data set.
        DataError: the data set is missing or damaged.
    """
    dataset = subset(case.data)
    network = initial_network(dataset, case)
    accuracies: list[float] = []
    began = time.process_time()
    with threadpool_limits(1):
        try:
            ended = _epochs(case, network, dataset, goal, accuracies.append)
        except NonFiniteError:
            ended = "not finite"
    steps = len(dataset.train_inputs) // BATCH
    seconds = round(time.process_time() - began, 2)
    return Run(case, tuple(round(one, 5) for one in accuracies), steps, goal, ended, seconds)


def _epochs(
    case: Case, network: Network, dataset: Dataset, goal: float | None, note: Callable[[float], None]
) -> str:
    """Train epoch by epoch; return why it ended."""
    statistics = Statistics(case.iterations, network.top)
    engine = _engine(case, network, statistics)
    position, epochs = [Position()], EPOCHS[case.data]
    for epoch in range(1, epochs + 1):
        done = train(
            *(network, dataset, engine, statistics),
            batch=BATCH,
            epochs=epoch,
            seed=case.seed,
            start=position[-1],
            after_epoch=position.append,
        )
        accuracy = done[-1].test_accuracy
        note(accuracy)
        if goal is not None and accuracy >= goal:
            return REACHED
        if goal is not None and 5 * epoch >= 2 * epochs and accuracy < HOPELESS * goal:
            return GIVEN_UP
    return "all epochs"


def _engine(case: Case, network: Network, statistics: Statistics) -> Engine:
    rule = Adam(case.rate)
    if case.order == BACKPROP:
        return BackpropEngine(network, rule, BATCH, statistics, [statistics])
    plan = Schedule(case.order, case.iterations, case.step_size, "none").plan(network)
    units = network.layers(BATCH, rule, make_kernels("cpu", network.dtype.name, 1))
    if isinstance(plan, Program):
        return FastEngine(plan, units, [statistics])
    return EventEngine(plan, units, unit(), BATCH, [statistics])


@cache
def subset(data: str) -> Dataset:
    """Return the first samples of a data set, `SUBSET` at most of each part.

    Raises:
        ConfigurationError: no data set of the study.
        DataError: its files are missing or damaged.
    """
    if data not in EPOCHS:
        raise ConfigurationError(f"the study has no data set '{data}': {nearest(data, EPOCHS)}")
    whole = load_dataset(data)
    parts = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return replace(whole, **{name: getattr(whole, name)[:SUBSET] for name in parts})


def initial_network(dataset: Dataset, case: Case) -> Network:
    """Return the network with weights uniform within ±√(6/n_l), ±√(3/n_l) at the last, and zero biases.

    Every ReLU layer then keeps the mean square of its input (He et al. 2015, arXiv 1502.01852); with
    torch.nn.Linear's smaller weights backprop itself does not learn sixteen layers.
    """
    sizes = [dataset.features, *[case.width] * case.hidden, dataset.outputs]
    return Network.dense(sizes, parameters=_parameters(sizes, case.seed))


def _parameters(sizes: list[int], seed: int) -> list[tuple[Array, Array]]:
    rng, last = np.random.default_rng(seed), len(sizes) - 2
    drawn: list[tuple[Array, Array]] = []
    for layer, (below, above) in enumerate(pairwise(sizes)):
        bound = np.sqrt((3 if layer == last else 6) / below)
        drawn.append((rng.uniform(-bound, bound, (above, below)), np.zeros(above)))
    return drawn
