"""Replays golden cases: float64 numbers of activities, errors, energy, weights and MQ's scalars."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.architecture import Architecture, ConvLayer, DenseLayer
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Onlooker, Statistics
from pcsim.errors import DataError
from pcsim.experiments.task import EngineName
from pcsim.hardware.clock import unit
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ, NLMS, SGD, Adam, LearningRule
from pcsim.learning.mq import MQLearner
from pcsim.network.layer import Layer
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation
from pcsim.schedule.precisions import CONSTANT
from pcsim.schedule.program import Program, Schedule

Case = Mapping[str, npt.NDArray[Any]]
NEEDED = (
    *("batch", "steps", "iterations", "order", "optimizer", "alpha", "activation", "output"),
    *("beta", "step_size", "step_decay", "alpha_min", "r", "rho"),
)
SHAPES = (("dims",), ("image", "convs", "classes"))  # of a dense or of a convolutional case


@dataclass(frozen=True)
class Deviation:
    """Largest absolute deviations of one case; `mq` is None where the rule has no such scalar."""

    case: str
    activity: float
    error: float
    energy: float
    weight: float
    mq: float | None

    @property
    def largest(self) -> float:
        """The largest of them; infinite if one is NaN."""
        given = [value for value in (self.activity, self.error, self.energy, self.weight, self.mq) if value]
        return max((value if value == value else float("inf") for value in given), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self) | {"largest": self.largest}


class _States:
    """An observer that keeps activities and errors after every iteration."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], npt.NDArray[Any]] = {}

    def begin_step(self, step: int) -> None:
        self.kept = {}

    def onlooker(self, operation: Operation) -> Onlooker:
        return self.observe

    def observe(self, operation: Operation, unit: Layer) -> None:
        for place in operation.writes:
            letter = {"activity": "a", "error": "e"}.get(place.name)
            if letter:
                array = unit.activity if letter == "a" else unit.error
                self.kept[operation.iteration, f"{letter}{operation.layer}"] = np.array(array)

    def end_step(self) -> None:
        pass

    def at(self, iteration: int, name: str) -> npt.NDArray[Any]:
        """Return the state after an iteration; what has not changed since is as it was."""
        return next(self.kept[i, name] for i in range(iteration, -1, -1) if (i, name) in self.kept)


def verify(
    path: str | PathLike[str], *, engine: EngineName = "fast", backend: str = "reference"
) -> Deviation:
    """Replay one golden case in float64 and return how far it strays.

    Args:
        path: an .npz file in the format of the golden cases (docs/golden.md).
        engine: "fast" or "event".
        backend: which kernels: reference, cpu or cuda.

    Raises:
        DataError: not such a file, or one that needs what pcsim does not have.
        ConfigurationError: an unknown backend.
    """
    case, kernels = _load(path), make_kernels(backend, "float64")
    network = _network(case)
    decay: Any = str(case["step_decay"])  # checked by Schedule
    schedule = Schedule(
        str(case["order"]),
        int(case["iterations"]),
        float(case["step_size"]),
        decay,
        str(case.get("precisions", CONSTANT)),
    )
    program = Program.build(network, schedule)
    units = network.layers(int(case["batch"]), _rule(case, path), kernels)
    states, statistics = _States(), Statistics(schedule.iterations, network.top)
    observers = (states, statistics)
    runner = (
        FastEngine(program, units, observers)
        if engine == "fast"
        else EventEngine(program, units, unit(), int(case["batch"]), observers)
    )
    worst = {"activity": 0.0, "error": 0.0, "energy": 0.0, "mq": 0.0}
    for step in range(int(case["steps"])):
        runner.step(_by_sample(case[f"{step}/x"]), case[f"{step}/y"])
        for t in range(schedule.iterations):
            _compare(worst, case, f"{step}/{t}", states, statistics, t + 1, network.top)
        if f"{step}/v" in case:
            scalars = [unit.learner.mean_gradient[0] for unit in units if isinstance(unit.learner, MQLearner)]
            worst["mq"] = _worse(worst["mq"], np.array(scalars), case[f"{step}/v"])
    network.gather(units)
    weight = 0.0
    for layer, parameters in enumerate(network.parameters):
        for letter, array in zip("Wb", parameters, strict=True):
            weight = _worse(weight, array, case[f"final/{letter}{layer}"])
    mq = worst.pop("mq")
    return Deviation(str(path), weight=weight, mq=mq if "0/v" in case else None, **worst)


def _compare(
    worst: dict[str, float],
    case: Case,
    prefix: str,
    states: _States,
    statistics: Statistics,
    iteration: int,
    top: int,
) -> None:
    for letter, quantity in (("a", "activity"), ("e", "error")):
        for layer in range(1, top + 1):
            name = f"{letter}{layer}"
            expected = _by_sample(case[f"{prefix}/{name}"])
            worst[quantity] = _worse(worst[quantity], states.at(iteration, name), expected)
    energy = np.array(statistics.squared_error[iteration].sum())
    worst["energy"] = _worse(worst["energy"], energy, case[f"{prefix}/energy"])


def _by_sample(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return images as neurons, (batch, n)."""
    return array.reshape(len(array), -1)


def _worse(so_far: float, ours: npt.NDArray[Any], golden: npt.NDArray[Any]) -> float:
    """Return the larger of a deviation and the one before, NaN counting as the largest."""
    return float(np.fmax(so_far, np.nan_to_num(np.abs(ours - golden), nan=np.inf).max()))


def _load(path: str | PathLike[str]) -> Case:
    try:
        with np.load(path, allow_pickle=False) as archive:
            case = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: expected a golden case (.npz): {error}") from error
    shapes = SHAPES["convs" in case]
    missing = [name for name in (*shapes, *NEEDED) if name not in case]
    if missing:
        raise DataError(f"{path}: no '{missing[0]}': expected a golden case (docs/golden.md)")
    return case


def _network(case: Case) -> Network:
    architecture = _architecture(case)
    names: dict[str, Any] = {name: str(case[name]) for name in ("activation", "output")}  # checked below
    learn_from: Any = str(case.get("learn_output_from", "activity"))
    return Network.build(
        architecture,
        **names,
        proximal_step=float(case["beta"]),
        dtype="float64",
        parameters=[(case[f"init/W{i}"], case[f"init/b{i}"]) for i in range(len(architecture.layers))],
        learn_output_from=learn_from,
    )


def _architecture(case: Case) -> Architecture:
    if "dims" in case:
        first, *others = case["dims"].tolist()
        return Architecture((first,), tuple(DenseLayer(size) for size in others))
    layers: list[ConvLayer | DenseLayer] = []
    channels, height, width = case["image"].tolist()
    image = channels, height, width
    for numbers in case["convs"].tolist():
        conv = ConvLayer(image, *numbers)
        layers.append(conv)
        image = conv.result
    return Architecture(tuple(case["image"].tolist()), (*layers, DenseLayer(int(case["classes"]))))


def _rule(case: Case, path: str | PathLike[str]) -> LearningRule:
    rate = float(case["alpha"])
    match str(case["optimizer"]):
        case "mq":
            return MQ(rate, float(case["alpha_min"]), float(case["r"]), float(case["rho"]))
        case "sgd":
            return SGD(rate)
        case "adam":
            return Adam(rate)
        case "nlms":
            return NLMS()
        case other:
            raise DataError(f"{path}: optimizer '{other}': expected mq, sgd, adam or nlms")
