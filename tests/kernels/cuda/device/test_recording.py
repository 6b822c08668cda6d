"""Training steps that are recorded once and replayed: CUDA graphs on a GPU.

In the simulator a graph is a list of what was queued, with the arrays and numbers of that moment, and the
host may neither look nor allocate meanwhile: a step that needs it to could not be a CUDA graph either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pcsim.architecture import parse
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.learning import MQ, NLMS, SGD, Adam
from pcsim.network.layer import Layer
from pcsim.network.network import Network
from pcsim.schedule.orders import sequential
from pcsim.schedule.program import Program, Schedule
from pcsim.tracing import open_trace
from pcsim.tracing.recorder import Probe, Recorder
from pcsim.tracing.writer import TraceWriter

pytestmark = pytest.mark.filterwarnings("error:a training step cannot be recorded")
SIZES = (5, 4, 3, 2)
RULE = MQ(0.05, decay=0.6)


def dense(**options):
    return Network.dense(SIZES, activation="tanh", dtype="float64", seed=3, **options)


def convolutional():
    architecture = parse(["1x5x5", "conv 2 2x2/1", "dense 3"])
    return Network.build(architecture, activation="tanh", dtype="float64", seed=3)


class Pair:
    """The same network on the host and on the device, with statistics."""

    def __init__(self, kernels, make=dense, order="sequential", rule=RULE, batch=2, steps=1, **options):
        self.batch, schedule = batch, Schedule(order, steps, 0.1, **options)
        networks = make(), make()
        self.program = Program.build(networks[0], schedule)
        self.statistics = [Statistics(steps, networks[0].top) for _ in networks]
        self.host, self.device = (
            FastEngine(self.program, network.layers(batch, rule, *given), [statistics])
            for network, given, statistics in zip(networks, ((), (kernels,)), self.statistics)
        )

    @property
    def recorded(self):
        return self.device._recording is not None and self.device._recording._again is not None

    def step(self, rng):
        ends = self.host.layers[0].activity.shape, self.host.layers[-1].activity.shape
        inputs, targets = (
            rng.normal(size=ends[0]),
            np.eye(ends[1][1])[rng.integers(ends[1][1], size=self.batch)],
        )
        self.host.step(inputs, targets)
        self.device.step(inputs, targets)

    def check(self, close):
        """All that learning and observers get to see."""
        for unit, other in zip(self.host.layers, self.device.layers):
            close(other.activity, unit.activity)
            if unit.connection is not None:
                close(other.weight, unit.weight)
                close(other.bias, unit.bias)
                assert other.update_magnitude == pytest.approx(unit.update_magnitude, rel=1e-9)
                for name, array in unit.learner.state().items():
                    close(other.learner.state()[name], array)
        expected, found = self.statistics
        np.testing.assert_allclose(found.squared_error, expected.squared_error, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(found.free_energy, expected.free_energy, rtol=1e-9, atol=1e-12)
        assert found.settled_energy == pytest.approx(expected.settled_energy, rel=1e-9)
        found.check_finite()


def with_decays():
    return dense(activity_decay=[0, 0.1, 0.2, 0], precision=[1, 1, 2, 1], proximal_step=100.0)


CASES = {
    "mq, two iterations": {"steps": 2},
    "adam, simultaneous": {"rule": Adam(0.01), "order": "simultaneous"},
    "nlms, sigmoid": {"rule": NLMS(), "batch": 1, "make": lambda: dense(output="sigmoid")},
    "sgd, incremental, identity": {
        "order": "incremental",
        "rule": SGD(0.1),
        "make": lambda: dense(output="identity"),
    },
    "activity decay": {"make": with_decays},
    "convolution, whose gradient a product forms": {"make": convolutional},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_replayed_steps_are_steps(case, small_kernels, rng, close):
    """One step acted, one recorded and replayed, one replayed: each with samples of its own."""
    pair = Pair(small_kernels, **case)
    for number in range(3):
        pair.step(rng)
        pair.check(close)
        assert pair.recorded == (number > 0)


def test_weights_from_elsewhere_are_learnt_on(small_kernels, rng, close):
    """A restored state is written into the arrays that the graph knows; a weight in another array is not."""
    pair = Pair(small_kernels)
    pair.step(rng)
    states = [(arrays, facts) for arrays, facts in (pair.host.state(), pair.device.state())]
    for _ in range(2):
        pair.step(rng)
    for engine, state in zip((pair.host, pair.device), states):
        engine.restore(*state)
    pair.step(rng)
    pair.check(close)
    unit = pair.device.layers[1]
    unit.weight = small_kernels.snapshot(unit.weight)
    for recorded in (False, True):
        pair.step(rng)
        pair.check(close)
        assert pair.recorded == recorded


def test_other_samples_between_replays_disturb_nothing(small_kernels, rng, close):
    """Scratch and numbers of other work on the same kernels are not those of the graph."""
    pair, other = (Pair(small_kernels, steps=2) for _ in range(2))  # an error is 0 in the first
    for _ in range(3):
        pair.step(rng)
        other.step(rng)
    pair.check(close)
    other.check(close)


@dataclass(frozen=True)
class HalvedMQ:
    """A user's own rule: its learner may do anything on the host."""

    def __call__(self, weight, bias):
        return Halved(MQ(0.05)(weight, bias))


class Halved:
    def __init__(self, learner):
        self.learner, self.state, self.place = learner, learner.state, learner.place

    def learn(self, *arguments):
        return 0.5 * self.learner.learn(*arguments)


def own_order(ops):
    """Sequential, but the input is clamped by a function of the user's own."""
    import dataclasses

    for operation in sequential(ops):
        clamps = operation.name == "clamp" and operation.layer == 0
        yield dataclasses.replace(operation, action=lambda unit: Layer.clamp(unit)) if clamps else operation


@pytest.mark.parametrize(
    "case",
    [
        {"rule": HalvedMQ()},
        {"order": own_order},
        {"make": lambda: dense(proximal_step=100.0), "batch": 1, "precisions": "theorem 1"},
    ],
    ids=["own rule", "own operation", "refreshed precisions"],
)
def test_what_the_host_has_a_hand_in_is_not_recorded(case, small_kernels, rng, close):
    """It would be frozen in the graph; it is done operation by operation, with the same numbers."""
    pair = Pair(small_kernels, **case)
    for _ in range(3):
        pair.step(rng)
    pair.check(close)
    assert not pair.recorded


@pytest.mark.parametrize("every", [1, 3])
def test_probes_look_on_between_replays(every, small_kernels, rng, close, tmp_path):
    """A step that is looked at is acted; what others know afterwards is of the replayed step again."""
    engines, networks, traces = [], [], []
    for number, given in enumerate(((), (small_kernels,))):
        network, path = dense(), tmp_path / f"{number}.h5"
        program = Program.build(network, Schedule("sequential", 1, 0.1))
        units, statistics = network.layers(2, RULE, *given), Statistics(1, network.top)
        writer = TraceWriter(path, {})
        probes = (Probe("all", ("error", "update"), every=every, dtype="float64"),)
        recorder = Recorder(writer, network, units, statistics, 1, probes, every=1, training_steps=7)
        engines.append(FastEngine(program, units, [statistics, recorder]))
        networks.append((units, statistics, writer))
        traces.append(path)
    replayed = []
    steps = 3 if every == 1 else 5
    for _ in range(steps):
        inputs, targets = rng.normal(size=(2, 5)), np.eye(2)[rng.integers(2, size=2)]
        for engine in engines:
            engine.step(inputs, targets)
        (host, expected, _), (device, found, _) = networks
        np.testing.assert_allclose(found.free_energy, expected.free_energy, rtol=1e-9, atol=1e-12)
        for unit, other in zip(host[:-1], device[:-1]):
            close(other.weight, unit.weight)
            assert other.update_magnitude == pytest.approx(unit.update_magnitude, rel=1e-9)
            assert float(other.squared_error()) == pytest.approx(unit.squared_error(), rel=1e-9, abs=1e-14)
        replayed.append(engines[1]._recording._again is not None)
    assert replayed == ([False] * 3 if every == 1 else [False] + [True] * 4)
    for _, _, writer in networks:
        writer.close()
    expected, found = map(open_trace, traces)
    for table in ("summary", "probes/all"):
        columns = expected.table(table), found.table(table)
        assert columns[0].columns == columns[1].columns
        for name in columns[0].columns:
            ours, theirs = (one.read(name) for one in columns)
            np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-12, err_msg=f"{table}/{name}")
    assert found.table("probes/all").read("step").tolist() == list(range(0, steps, every))


def test_a_graph_that_cannot_be_captured(small_kernels, rng, close, monkeypatch):
    """Training goes on without, and says so once."""

    def refuse(step):
        raise RuntimeError("no graphs here")

    pair = Pair(small_kernels)
    monkeypatch.setattr(small_kernels.products, "capture", refuse)
    pair.step(rng)
    with pytest.warns(UserWarning, match="cannot be recorded, so it is slower: no graphs here"):
        pair.step(rng)
    pair.step(rng)
    pair.check(close)


def test_the_host_may_not_wait_while_it_records(small_kernels):
    """What the simulator refuses CUDA refuses, too."""
    from pcsim.kernels.cuda_arrays import HostProducts

    if not isinstance(small_kernels.products, HostProducts):
        pytest.skip("CUDA's own refusals are CUDA's to test")
    array = small_kernels.zeros((2, 3), np.float64)
    host = np.ones((2, 3))
    for forbidden in (
        array.copy,
        lambda: float(small_kernels.squared_error(array)),
        lambda: array.__setitem__(..., host),
        lambda: small_kernels.zeros((1,), np.float64),
    ):
        with pytest.raises(RuntimeError, match="while a graph is captured"):
            small_kernels.capture(forbidden)
    source = small_kernels.zeros((2, 3), np.float64)
    replay = small_kernels.capture(lambda: array.__setitem__(..., source))
    source[...] = host
    assert array.copy().tolist() == np.zeros((2, 3)).tolist()
    replay()
    assert array.copy().tolist() == host.tolist()


def test_a_recorded_step_has_as_many_nodes_as_the_roofline_says(small_kernels, rng, monkeypatch):
    """docs/performance-cuda.md counts the launches of a step on paper: here they are counted as they come."""
    from pcsim.experiments.bench.roofline import step
    from pcsim.kernels.cuda_arrays import HostProducts
    from pcsim.kernels.cuda_simulator import SimulatedStream

    if not isinstance(small_kernels.products, HostProducts):
        pytest.skip("the nodes of a CUDA graph are not counted")
    nodes, do = [], SimulatedStream.do
    network = Network.dense(SIZES)
    program = Program.build(network, Schedule("sequential", 1))
    engine = FastEngine(program, network.layers(2, RULE, small_kernels))
    for _ in range(2):
        monkeypatch.setattr(SimulatedStream, "do", lambda *given: nodes.append(given) or do(*given))
        nodes.clear()
        engine.step(rng.random((2, 5), dtype="float32"), np.eye(2, dtype="float32"))
        monkeypatch.setattr(SimulatedStream, "do", do)
    assert len(nodes) == sum(work.launches for work in step(SIZES, 2, 1))
