"""Precisions refreshed from the state: Theorem 1 as an option of every schedule that is a list."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import model_from_dict
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import ConfigurationError, LocalityError, ShapeError
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.verify import verify
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.kernels.backends import make_kernels
from pcsim.learning import NLMS
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.channel import Channels, Messages
from pcsim.schedule.operation import Place
from pcsim.schedule.precisions import PRECISIONS
from pcsim.schedule.program import Program, Schedule
from pcsim.training.data import load_dataset

REFRESHED = [name for name in PRECISIONS if name != "constant"]
LISTED = ["simultaneous", "sequential", "bottom-up", "red-black", "incremental"]


def small(sizes=(3, 4, 5, 2), beta=0.5, seed=0, dtype="float64", **constants) -> Network:
    """A tanh network with a soft clamp."""
    constants = {"activation": "tanh", "output": "identity"} | constants
    return Network.dense(sizes, proximal_step=beta, seed=seed, dtype=dtype, **constants)


def sample(network, seed=0):
    """One sample that suits any output."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, network.sizes[0])).astype(network.dtype)
    return x, np.eye(network.sizes[-1], dtype=network.dtype)[[seed % network.sizes[-1]]]


def state(layers) -> bytes:
    """All bits of activities, errors, weights and biases."""
    arrays = [array for one in layers for array in (one.activity, one.error)]
    arrays += [array for one in layers[:-1] for array in (one.weight, one.bias)]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_one_iteration_by_hand(order):
    """A 1-1-1 linear network, written out: norms, clamp, decay, precision of the error above, NLMS."""
    x, y, beta, step = 2.0, 1.0, 0.5, 0.1
    w0, b0, w1, b1 = 0.5, 0.1, -0.7, 0.2
    parameters = [(np.array([[w]]), np.array([b])) for w, b in ((w0, b0), (w1, b1))]
    network = small([1, 1, 1], beta, activation="identity", parameters=parameters)
    h = w0 * x + b0
    n0, n1 = x**2 + 1, h**2 + 1
    e2 = (y - (w1 * h + b1)) * beta * n1 / (1 + beta * n1)
    h_new = h + step * (w1 * e2 / n1 + h * e2**2 / n1**2)
    n1_new = h_new**2 + 1
    e2_new = (y - (w1 * h_new + b1)) * beta * n1_new / (1 + beta * n1_new)
    on0, on1 = (h_new - h) / n0, e2_new / n1_new
    schedule = Schedule(order, 1, step, "none", "theorem 1")
    units = network.layers(1, NLMS())
    FastEngine(Program.build(network, schedule), units).step(np.array([[x]]), np.array([[y]]))
    assert units[1].norm_below[0] == pytest.approx(n0, rel=1e-15)
    assert units[2].norm_below[0] == pytest.approx(n1_new, rel=1e-14)
    found = [float(array.item()) for pair in network.parameters for array in pair]
    np.testing.assert_allclose(found, [w0 + on0 * x, b0 + on0, w1 + on1 * h_new, b1 + on1], atol=1e-14)


def test_own_error_weighs_by_hand():
    """In the second iteration e_1 is not 0: it must pull with 1/N_0, N_0 = ‖x‖² + 1 told from below."""
    parameters = [(np.array([[0.5, -0.3]]), np.zeros(1)), (np.array([[0.0]]), np.zeros(1))]
    network = small([2, 1, 1], activation="identity", parameters=parameters)
    x, y = np.array([[1.0, 2.0]]), np.array([[0.0]])  # no error at the output: e_1 only decays
    units = network.layers(1, NLMS())
    schedule = Schedule("sequential", 1, 0.3, "none", "theorem 1")
    program = Program.build(network, schedule)
    for operation in program.operations:  # kicked off its prediction just before it relaxes
        if operation.name == "relax":
            units[1].activity += 0.6
            units[1].compare()
        payload = _perform(operation, units, x, y)
        if operation.sends:
            units[operation.target].inbox[operation.sends] = payload.copy()
    prediction = 0.5 - 0.6
    assert units[1].activity.item() - prediction == pytest.approx(0.6 * (1 - 0.3 / 6), rel=1e-14)


def _perform(operation, units, x, y):
    units[0].target, units[-1].target = x, y
    return operation.action(units[operation.layer])


@settings(max_examples=20)
@given(
    order=st.sampled_from(LISTED),
    precisions=st.sampled_from(REFRESHED),
    activation=st.sampled_from(["relu", "tanh", "gelu", "leaky_relu"]),
    output=st.sampled_from(["identity", "softmax", "sigmoid"]),
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    beta=st.sampled_from([0.1, 1.0, 20.0]),
    backend=st.sampled_from(["reference", "cpu"]),
    seed=st.integers(0, 2**16),
)
def test_equals_a_second_implementation(order, precisions, activation, output, sizes, beta, backend, seed):
    """Every list order, f and output on both backends, against the oracle that shares no code."""
    network = small(sizes, beta, seed, activation=activation, output=output)
    initial = [[array.copy() for array in arrays] for arrays in zip(*network.parameters, strict=True)]
    oracle = Oracle(
        *initial, activation, output, order, 3, 0.1, mix=1 / (1 + beta), rule="nlms", precisions=precisions
    )
    program = Program.build(network, Schedule(order, 3, 0.1, "harmonic", precisions))
    units = network.layers(1, NLMS(), make_kernels(backend, "float64"))
    engine = FastEngine(program, units)
    for step in range(2):
        x, y = sample(network, step)
        engine.step(x, y)
        activities, errors = oracle.step(x, y)[-1]
        if order != "incremental":  # whose errors are formed before the last learning
            for layer in range(1, network.top + 1):
                np.testing.assert_allclose(units[layer].activity, activities[layer], atol=1e-11)
                np.testing.assert_allclose(units[layer].error, errors[layer], atol=1e-11)
            for one in units[1:-1]:  # no norm lies where others will look for the prediction
                inbox = one.inbox[MessageKind.PREDICTION]
                np.testing.assert_array_equal(one.activity - inbox, one.error)
    network.gather(units)
    for layer, (weight, bias) in enumerate(network.parameters):
        np.testing.assert_allclose(weight, oracle.weights[layer], atol=1e-11)
        np.testing.assert_allclose(bias, oracle.biases[layer], atol=1e-11)


@pytest.mark.parametrize("precisions", REFRESHED)
@pytest.mark.parametrize("order", LISTED)
def test_is_local(order, precisions):
    """Declared and rehearsed: what is foreign is disturbed, and no result may change."""
    for sizes in ((3, 4, 5, 2), (400, 300, 10)):  # the second one is rehearsed on narrow stand-ins
        Program.build(small(sizes), Schedule(order, 2, precisions=precisions)).check_locality()


@pytest.mark.parametrize("place", ["norm_below", "inbox.error", "activity", "error"])
def test_undeclared_knowledge_is_found_out(place):
    """N_{l−1} is presynaptic and ‖e_{l+1}‖² comes in a message: a relaxation that hides either is refused."""
    program = Program.build(small(), Schedule("sequential", 1, precisions="theorem 1"))
    operations = [
        dataclasses.replace(one, reads=one.reads - {Place(one.layer, place)}) if one.name == "relax" else one
        for one in program.operations
    ]
    with pytest.raises(LocalityError, match=f"reads layer 2's {place} without declaring it"):
        dataclasses.replace(program, operations=tuple(operations)).check_locality()


def test_a_foreign_norm_is_refused():
    """The weight of a layer's own error is not its own knowledge: it may not be looked up below."""
    program = Program.build(small(), Schedule("sequential", 1, precisions="theorem 1"))
    looks_down = [
        dataclasses.replace(one, reads=one.reads | {Place(1, "activity")}) if one.name == "clamp" else one
        for one in program.operations
    ]
    with pytest.raises(LocalityError, match="layer 1's activity"):
        dataclasses.replace(program, operations=tuple(looks_down)).check_locality()


def test_norms_are_told_once_a_change():
    """One message ahead of each prediction whose source moved; the clamped input tells once a mini-batch."""
    program = Program.build(small((3, 4, 4, 2)), Schedule("sequential", 3, precisions="theorem 1"))
    told = [one.layer for one in program.operations if one.name == "tell_norm"]
    assert [told.count(layer) for layer in range(3)] == [1, 4, 4]
    plain = Program.build(small((3, 4, 4, 2)), Schedule("sequential", 3))
    assert program.cost(1).messages == plain.cost(1).messages + len(told)
    assert program.cost(1).multiplications == plain.cost(1).multiplications
    again = Program.build(small((3, 4, 4, 2)), Schedule("incremental", 2, precisions="theorem 1"))
    names = [one.name for one in again.operations if one.layer == 0]
    assert names.count("tell_norm") == 1 < names.count("predict")  # learning changes no norm


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", LISTED)
def test_engines_give_the_same_bits(order, dtype, backend):
    """The norm shares a link with the predictions: no engine, delay or reordering may mix them up."""
    slow = Hardware(time_per_operation=1.0, time_per_byte=0.3, links=Links(2.0, {}, 1.5, 7))
    seen = set()
    for make in ("fast", "event", "delayed", "reordered"):
        network = small((4, 6, 5, 3), dtype=dtype, activation="relu", output="softmax")
        program = Program.build(network, Schedule(order, 3, 0.3, precisions="theorem 1"))
        units = network.layers(1, NLMS(), make_kernels(backend, dtype))
        if make == "reordered":
            program = program.reordered(np.random.default_rng(3))
        if make in ("fast", "reordered"):
            engine = FastEngine(program, units)
        else:
            engine = EventEngine(program, units, unit() if make == "event" else slow, 1)
        for seed in range(3):
            engine.step(*sample(network, seed))
        seen.add(state(units))
    assert len(seen) == 1


def test_an_event_driven_link_carries_one_number():
    """Messages are as wide as a prediction, but all of a norm's but the first are 0 and cost no event."""
    network = small((4, 6, 5, 3))
    program = Program.build(network, Schedule("sequential", 2, precisions="theorem 1"))
    engine = EventEngine(program, network.layers(1, NLMS()), unit(), 1)
    engine.step(*sample(network))
    up = [event for event in engine.timeline if event.kind == "message" and event.target == event.layer + 1]
    norms = [event for event in up if event.nonzero_values == 1]
    assert len(norms) == sum(one.name == "tell_norm" for one in program.operations)


def test_free_energy_falls_to_the_proximal_loss():
    """F is β Loss(ĥ_L) + ½ Σ ‖e_l‖²/N_{l−1}, written out, and a small step lowers it."""
    beta, network = 0.7, small((3, 4, 4, 2), beta=0.7)
    program = Program.build(network, Schedule("simultaneous", 40, 0.1, "none", "theorem 1"))
    statistics = Statistics(40, network.top)
    units = network.layers(1, lambda weight, bias: _Still())
    x, y = sample(network)
    FastEngine(program, units, [statistics]).step(x, y)
    total = statistics.free_energy.sum(axis=1)
    assert (np.diff(total) < 1e-12).all()
    assert total[-1] < total[0] - 1e-3
    rates = [x, *(np.tanh(unit.activity) for unit in units[1:-1])]
    parts = [
        (unit.error**2).sum() / ((below**2).sum() + 1) for unit, below in zip(units[1:], rates, strict=True)
    ]
    loss = 0.5 * ((y - units[-1].activity) ** 2).sum()
    assert total[-1] == pytest.approx(beta * loss + 0.5 * sum(parts), rel=1e-12)


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_norms_weigh_no_other_program(engine):
    """Layers are used by one engine after another: each weighs errors by its own program's precisions."""
    network = small()
    x, y = sample(network)

    def engine_of(units, **options):
        program, statistics = Program.build(network, Schedule(iterations=2, **options)), Statistics(2, 3)
        if engine == "fast":
            return FastEngine(program, units, [statistics]), statistics
        return EventEngine(program, units, unit(), 1, [statistics]), statistics

    def units_of():
        return network.layers(1, lambda weight, bias: _Still())

    expected = []
    for options in ({}, {"precisions": "theorem 1"}):
        alone, statistics = engine_of(units_of(), **options)
        alone.step(x, y)
        expected.append(statistics.free_energy)
    units = units_of()
    pair = [engine_of(units), engine_of(units, precisions="theorem 1")]
    for _ in range(2):  # each after the other
        for (runner, statistics), energies in zip(pair, expected, strict=True):
            runner.step(x, y)
            assert np.array_equal(statistics.free_energy, energies)


class _Still:
    """Learns nothing."""

    def learn(self, *operands):
        return 0.0

    def state(self):
        return {}

    def place(self, kernels, synapses):
        pass


def golden_case(path, precisions):
    """Write a golden case from the oracle: two steps of one sample."""
    network, beta = small((3, 4, 5, 2), beta=0.5), 0.5
    initial = [[array.copy() for array in arrays] for arrays in zip(*network.parameters, strict=True)]
    rest = {"mix": 1 / (1 + beta), "rule": "nlms", "precisions": precisions}
    oracle = Oracle(*initial, "tanh", "identity", "sequential", 3, 0.2, **rest)
    case = {"dims": network.sizes, "batch": 1, "steps": 2, "iterations": 3, "order": "sequential"}
    case |= {"optimizer": "nlms", "activation": "tanh", "output": "identity", "beta": beta, "step_size": 0.2}
    case |= {"step_decay": "harmonic", "alpha": 0, "alpha_min": 0, "r": 0, "rho": 0, "precisions": precisions}
    case |= {f"init/{letter}{i}": initial[j][i] for j, letter in enumerate("Wb") for i in range(3)}
    for step in range(2):
        x, y = sample(network, step)
        case |= {f"{step}/x": x, f"{step}/y": y}
        for t, (a, e) in enumerate(oracle.step(x, y)):
            case |= {f"{step}/{t}/a{i}": a[i] for i in (1, 2, 3)}
            case |= {f"{step}/{t}/e{i}": e[i] for i in (1, 2, 3)}
            case[f"{step}/{t}/energy"] = sum(0.5 * (one**2).sum() for one in e[1:])
    case |= {f"final/W{i}": oracle.weights[i] for i in range(3)}
    case |= {f"final/b{i}": oracle.biases[i] for i in range(3)}
    np.savez(path, **case)
    return case


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("precisions", REFRESHED)
def test_verify_covers_it(tmp_path, precisions, engine, backend):
    """`pcsim verify` replays a golden case with refreshed precisions, and can tell settings apart."""
    path = tmp_path / "case.npz"
    case = golden_case(path, precisions)
    assert verify(path, engine=engine, backend=backend).largest <= 1e-13
    case["precisions"] = "constant"
    np.savez(path, **case)
    assert verify(path, engine=engine, backend=backend).activity > 1e-4


def model(**changes):
    """A model file with the option, as a dictionary; changes by section."""
    document = {
        "name": "theorem1",
        "network": {"layers": [64, 16, 10], "activation": "tanh", "output": "identity", "proximal_step": 1.0},
        "data": {"name": "digits"},
        "schedule": {"order": "sequential", "precisions": "theorem 1"},
        "learning": {"rule": "nlms"},
        "training": {"batch": 1, "epochs": 1},
    }
    for section, keys in changes.items():
        document[section] = document.get(section, {}) | keys
    return document


def test_model_file_says_it():
    """The key reaches the schedule, and what decides the numbers says so."""
    experiment = Experiment.from_model(model_from_dict(model()))
    assert experiment.schedule.precisions == "theorem 1"
    assert experiment.describe()["schedule"]["precisions"] == "theorem 1"
    plain = Experiment.from_model(model_from_dict(model(schedule={"precisions": "constant"})))
    assert "precisions" not in plain.describe()["schedule"]  # older checkpoints go on


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schedule": {"precisions": "theorem1"}}, "did you mean 'theorem 1'"),
        ({"schedule": {"order": "asynchronous"}}, "not 'asynchronous'"),
        ({"learning": {"rule": "sgd", "rate": 0.1}, "training": {"batch": 8}}, "batch = 8: expected 1"),
        ({"network": {"clamp": "hard"}}, "clamp is hard"),
        ({"network": {"precision": [1.0, 2.0, 1.0]}}, "precisions or activity decays of its own"),
        ({"network": {"activity_decay": [0.0, 0.1, 0.0]}}, "precisions or activity decays of its own"),
        ({"messages": {"threshold": 0.1}}, "without messages"),
        ({"faults": {"loss": 0.1}}, "without messages"),
        (
            {
                "network": {"layers": ["1x8x8", "conv 2 3x3/1", "dense 10"], "activation": "relu"},
                "learning": {"rule": "sgd", "rate": 0.1},
            },
            "has convolutions",
        ),
    ],
)
def test_refused_in_one_line(changes, text):
    """Where Theorem 1 says nothing, nothing is run."""
    with pytest.raises(ConfigurationError, match=text) as refusal:
        Experiment.from_model(model_from_dict(model(**changes)))
    assert "\n" not in str(refusal.value)


def test_refused_from_python_too():
    """The engines themselves take any list: several samples are found out when a norm is to be formed."""
    network = small()
    program = Program.build(network, Schedule("sequential", 1, precisions="theorem 1"))
    engine = FastEngine(program, network.layers(2, NLMS()))
    with pytest.raises(ShapeError, match="mini-batch of 2: expected 1"):
        engine.step(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ConfigurationError, match="without messages"):
        Experiment(
            small((64, 4, 10)),
            load_dataset("digits"),
            NLMS(),
            Schedule(precisions="theorem 1"),
            batch=1,
            channels=Channels(Messages(0.1), Messages(0.1)),
        )


@pytest.mark.parametrize("engine", ["fast", "event", "distributed"])
def test_command_line_runs_it(tmp_path, engine):
    """From a model file to a trace whose predictions are predictions, on every engine that runs programs."""
    lines = [
        *("[network]", "layers = [64, 12, 12, 10]", 'activation = "tanh"', 'output = "identity"'),
        *("proximal_step = 0.05", "[data]", 'name = "digits"', "[schedule]", 'precisions = "theorem 1"'),
        *("step_size = 0.3", "[learning]", 'rule = "nlms"', "[training]", "batch = 1", "epochs = 1"),
    ]
    path = tmp_path / "theorem1.toml"
    path.write_text("\n".join(lines))
    trace = tmp_path / "out.h5"
    arguments = ["run", str(path), "--engine", engine, "--trace", str(trace), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, (outcome.output, outcome.exception)
    told = json.loads(outcome.stdout)
    run = told[0] if isinstance(told, list) else told
    assert run["test_accuracy"] > 0.4  # chance is 0.1
