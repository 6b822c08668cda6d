"""Random simulations for Hypothesis, and how to run one on each engine and on the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from oracle import Oracle

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.hardware.clock import Hardware, unit
from pcsim.kernels import reference
from pcsim.learning import MQ, NLMS, SGD, Adam
from pcsim.network.network import Network
from pcsim.schedule.channel import PLAIN, Channels
from pcsim.schedule.program import Program, Schedule

ACTIVATIONS = ("relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity")
SMOOTH = ("tanh", "sigmoid", "gelu", "identity")
OUTPUTS = ("softmax", "sigmoid", "identity")
ORDERS = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")
RULES = {"sgd": SGD(0.1), "mq": MQ(1e-3), "adam": Adam(1e-3), "nlms": NLMS()}
HARD = float("inf")

TORCH_ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda x: torch.nn.functional.leaky_relu(x, 0.01),
    "gelu": torch.nn.functional.gelu,
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class Case:
    """One simulation, in numbers that both pcsim and the oracle understand."""

    sizes: tuple[int, ...] = (3, 4, 5, 2)
    activation: str = "tanh"
    output: str = "softmax"
    order: Any = "sequential"
    iterations: int = 3
    step_size: float = 0.1
    step_decay: str = "harmonic"
    proximal_step: float = 100.0
    precision: tuple[float, ...] | None = None
    decay: tuple[float, ...] | None = None
    rule: str = "sgd"
    batch: int = 2
    steps: int = 3
    seed: int = 0

    @property
    def top(self) -> int:
        """L."""
        return len(self.sizes) - 1

    def network(self, dtype: str = "float64") -> Network:
        """The same network each time."""
        return Network.dense(
            self.sizes,
            activation=self.activation,
            output=self.output,
            proximal_step=self.proximal_step,
            precision=self.precision,
            activity_decay=self.decay,
            dtype=dtype,
            seed=self.seed,
        )

    def schedule(self) -> Schedule:
        """The schedule."""
        return Schedule(self.order, self.iterations, self.step_size, self.step_decay)

    def oracle(self) -> Oracle:
        """The same simulation, written a second time."""
        weights, biases = zip(*self.network().parameters)
        mix = 0.0 if self.proximal_step == HARD else 1 / (1 + self.proximal_step)
        alpha = {"sgd": 0.1, "mq": 1e-3, "adam": 1e-3, "nlms": 0.0}[self.rule]
        return Oracle(
            list(weights),
            list(biases),
            self.activation,
            self.output,
            self.order,
            self.iterations,
            self.step_size,
            self.step_decay,
            mix,
            list(self.precision) if self.precision else None,
            list(self.decay) if self.decay else None,
            self.rule,
            alpha,
        )

    def data(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Signed inputs, and targets that suit the output."""
        rng = np.random.default_rng(self.seed + 1)
        return [(rng.normal(size=(self.batch, self.sizes[0])), self.targets(rng)) for _ in range(self.steps)]

    def targets(self, rng: np.random.Generator) -> np.ndarray:
        """One-hot rows, values between 0 and 1, or any values."""
        shape = (self.batch, self.sizes[-1])
        if self.output == "softmax":
            return np.eye(self.sizes[-1])[rng.integers(self.sizes[-1], size=self.batch)]
        return rng.uniform(0.05, 0.95, shape) if self.output == "sigmoid" else rng.normal(size=shape)


class States:
    """An observer that keeps a copy of everything it is shown, by mini-batch, iteration and name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int, str, int], np.ndarray] = {}
        self.step = 0

    def begin_step(self, step):
        self.step = step

    def onlooker(self, operation):
        return self.observe

    def observe(self, operation, unit):
        for place in operation.writes:
            if place.name in ("activity", "error"):
                key = (self.step, operation.iteration, place.name, operation.layer)
                self.kept[key] = getattr(unit, place.name).copy()

    def end_step(self):
        pass

    def at(self, step: int, iteration: int, name: str, layer: int) -> np.ndarray:
        """The state after an iteration; what did not change since is as it was."""
        keys = ((step, i, name, layer) for i in range(iteration, -1, -1))
        return next(self.kept[key] for key in keys if key in self.kept)


@dataclass
class Outcome:
    """What a run leaves behind."""

    states: States
    energies: list[np.ndarray]
    network: Network
    units: tuple
    engine: Any

    def bits(self) -> dict[Any, bytes]:
        """Everything numeric, as bytes."""
        found = {key: array.tobytes() for key, array in self.states.kept.items()}
        found |= {("energy", i): array.tobytes() for i, array in enumerate(self.energies)}
        for layer, (weight, bias) in enumerate(self.network.parameters):
            found |= {("weight", layer): weight.tobytes(), ("bias", layer): bias.tobytes()}
            state = self.units[layer].learner.state()
            found |= {("learner", layer, name): np.asarray(array).tobytes() for name, array in state.items()}
            found["update", layer] = np.float64(self.units[layer].update_magnitude).tobytes()
        return found


def run(
    case: Case,
    engine: str = "fast",
    hardware: Hardware | None = None,
    *,
    program: Program | None = None,
    kernels: Any = reference,
    network: Network | None = None,
    channels: Channels = PLAIN,
) -> Outcome:
    """Run all mini-batches of a case on one engine, keeping states and energies."""
    network = network or case.network()
    plan = replace(program, network=network) if program else case.schedule().plan(network)
    units = network.layers(case.batch, RULES[case.rule], kernels)
    states, statistics = States(), Statistics(case.iterations, case.top)
    observers = (states, statistics)
    if engine == "fast":
        runner: Any = FastEngine(plan, units, observers, channels=channels)
    else:
        runner = EventEngine(plan, units, hardware or unit(), case.batch, observers, channels=channels)
    energies = []
    for inputs, targets in case.data():
        runner.step(inputs, targets)
        energies.append(np.stack([statistics.squared_error, statistics.free_energy]))
    return Outcome(states, energies, network, units, runner)


@st.composite
def cases(draw, **fixed) -> Case:
    """Draw a small simulation; keyword arguments fix fields, or give their strategies."""

    def pick(name, strategy):
        given = fixed.get(name, strategy)
        return draw(given) if isinstance(given, st.SearchStrategy) else given

    depth = draw(fixed.get("depth", st.integers(2, 6)))
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=depth, max_size=depth)))
    values = st.sampled_from([0.0, 0.3, 1.0, 1.7])
    hidden = st.lists(values, min_size=depth - 2, max_size=depth - 2)
    precisions = st.builds(lambda between, top: (1.0, *between, top), hidden, values)
    decays = hidden.map(lambda between: (0.0, *between, 0.0))
    rule = pick("rule", st.sampled_from(sorted(RULES)))
    return Case(
        sizes,
        pick("activation", st.sampled_from(ACTIVATIONS)),
        pick("output", st.sampled_from(OUTPUTS)),
        pick("order", st.sampled_from(ORDERS)),
        pick("iterations", st.integers(0, 5)),
        pick("step_size", st.sampled_from([0.01, 0.1, 0.3])),
        pick("step_decay", st.sampled_from(["harmonic", "none"])),
        pick("proximal_step", st.sampled_from([1.0, 100.0, HARD])),
        pick("precision", st.none() | precisions),
        pick("decay", st.none() | decays),
        rule,
        1 if rule == "nlms" else pick("batch", st.integers(1, 3)),
        pick("steps", st.integers(1, 3)),
        draw(st.integers(0, 2**20)),
    )
