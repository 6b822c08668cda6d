"""What a user of the Python interface gets wrong: one line, as docs/api/errors.md promises, and no work."""

import numpy as np
import pytest

import pcsim
from pcsim.errors import ConfigurationError, DataError, ProgramError, ShapeError

NETWORK = pcsim.Network.dense([3, 4, 2])
IMAGES = np.zeros((6, 3)), np.zeros(6, np.int64)
DATA = pcsim.Dataset("six", *IMAGES, *IMAGES, 1.0, 2)
RULE = pcsim.MQ(1e-3)


def experiment(**changes):
    """A small experiment, changed."""
    return pcsim.Experiment(**({"network": NETWORK, "dataset": DATA, "rule": RULE, "batch": 2} | changes))


def program(order="sequential"):
    """The program of an order."""
    return pcsim.Program.build(NETWORK, pcsim.Schedule(order))


def step(*arrays, rule=RULE):
    """Run a mini-batch."""
    pcsim.FastEngine(program(), NETWORK.layers(2, rule)).step(*arrays)


@pytest.mark.parametrize("make", [pcsim.Network.dense, pcsim.Network.of])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("activaton", "did you mean 'activation'"),
        ("sed", "did you mean 'seed'"),
        ("clamp", "known: activation"),
    ],
)
def test_misspelt_constants(make, name, hint):
    """They were ignored: a network of other functions than its author thinks trains without a word."""
    layers = [3, 2] if make == pcsim.Network.dense else ["3", "dense 2"]
    with pytest.raises(ConfigurationError, match=f"^{name}: unknown constant; {hint}"):
        make(layers, **{name: "tanh"})


def test_misspelt_constants_beside_a_torch_module():
    """Likewise, before the module is read."""
    with pytest.raises(ConfigurationError, match=r"^outpt: unknown constant; did you mean 'output'"):
        pcsim.Network.from_torch(None, outpt="softmax")


@pytest.mark.parametrize(
    ("mistake", "error", "saying"),
    [
        (lambda: pcsim.Network.dense(64), ShapeError, r"layers = 64: .* as in \[64, 32, 10\]"),
        (lambda: pcsim.Network.dense("64"), ShapeError, "layers = '64'"),
        (lambda: pcsim.Network.dense([64, 32.5, 10]), ShapeError, r"\[64, 32.5, 10\]: .* a whole number"),
        (lambda: pcsim.Network.of("64"), ConfigurationError, "layers = '64': expected a list of texts"),
        (lambda: pcsim.Network.of([64, 10]), ConfigurationError, "expected a list of texts"),
        (lambda: pcsim.Network.dense([3, 2], activation=np.tanh), ConfigurationError, "known: gelu"),
        (lambda: pcsim.Network.dense([3, 2], proximal_step="hard"), ConfigurationError, "is the hard clamp"),
        (lambda: pcsim.Network.dense([3, 2], precision=2.0), ConfigurationError, "a list of numbers"),
        (lambda: pcsim.Network.dense([3, 2], seed=-1), ConfigurationError, "seed = -1"),
        (lambda: pcsim.Network.dense([3, 2], parameters=[np.ones((2, 3))]), ConfigurationError, "a pair of"),
        (lambda: NETWORK.predict([[1, 2, 3]]), ShapeError, "inputs is a list: expected a NumPy array"),
        (lambda: NETWORK.layers(0), ConfigurationError, "batch = 0"),
        (lambda: NETWORK.layers(2, pcsim.MQ), ConfigurationError, r"as in pcsim.MQ\(1e-3\)"),
        (lambda: experiment(rule="mq"), ConfigurationError, r"rule = 'mq': .* as in pcsim.MQ\(1e-3\)"),
        (lambda: experiment(rule=pcsim.MQ), ConfigurationError, r"rule = .* as in pcsim.MQ\(1e-3\)"),
        (lambda: experiment(schedule="sequential"), ConfigurationError, r"pcsim.Schedule\('sequential'"),
        (lambda: experiment(dataset="digits"), ConfigurationError, r"pcsim.load_dataset\('digits'\)"),
        (lambda: experiment(dataset=IMAGES), ConfigurationError, "expected a pcsim.Dataset"),
        (lambda: experiment(network=[3, 2]), ConfigurationError, "expected a pcsim.Network"),
        (lambda: experiment(hardware="unit"), ConfigurationError, r"as in pcsim.unit\(\)"),
        (lambda: experiment(storage="gzip"), ConfigurationError, "storage = 'gzip': expected a pcsim"),
        (lambda: experiment(channels="x"), ConfigurationError, "channels = 'x': expected a pcsim"),
        (lambda: experiment(shuffle="no"), ConfigurationError, "shuffle = 'no': expected True or False"),
        (lambda: DATA.inputs([0], "float32", "validation"), DataError, "six: no validation samples: known"),
        (lambda: pcsim.MQ("1e-3"), ConfigurationError, "learning.rate = '1e-3': expected a value above 0"),
        (lambda: pcsim.Adam(1e-3, beta1="0.9"), ConfigurationError, "learning.beta1 = '0.9'"),
        (lambda: pcsim.SGD(True), ConfigurationError, "learning.rate = True"),
        (lambda: pcsim.Schedule(step_size="0.1"), ConfigurationError, "step_size = '0.1': expected a value"),
        (lambda: pcsim.Schedule(iterations=2.5), ConfigurationError, "iterations = 2.5: expected a whole"),
        (lambda: pcsim.Network.dense([3, 2], dtype="half"), ConfigurationError, "known: float32, float64"),
        (lambda: pcsim.Network.dense([3, 2], dtype=None), ConfigurationError, "dtype = 'None': known"),
        (lambda: pcsim.Probe("a", ("error",), layers=1), ConfigurationError, "layers = 1: expected a tuple"),
        (
            lambda: pcsim.Dataset("f", IMAGES[0], np.zeros(6), IMAGES[0], np.zeros(6), 1.0, 2),
            DataError,
            "f: train labels of type float64: expected whole numbers",
        ),
        (
            lambda: pcsim.FastEngine(program(), pcsim.Network.dense([3, 5, 2]).layers(2, RULE)),
            ShapeError,
            r"layers of \(3, 5, 2\) neurons: expected those of the program, \(3, 4, 2\)",
        ),
        (
            lambda: pcsim.EventEngine(program(), NETWORK.layers(2, RULE)[:2], pcsim.unit(), 2),
            ShapeError,
            r"layers of \(3, 4\) neurons",
        ),
        (lambda: experiment(seed=-3), ConfigurationError, "seed = -3: expected a whole number from 0"),
        (lambda: experiment(probes=pcsim.Probe("a", ("error",))), ConfigurationError, "a tuple of probes"),
        (lambda: pcsim.Program.build(NETWORK, "sequential"), ConfigurationError, "expected a pcsim.Schedule"),
        (lambda: pcsim.FastEngine(pcsim.Schedule(), ()), ConfigurationError, "expected a pcsim.Program"),
        (lambda: pcsim.FastEngine(program(), NETWORK), ConfigurationError, "from network.layers"),
        (lambda: pcsim.EventEngine(program(), None, "loihi", 2), ConfigurationError, "a pcsim.Hardware"),
        (lambda: step([[0] * 3] * 2, [[0] * 2] * 2), ShapeError, r"inputs is a list: .* \(2, 3\)"),
        (lambda: step(np.zeros((2, 3)), np.eye(2), rule=None), ProgramError, "layer 0 has no learning rule"),
        (lambda: pcsim.run(pcsim.load_model("digits")), ConfigurationError, "pcsim.Experiment.from_model"),
        (lambda: pcsim.run(experiment(), engine=pcsim.FastEngine), ConfigurationError, "known: backprop"),
        (lambda: pcsim.run(experiment(), kernels="cpu"), ConfigurationError, "as in pcsim.make_kernels"),
    ],
)
def test_typical_mistakes(mistake, error, saying):
    """Each gave an error of Python's or NumPy's from deep inside, or none."""
    with pytest.raises(error, match=saying) as caught:
        mistake()
    assert "\n" not in str(caught.value)


def returns_nothing(ops):
    """Forgets to yield."""
    ops.forward_sweep()


def yields_nothing(ops):
    """A loop over no iteration, say."""
    yield from ()


def forgets_from(ops):
    """The usual slip."""
    yield ops.forward_sweep()


@pytest.mark.parametrize(
    ("order", "saying"),
    [
        (returns_nothing, "returns None: expected operations; write it as a generator"),
        (yields_nothing, r"yields nothing to do: .*`yield from ops.forward_sweep\(\)`"),
        (forgets_from, "yields a list of operations: .*write `yield from` before it"),
    ],
)
def test_orders_that_are_none(order, saying):
    """One of no operations `trained` for hours and stayed at chance."""
    with pytest.raises(ProgramError, match=f"^order '{order.__name__}' {saying}"):
        program(order)


def test_an_order_that_never_learns_is_run_with_a_word():
    """Inference alone may be what is wanted, but whoever has forgotten the learning phase is told."""

    def no_learning(ops):
        yield from ops.forward_sweep()

    before = [weight.copy() for weight, _ in NETWORK.parameters]
    with pytest.warns(UserWarning, match="order 'no_learning' never learns"):
        pcsim.run(
            experiment(schedule=pcsim.Schedule(no_learning)),
            kernels=pcsim.make_kernels("reference", "float32"),
        )
    assert all(np.array_equal(*pair) for pair in zip(before, [w for w, _ in NETWORK.parameters], strict=True))


def test_numbers_of_numpy_are_numbers():
    """Sizes and seeds that come out of an array are as good as others, and go into a trace's JSON."""
    assert pcsim.Network.dense(np.array([3, 2])).sizes == (3, 2)
    made = experiment(seed=np.int64(3), batch=np.int32(2))
    assert (type(made.seed), made.seed, type(made.batch)) == (int, 3, int)
    schedule = pcsim.Schedule(iterations=np.int64(2), step_size=np.float32(0.5))
    assert (type(schedule.iterations), type(schedule.step_size)) == (int, float)
    assert (
        pcsim.Network.dense([3, 2], dtype=np.float64).dtype == pcsim.Network.dense([3, 2], dtype=float).dtype
    )


def test_objects_are_shown_in_a_line():
    """A notebook shows what a cell ends with; it was all weights."""
    convolutional = pcsim.Network.of(
        ["3x8x8", "conv 4 5x5/1", "dense 10"], activation="tanh", dtype="float64"
    )
    assert repr(NETWORK) == "Network(3, 4, 2; relu, softmax; float32)"
    assert repr(convolutional) == "Network(3x8x8, 4x4x4, 10; tanh, softmax; float64)"
    assert repr(NETWORK.layers(5)[1]) == "Layer(index=1, size=4, batch=5)"
    assert repr(DATA) == "Dataset(six; 6 train, 6 test; 3 features, 2 outputs)"
    assert repr(program()) == f"Program({len(program().operations)} operations, T = 3; {NETWORK!r})"
    assert repr(experiment()) == (
        f"Experiment(experiment; {NETWORK!r}, {DATA!r}, {RULE!r}, {pcsim.Schedule()!r}; batch 2, 1 epochs)"
    )


def test_networks_are_compared_as_objects():
    """Arrays have no truth value: == and `in` ended in NumPy's error."""
    assert NETWORK == NETWORK
    assert NETWORK.copy() != NETWORK
    assert NETWORK in {NETWORK}
