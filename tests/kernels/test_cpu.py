"""The fast CPU kernels against the reference: same functions, same numbers within rounding."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcsim
from pcsim.errors import ShapeError
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.kernels.products import MAKERS, Choices, Measured, OwnProducts

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
OUTPUTS = ["softmax", "sigmoid", "identity"]
SHAPES = [(1, 5, 3), (2, 7, 11), (33, 64, 10), (130, 129, 65), (64, 300, 260)]  # batch, inputs, outputs
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def cpu(request, tmp_path, monkeypatch):
    """Kernels that share every product, however small, over their threads and test every provider."""
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_A_THREAD", 0)
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_SHARING", 0)
    return CpuKernels(request.param, Choices(tmp_path / "products.json"))


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Both types of numbers."""
    return request.param


def draw(rng, dtype, *shapes):
    """Return standard normal arrays."""
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


def close(ours, expected, dtype):
    """Check that two arrays agree relative to the largest number in them."""
    scale = max(float(np.abs(expected).max()), 1e-30)
    assert np.abs(np.asarray(ours) - expected).max() <= TOLERANCE[dtype] * scale
    assert np.asarray(ours).dtype == np.asarray(expected).dtype


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inference(cpu, dtype, shape, activation):
    """One layer's prediction, comparison, feedback and relaxation, in shapes that divide by nothing."""
    batch, inputs, outputs = shape
    rng = np.random.default_rng(0)
    activity, error, error_above = draw(rng, dtype, (batch, inputs), (batch, inputs), (batch, outputs))
    weight, bias = draw(rng, dtype, (outputs, inputs), (outputs,))
    results = []
    for kernels in (cpu, reference):
        h, prediction, down, own = (
            activity.copy(),
            np.empty_like(error_above),
            np.empty_like(h0 := error),
            h0.copy(),
        )
        kernels.predict(h, weight, bias, activation, prediction)
        kernels.feedback(error_above, weight, 0.7, down)
        kernels.relax(h, own, down, activation, 0.05, 1.3, 0.2)
        kernels.compare(h, error, own)
        results.append((prediction, down, h, own, np.array(kernels.squared_error(own))))
    for ours, expected in zip(*results, strict=True):
        close(ours, expected, dtype)


def learned(kernels, rule, shape, dtype):
    """Return what three updates of a rule leave: parameters, the rule's state, the reported magnitude."""
    batch, inputs, outputs = shape
    rng = np.random.default_rng(1)
    weight, bias = draw(rng, dtype, (outputs, inputs), (outputs,))
    v, n = np.array([1e-3]), np.zeros(1)
    moments = tuple(np.zeros_like(a) for a in (weight, weight, bias, bias))
    constants = {
        "sgd": (0.1,),
        "nlms": (),
        "mq": (v, n, 1e-3, 1e-3, 1e-6, 0.6),
        "adam": (moments, n, 0.01, 0.9, 0.999, 1e-8),
    }[rule]
    for _ in range(3):
        error_above, activity = draw(rng, dtype, (batch, outputs), (batch, inputs))
        step = getattr(kernels, f"{rule}_step")
        magnitude = step(weight, bias, error_above, activity, "relu", *constants)
    return weight, bias, v, n, *moments, np.array(magnitude)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", ["sgd", "mq", "adam", "nlms"])
def test_learning(cpu, dtype, shape, rule):
    """Three updates of each rule: weights, biases, the rule's state and the reported magnitude."""
    shape = (1, *shape[1:]) if rule == "nlms" else shape
    for ours, expected in zip(
        learned(cpu, rule, shape, dtype), learned(reference, rule, shape, dtype), strict=True
    ):
        close(ours, expected, dtype)


@pytest.mark.parametrize("output", OUTPUTS)
def test_output(cpu, dtype, output):
    """Output function, soft clamp, output error and free energy, also for large predictions."""
    rng = np.random.default_rng(2)
    prediction, activity = draw(rng, dtype, (33, 10), (33, 10))
    prediction *= 20
    target = np.eye(10, dtype=dtype)[rng.integers(0, 10, 33)]
    results = []
    for kernels in (cpu, reference):
        clamped, error = activity.copy(), np.empty_like(activity)
        kernels.soft_clamp(target, prediction, output, 0.01, clamped)
        kernels.compare_output(clamped, prediction, output, error)
        half = kernels.squared_error(error)
        energy = kernels.output_free_energy(target, clamped, prediction, half, output, 1.5)
        said = kernels.output(output, prediction).copy()
        results.append((clamped, error, said, np.array(half), np.array(energy)))
    for ours, expected in zip(*results, strict=True):
        close(ours, expected, dtype)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_saturated_output_costs_as_much_as_in_the_reference(cpu, dtype, output):
    """What stands for the logarithm of an activity of 0 was another number here: 709 nats for 87."""
    target, activity = np.array([[1, 0]], dtype), np.array([[0, 1]], dtype)
    given = target, activity, np.array([[-90, 90]], dtype), 1.0, output, 0.0  # of the loss alone
    close(*(np.array(kernels.output_free_energy(*given)) for kernels in (cpu, reference)), dtype)


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_providers(name, shape, dtype, tmp_path):
    """Everyone who multiplies computes the three products and the update, whole and in parts."""
    choices = Choices(tmp_path / "none")
    if name not in choices.names:
        pytest.skip(f"no {name} on this machine")
    one, (batch, inputs, outputs) = choices.provider(name), shape
    rng = np.random.default_rng(3)
    rates, error = draw(rng, dtype, (inputs, batch), (outputs, batch))
    weight, bias = draw(rng, dtype, (outputs, inputs), (outputs,))
    prediction, down, gradient = np.empty_like(error), np.empty_like(rates), np.zeros_like(weight)
    changed, norm, arranged = weight.copy(), 0.0, one.arrange(rates)
    for rows in (slice(0, outputs // 2), slice(outputs // 2, outputs)):
        one.predict(rates, weight[rows], bias[rows], prediction[rows])
        one.update(error[rows], arranged, gradient[rows], 1.0)
        norm += one.update(error[rows], arranged, changed[rows], 0.25).sum()
    for first, last in ((0, inputs // 3), (inputs // 3, inputs)):
        one.feedback(error, weight, down[first:last], first)
    expected = error @ rates.T
    close(prediction, weight @ rates + bias[:, np.newaxis], dtype)
    close(down, weight.T @ error, dtype)
    close(gradient, expected, dtype)
    close(changed, weight + np.dtype(dtype).type(0.25) * expected, dtype)
    assert norm == pytest.approx(np.abs(expected).sum(dtype="float64"), rel=1e-5)


@given(
    batch=st.integers(1, 140),
    inputs=st.integers(1, 140),
    outputs=st.integers(1, 70),
    first=st.integers(0, 139),
    wide=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_own_products_at_every_edge(batch, inputs, outputs, first, wide):
    """Tiles end where matrices do: nothing beyond is read (it is NaN) or written (it stays)."""
    dtype = "float64" if wide else "float32"
    rng = np.random.default_rng(4)
    one, guard = OwnProducts(), np.full(64, np.nan, dtype)

    def fenced(shape):
        """Return an array with NaN right before and after it; no sum of such numbers cancels itself."""
        whole = np.concatenate([guard, rng.random(math.prod(shape)).astype(dtype), guard])
        return whole, whole[64:-64].reshape(shape)

    shapes = [(inputs, batch), (outputs, batch), (outputs, inputs), (outputs, batch), (inputs, batch)]
    fences, arrays = zip(*map(fenced, shapes), strict=True)
    rates, error, weight, up, down = arrays
    bias = rng.random(outputs).astype(dtype)
    first = min(first, inputs - 1)
    one.predict(rates, weight, bias, up)
    one.feedback(error, weight, down[first:], first)
    close(up, weight @ rates + bias[:, np.newaxis], dtype)
    close(down[first:], (weight.T @ error)[first:], dtype)
    expected = weight + error @ rates.T
    one.update(error, one.arrange(rates), weight, 1.0)
    close(weight, expected, dtype)
    for fence in fences:
        assert np.isnan(fence[:64]).all()
        assert np.isnan(fence[-64:]).all()


@pytest.mark.parametrize("batch", [1, 64])
def test_threads_change_no_bit(batch, dtype, tmp_path, monkeypatch):
    """The number of threads may depend on the machine's load, so results must not depend on it."""
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_A_THREAD", 0)
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_SHARING", 0)
    monkeypatch.setattr("pcsim.kernels.products.WORTH_A_TEST", 0)
    monkeypatch.setattr("pcsim.kernels.products.MAKERS", {"pcsim": OwnProducts})
    results = []
    for threads in (1, 2, 3):
        cpu, rng = CpuKernels(threads, Choices(tmp_path / "none")), np.random.default_rng(5)
        activity, error, weight, bias = draw(rng, dtype, (batch, 300), (batch, 260), (260, 300), (260,))
        up, down, v, n = np.empty_like(error), np.empty_like(activity), np.array([1e-3]), np.zeros(1)
        cpu.predict(activity, weight, bias, "relu", up)
        cpu.feedback(error, weight, 1.0, down)
        magnitude = cpu.mq_step(weight, bias, error, activity, "relu", v, n, 1e-3, 1e-3, 1e-6, 0.9)
        results.append([array.tobytes() for array in (up, down, weight, bias, v, np.array(magnitude))])
    assert results[0] == results[1] == results[2]


COMPILES_LATER = """
import numpy as np
from numba.core import event
import pcsim
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.hardware.clock import unit
from pcsim.kernels import products

class Listener(event.Listener):
    def on_start(self, data): print(data.data["dispatcher"].py_func.__name__)
    def on_end(self, data): pass

products.WORTH_A_TEST, products.MAKERS = 0, {"pcsim": products.OwnProducts}
kernels = pcsim.make_kernels("cpu", "float32")
event.register("numba:compile", Listener())
for output in ("softmax", "sigmoid", "identity"):
    for rule in (pcsim.SGD(0.1), pcsim.MQ(1e-3), pcsim.Adam(1e-3)):
        for batch in (1, 4):
            network = pcsim.Network.dense([6, 5, 4], output=output, precision=[1, 2, 3])
            program = pcsim.Program.build(network, pcsim.Schedule("sequential", 2))
            inputs, targets = np.zeros((batch, 6), "float32"), np.eye(4, dtype="float32")[:batch]
            for make in (
                lambda layers, seen: FastEngine(program, layers, [seen]),
                lambda layers, seen: EventEngine(program, layers, unit(), batch, [seen]),
            ):
                make(network.layers(batch, rule, kernels), Statistics(2, 2)).step(inputs, targets)
"""


def test_nothing_is_compiled_later(tmp_path):
    """Once the kernels are made, no training step waits for a compiler: not even on messages, read-only."""
    environment = os.environ | {"PCSIM_CACHE": str(tmp_path)}
    outcome = subprocess.run(
        [sys.executable, "-c", COMPILES_LATER], capture_output=True, text=True, check=True, env=environment
    )
    assert outcome.stdout == ""


def test_choice_is_kept(tmp_path, monkeypatch):
    """A run must give the same bits again, so the library chosen once is taken again."""
    monkeypatch.setattr("pcsim.kernels.products.WORTH_A_TEST", 0)
    path = tmp_path / "products.json"
    Choices(path).best("predict", 8, 20, 30, "float32")
    kept = json.loads(path.read_text())
    slowest = kept["measured"][-1]["provider"]
    path.write_text(json.dumps(kept | {"measured": kept["measured"][::-1]}))
    assert Choices(path).best("predict", 8, 20, 30, "float32").name == slowest


def test_processes_choose_alike(tmp_path, monkeypatch):
    """Two that measure at once: neither loses the other's lines, and of one product the first one's count."""
    monkeypatch.setattr("pcsim.kernels.products.WORTH_A_TEST", 0)
    shape = 8, 20, 30, "float32"
    one, other = (Choices(tmp_path / "products.json") for _ in range(2))

    def while_the_other_measures(*_):
        with monkeypatch.context() as patch:
            patch.setattr(
                "pcsim.kernels.products.measure", lambda *_: [Measured("hebbian", *shape, "numpy", 1.0)]
            )
            assert other.best("hebbian", *shape).name == "numpy"
        return [Measured("hebbian", *shape, "pcsim", 9.0)]

    one.best("predict", *shape)
    other.best("feedback", *shape)
    monkeypatch.setattr("pcsim.kernels.products.measure", while_the_other_measures)
    assert one.best("hebbian", *shape).name == "numpy"
    kept = Choices(tmp_path / "products.json").measured
    assert {line.product for line in kept} == {"predict", "feedback", "hebbian"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"machine": {}, "measured": []}', "\x00"])
def test_broken_cache_is_done_without(tmp_path, content):
    """A damaged file, or one from another machine, means a new self-test."""
    path = tmp_path / "products.json"
    path.write_text(content)
    assert Choices(path).measured == []


def test_small_products_are_not_tested(tmp_path):
    """The digits network must start at once: our own products, no torch, no file."""
    choices = Choices(tmp_path / "products.json")
    assert choices.best("predict", 32, 128, 128, "float32").name == "pcsim"
    assert not (tmp_path / "products.json").exists()
    assert isinstance(choices.measured, list)
    assert Measured("predict", 1, 2, 3, "float32", "numpy", 1.0).gflops == 1.0


@pytest.mark.parametrize("batch", [1, 2, 64, 130])
def test_comparing_finds_the_squared_error(cpu, dtype, batch):
    """The very bits of `squared_error`: probes of messages go that way, and see the same energies."""
    rng = np.random.default_rng(batch)
    activity, prediction = draw(rng, dtype, (batch, 37), (batch, 37))
    for out in (cpu.mini_batch(activity.shape, activity.dtype), np.empty_like(activity)):
        assert cpu.compare(activity, prediction, out) == cpu.squared_error(out) > 0
        assert cpu.compare_output(activity, prediction, "softmax", out) == cpu.squared_error(out) > 0


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("lies", ["neuron by neuron", "sample by sample"])
def test_copy_and_count(cpu, dtype, batch, lies):
    """A message is copied whatever its layout; −0 is a zero, NaN is not, by hand: 3 of each sample's 5."""
    values = np.tile(np.array([0, -0.0, np.nan, 1e-30, -7], dtype), (batch, 1))
    values = values if lies == "sample by sample" else np.asfortranarray(values)
    values.flags.writeable = False
    for kernels in (cpu, reference):
        for out in (kernels.mini_batch(values.shape, values.dtype), np.empty_like(values, order="C")):
            assert kernels.copy_and_count(values, out) == 3 * batch
            np.testing.assert_array_equal(out, values)


def test_arrays_begin_at_lines_of_the_cache():
    """Vectors that lie across two lines are read twice, and a step takes some per cent longer by chance."""
    cpu, number = CpuKernels(), np.dtype("float32")
    for size in range(1, 50):
        arrays = [
            cpu.mini_batch((3, size), number),
            cpu.scratch("use", (size,), number),
            cpu.parts(np.ones(size)),
        ]
        assert all(array.ctypes.data % 64 == 0 for array in arrays)
        assert not arrays[0].any()
    large = cpu.mini_batch((64, 8192), number)
    assert large.ctypes.data % 2**21 == 0


@pytest.mark.parametrize("scatter", [np.asfortranarray, lambda w: np.pad(w, ((0, 0), (0, 3)))[:, :-3]])
def test_scattered_weights(scatter, rng):
    """Compiled code would change a copy of them and learn nothing: kernels refuse, layers rearrange."""
    cpu, weight = CpuKernels(), scatter(rng.normal(size=(4, 6)))
    ends = rng.normal(size=(3, 4)), rng.normal(size=(3, 6)), "relu"
    moments = tuple(np.zeros_like(array) for array in (weight, weight, np.zeros(4), np.zeros(4)))
    with pytest.raises(ShapeError, match="does not lie row by row"):
        cpu.sgd_step(weight, np.zeros(4), *ends, 0.1)
    with pytest.raises(ShapeError, match="does not lie row by row"):
        cpu.adam_step(weight, np.zeros(4), *ends, moments, np.zeros(1), 0.1, 0.9, 0.999, 1e-8)
    network = pcsim.Network.dense([6, 4], dtype="float64")
    (unit, _) = network.layers(3, pcsim.SGD(0.1), cpu)
    unit.weight = weight
    cpu.sgd_step(unit.weight, unit.bias, *ends, 0.1)
    assert np.abs(unit.weight - weight).max() > 1e-3


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_hard_clamp_does_not_see_the_prediction(output):
    """0 · ∞ is NaN: a prediction that has diverged must not reach a clamped activity, compared on the way."""
    cpu, target = CpuKernels(), np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    prediction = np.array([[np.inf, np.nan, 1.0], [0.0, -np.inf, 2.0]])
    activity, error = np.empty_like(target), np.empty_like(target)
    said = cpu.clamp_and_compare(target, prediction, output, 0.0, activity, error)
    assert activity.tolist() == target.tolist()
    assert not np.isfinite(error).all() or output == "sigmoid"
    assert said == pytest.approx(cpu.squared_error(error), nan_ok=True)
