"""Every learning kernel against the reference: shapes that fit the tile and shapes that do not."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from pcsim.kernels import Relaxation, reference
from pcsim.kernels.cuda_hebbian import tile_for, walks_far
from pcsim.learning import MQ

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
# outputs, inputs, batch; a tile of the small kernels is 8 × 16 and takes 3 samples at a time
WALKS = [(1, 1, 1), (8, 16, 3), (7, 5, 2), (9, 17, 7), (16, 32, 23)]
FAR = [(16, 32, 33), (3, 18, 130), (17, 1, 33), (16, 17, 26)]  # for which a product forms the gradient
CASES = WALKS + FAR


class Twins:
    """A connection on the host and its twin on the device."""

    def __init__(self, kernels, rng, outputs, inputs, batch, dtype=np.float64):
        shapes = [(outputs, inputs), (outputs,), (batch, outputs), (batch, inputs)]
        self.host = [rng.normal(size=shape).astype(dtype) for shape in shapes]
        self.device = [kernels.to_device(array) for array in self.host]
        # The reference works in float64: what is compared is the error of the kernel alone.
        self.host = [array.astype(float) for array in self.host]

    def new_batch(self, rng):
        for host, device in zip(self.host[2:], self.device[2:]):
            values = rng.normal(size=host.shape)
            device[...] = values
            host[...] = device.copy()

    def check(self, close):
        for host, device in zip(self.host, self.device):
            close(device, host)


def mq_both(twins, kernels, activation, v, device_v, decay=0.7):
    constants = (0.1, 1e-3, 1e-6, decay)
    expected = reference.mq_step(*twins.host, activation, v, np.array([4.0]), *constants)
    n = kernels.to_device(np.array([4.0]))
    return expected, kernels.mq_step(*twins.device, activation, device_v, n, *constants)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mq_step_for_any_shape(case, small_kernels, rng, close):
    """A tile that hangs over the edge must neither write beyond it nor count what is not there."""
    twins, v = Twins(small_kernels, rng, *case), np.array([0.3])
    device_v = small_kernels.to_device(v)
    expected, magnitude = mq_both(twins, small_kernels, "relu", v, device_v)
    twins.check(close)
    close(device_v, v)
    assert float(magnitude) == pytest.approx(expected, rel=1e-12)


def test_who_forms_the_gradient(small_kernels):
    """A small weight with a long mini-batch leaves a GPU idle; a large one must not pay for G_l in memory."""
    far = [walks_far(small_kernels._tile, batch, rows, columns) for rows, columns, batch in CASES]
    assert far == [case in FAR for case in CASES]
    assert not any(
        walks_far(tile_for(shape[0]), 64, *shape)
        for shape in ((1024, 3072), (1024, 1024), (10, 1024), (10, 64))
    )
    # 3 → 32 and 64 → 128 channels, 3 × 3: 900 and 144 places of the window on an image
    assert walks_far(tile_for(32), 64 * 900, 32, 27)
    assert walks_far(tile_for(128), 64 * 144, 128, 576)
    assert not walks_far(tile_for(1), 1, 1, 1)


@pytest.mark.parametrize("case", [(10, 13, 33), (65, 66, 2), (10, 5, 128), (10, 5, 130), (5, 70, 1)], ids=str)
def test_mq_step_with_the_tile_of_production(case, kernels, rng, close):
    """As above with the geometry that is used; a batch of one takes a kernel of its own."""
    twins, v = Twins(kernels, rng, *case), np.array([0.3])
    device_v = kernels.to_device(v)
    expected, magnitude = mq_both(twins, kernels, "tanh", v, device_v)
    twins.check(close)
    close(device_v, v)
    assert float(magnitude) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mq_step_for_any_activation(activation, dtype, small_kernels, rng, close):
    """The sigmoid of a sample that is not there is ½, not 0: it must not leak in from the edge."""
    twins, v = Twins(small_kernels, rng, 5, 7, 4, dtype), np.array([0.3])
    device_v = small_kernels.to_device(v)
    expected, magnitude = mq_both(twins, small_kernels, activation, v, device_v)
    twins.check(close)
    np.testing.assert_allclose(device_v.copy(), v, rtol=1e-6 if dtype == np.float32 else 1e-12)
    assert float(magnitude) == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(18, 260), (33, 5)], ids=str)
def test_one_sample_in_several_blocks(shape, kernels, rng, close):
    """A block has 256 columns and 16 rows of each; the second update knows whether the books were closed."""
    twins, v = Twins(kernels, rng, *shape, 1), np.array([0.3])
    device_v = kernels.to_device(v)
    for _ in range(2):
        expected, magnitude = mq_both(twins, kernels, "relu", v, device_v)
        twins.check(close)
        close(device_v, v)
        assert float(magnitude) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinity_passes_when_weights_are_restored(small_kernels, rng, close):
    """Rules without a v have one of their own on the device, 0, which no checkpoint restores."""
    twins = Twins(small_kernels, rng, 3, 4, 2)
    weight, bias, error = (twins.device[place].copy() for place in range(3))
    twins.device[2][...] = np.full_like(error, np.inf)
    small_kernels.sgd_step(*twins.device, "relu", 0.1)
    for array, host in zip(twins.device, (weight, bias, error)):
        array[...] = host
    expected = reference.sgd_step(*twins.host, "relu", 0.1)
    assert float(small_kernels.sgd_step(*twins.device, "relu", 0.1)) == pytest.approx(expected, rel=1e-12)
    twins.check(close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_several_mq_updates(dtype, small_kernels, rng, close):
    """v_l, its count and the total that must be 0 again go wrong only after the first update."""
    twins, rule = Twins(small_kernels, rng, 9, 5, 3, dtype), MQ(0.05, decay=0.7)
    learner = rule(*twins.host[:2])
    v = small_kernels.to_device(np.array([rule.rate]))
    n = small_kernels.zeros((1,), np.float64)
    constants = (rule.rate, rule.minimum_rate, rule.r, rule.decay)
    for _ in range(4):  # ρ_n = 1/2, 2/3, then ρ
        expected = learner.learn(reference, *twins.host, "tanh")
        magnitude = small_kernels.mq_step(*twins.device, "tanh", v, n, *constants)
        twins.check(close)
        single = dtype == np.float32
        np.testing.assert_allclose(v.copy(), learner.mean_gradient, rtol=1e-5 if single else 1e-12)
        assert float(magnitude) == pytest.approx(expected, rel=1e-5 if single else 1e-12)
        twins.new_batch(rng)
    assert n.copy()[0] == 4


def test_connections_of_one_shape_do_not_share_their_books(small_kernels, rng):
    """A magnitude that is read later must still be that of its own connection, and of its own update."""
    pair = [Twins(small_kernels, rng, 3, 4, 2) for _ in range(2)]
    magnitudes = [small_kernels.sgd_step(*twins.device, "relu", 0.1) for twins in (*pair, *pair)]
    expected = [reference.sgd_step(*twins.host, "relu", 0.1) for twins in (*pair, *pair)]
    assert [float(magnitude) for magnitude in magnitudes] == pytest.approx(expected, rel=1e-12)
    before = len(small_kernels._ledgers)
    pair.clear()
    gc.collect()
    assert len(small_kernels._ledgers) == before - 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_sgd_steps(dtype, small_kernels, rng, close):
    """Two in a row, the second after MQ's bookkeeping of the first."""
    twins = Twins(small_kernels, rng, 9, 17, 7, dtype)
    for rate in (0.1, 0.02):
        expected = reference.sgd_step(*twins.host, "gelu", rate)
        magnitude = small_kernels.sgd_step(*twins.device, "gelu", rate)
        twins.check(close)
        assert float(magnitude) == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(9, 17), (1, 1), (2, 70)], ids=str)
def test_nlms_steps(shape, small_kernels, rng, close):
    """The norm is a reduction of its own: of one element, and of more than a warp has threads."""
    twins = Twins(small_kernels, rng, *shape, 1)
    for _ in range(2):
        expected = reference.nlms_step(*twins.host, "sigmoid")
        magnitude = small_kernels.nlms_step(*twins.device, "sigmoid")
        twins.check(close)
        assert float(magnitude) == pytest.approx(expected, rel=1e-12)
        twins.new_batch(rng)


@pytest.mark.parametrize("case", [(9, 17, 7), (3, 5, 1), (9, 17, 26)], ids=str)
def test_several_adam_updates(case, small_kernels, rng, close):
    """Moments and bias corrections go wrong only after the first update."""
    twins = Twins(small_kernels, rng, *case)
    moments = tuple(np.zeros_like(twins.host[i]) for i in (0, 0, 1, 1))
    on_device = tuple(small_kernels.to_device(moment) for moment in moments)
    n, count = np.zeros(1), small_kernels.zeros((1,), np.float64)
    constants = (0.01, 0.8, 0.95, 1e-6)
    for _ in range(3):
        expected = reference.adam_step(*twins.host, "leaky_relu", moments, n, *constants)
        magnitude = small_kernels.adam_step(*twins.device, "leaky_relu", on_device, count, *constants)
        twins.check(close)
        for device, host in zip(on_device, moments):
            close(device, host)
        assert float(magnitude) == pytest.approx(expected, rel=1e-12)
        twins.new_batch(rng)


def test_adam_with_the_tile_of_production_in_float32(kernels, rng, close):
    """Once with 64 × 64 tiles, since flat moments are addressed by hand."""
    twins = Twins(kernels, rng, 10, 66, 3, np.float32)
    moments = tuple(np.zeros_like(twins.host[i]) for i in (0, 0, 1, 1))
    on_device = tuple(kernels.to_device(moment.astype(np.float32)) for moment in moments)
    constants = (0.01, 0.9, 0.999, 1e-8)
    reference.adam_step(*twins.host, "relu", moments, np.zeros(1), *constants)
    kernels.adam_step(*twins.device, "relu", on_device, kernels.zeros((1,), np.float64), *constants)
    twins.check(close)
    for device, host in zip(on_device, moments):
        close(device, host)


def test_constants_are_floats(small_kernels, rng, monkeypatch):
    """For an int, which a user may write, every kernel would be compiled once more."""
    products, launch, seen = small_kernels.products, small_kernels.products.launch, []

    def types_of(arguments):
        """Those of a tuple's parts, too: Numba compiles for them."""
        return [types_of(one) if isinstance(one, tuple) else type(one) for one in arguments]

    def watch(kernel, grid, block, arguments):
        seen.append(types_of(arguments))
        launch(kernel, grid, block, arguments)

    monkeypatch.setattr(products, "launch", watch)
    for number in (int, float):
        for batch in (2, 26):
            twins = Twins(small_kernels, rng, 3, 4, batch)
            moments = tuple(small_kernels.to_device(np.zeros_like(twins.host[i])) for i in (0, 0, 1, 1))
            n, constants = small_kernels.zeros((1,), np.float64), map(number, (1, 0, 0, 1))
            small_kernels.sgd_step(*twins.device, "relu", number(1))
            small_kernels.adam_step(*twins.device, "relu", moments, n, *constants)
            error, activity = twins.device[2:]
            small_kernels.feedback(error, twins.device[0], number(1), activity)
            room = [small_kernels.zeros(activity.shape, np.float64) for _ in range(3)]
            constants = Relaxation(*map(number, (1, 1, 1, 0)))
            synapses = small_kernels.dense("relu", batch)
            synapses.relax_and_compare(activity, room[0], error, twins.device[0], *room[1:], constants)
    middle = len(seen) // 2
    assert seen[:middle] == seen[middle:]


@pytest.mark.parametrize("batch", [2, 26], ids=["tile", "product"])
def test_nan_reaches_weights_and_v(batch, small_kernels, rng):
    """A run that has diverged must be seen to have."""
    twins = Twins(small_kernels, rng, 3, 4, batch)
    values = twins.host[3].copy()
    values[0, 1] = np.nan
    twins.device[3][...] = values
    v = small_kernels.to_device(np.array([0.3]))
    n = small_kernels.zeros((1,), np.float64)
    magnitude = small_kernels.mq_step(*twins.device, "relu", v, n, 0.1, 1e-3, 1e-6, 0.7)
    assert np.isnan(float(magnitude))
    assert np.isnan(twins.device[0].copy()).sum(axis=0).tolist() == [0, 3, 0, 0]
    assert np.isnan(v.copy()[0])
