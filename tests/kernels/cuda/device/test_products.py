"""Our own predictions and feedback against NumPy: in tiles, a block for each number, and used at once."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.errors import ShapeError
from pcsim.kernels import Relaxation, reference
from pcsim.kernels.cuda import CudaKernels
from pcsim.kernels.cuda_blocks import Operand, Tile, shared_size
from pcsim.kernels.cuda_launch import LIMIT
from pcsim.kernels.cuda_products import TILES, feedback_plan, predict_plan

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
# batch, neurons below, neurons above; a tile of the small kernels is 4 × 8 and takes 3 steps at a time
SHAPES = [(1, 1, 1), (4, 8, 8), (3, 6, 5), (5, 9, 17), (9, 10, 3)]


@pytest.fixture(scope="module")
def kernels_of_warps():
    """Kernels with two warps a tile of 4 × 8, each with a part of every sum."""
    return CudaKernels(product_tile=Tile(8, 4, 1, 1, 2, groups=2))


def draw(rng, dtype, batch, below, above):
    """ĥ, W, b and the error above, with a zero and large numbers."""
    shapes = (batch, below), (above, below), (above,), (batch, above)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    arrays[0].flat[:3] = [0, -200, 90][: arrays[0].size]
    return arrays


def check(kernels, arrays, activation, close, precision=2.5):
    """Form both products into arrays of NaN and compare them with NumPy's in float64."""
    activity, weight, bias, error = (kernels.to_device(array) for array in arrays)
    up, down = (kernels.to_device(np.full_like(array, np.nan)) for array in (arrays[3], arrays[0]))
    kernels.predict(activity, weight, bias, activation, up)
    kernels.feedback(error, weight, precision, down)
    wide = [array.astype(float) for array in arrays]
    close(up, reference.activate(activation, wide[0]) @ wide[1].T + wide[2])
    close(down, precision * (wide[3] @ wide[1]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(shape, small_kernels, rng, close):
    """What hangs over the edge must neither be written nor counted, along the sum or across it."""
    check(small_kernels, draw(rng, np.float64, *shape), "relu", close)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_warps_share_a_tile(shape, kernels_of_warps, rng, close):
    """A sum may be shorter than one of the parts, so that a warp has nothing to add."""
    check(kernels_of_warps, draw(rng, np.float64, *shape), "relu", close)


@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_activation(activation, dtype, small_kernels, rng, close):
    """The sigmoid of a neuron that is not there is ½, not 0: it must not leak in from the edge."""
    arrays = draw(rng, dtype, 3, 5, 4)
    arrays[0].flat[:3] = [0, -20, 9]
    check(small_kernels, arrays, activation, close)


@DTYPES
def test_a_block_for_each_number(dtype, kernels, rng, close):
    """What one sample and layers of ten neurons get; nine neurons below are two blocks of feedback."""
    check(kernels, draw(rng, dtype, 2, 9, 3), "tanh", close)


@pytest.mark.parametrize("place", [0, 1], ids=["few samples", "more samples"])
def test_tiles_of_production(place, rng, close):
    """Tiles as they are used, which no small network gets; the sum has more steps than its warps' slices."""
    tile = TILES[np.float64][place]
    kernels = CudaKernels(product_tile=tile)
    check(kernels, draw(rng, np.float64, 2, tile.depth * tile.groups + 3, 17), "identity", close)


def relaxed_both(kernels, arrays, activation, constants, rng):
    """Relax and compare on the device; return what came out and what should have."""
    host = [*arrays[:1], *(rng.normal(size=arrays[0].shape).astype(arrays[0].dtype) for _ in range(2))]
    activity, error, prediction = (kernels.to_device(array) for array in host)
    above, weight = kernels.to_device(arrays[3]), kernels.to_device(arrays[1])
    room = kernels.zeros(arrays[0].shape, arrays[0].dtype)
    synapses = kernels.dense(activation, len(arrays[0]))
    said = synapses.relax_and_compare(activity, error, above, weight, prediction, room, constants)
    moved, wrong, expected = (array.astype(float) for array in host)
    back = constants.precision_above * (arrays[3].astype(float) @ arrays[1].astype(float))
    reference.relax(moved, wrong, back, activation, *constants[:2], constants.activity_decay)
    reference.compare(moved, expected, wrong)
    return (activity, error, said), (moved, wrong, reference.squared_error(wrong))


@pytest.mark.parametrize("shape", [(3, 6, 5), (5, 9, 17)], ids=str)
@pytest.mark.parametrize("way", ["small_kernels", "kernels_of_warps"])
def test_feedback_is_used_where_it_is_formed(way, shape, rng, close, request):
    """Equation (2) with all its terms, the new error and its norm, in one kernel."""
    kernels, arrays = request.getfixturevalue(way), draw(rng, np.float64, *shape)
    found, expected = relaxed_both(kernels, arrays, "tanh", Relaxation(0.1, 1.5, 0.7, 0.3), rng)
    for actual, desired in zip(found[:2], expected[:2]):
        close(actual, desired)
    assert float(found[2]) == pytest.approx(expected[2], rel=1e-12)


@DTYPES
def test_feedback_of_one_sample_is_used_where_it_is_formed(dtype, kernels, rng, close):
    """Nine neurons below are two blocks, of eight and of one."""
    arrays = draw(rng, dtype, 1, 9, 3)
    found, expected = relaxed_both(kernels, arrays, "relu", Relaxation(0.1, 1.5, 0.7, 0.0), rng)
    for actual, desired in zip(found[:2], expected[:2]):
        close(actual, desired)
    assert float(found[2]) == pytest.approx(expected[2], rel=1e-6 if dtype == np.float32 else 1e-12)


def test_a_library_takes_over(kernels, rng, close, monkeypatch):
    """Above the limits, whatever they are, the same comes out: of predictions, feedback and its use."""
    from pcsim.kernels import cuda_products

    for limit in ("THIN_SUMS", "MOST_OF_A_PREDICTION", "MOST_OF_FEEDBACK"):
        monkeypatch.setattr(cuda_products, limit, 0)
    asked, feedback = [], kernels.products.feedback
    monkeypatch.setattr(kernels.products, "feedback", lambda *given: asked.append(1) or feedback(*given))
    arrays = draw(rng, np.float64, 3, 5, 4)
    check(kernels, arrays, "gelu", close)
    found, expected = relaxed_both(kernels, arrays, "tanh", Relaxation(0.1, 1.5, 0.7, 0.3), rng)
    for actual, desired in zip(found[:2], expected[:2]):
        close(actual, desired)
    assert float(found[2]) == pytest.approx(expected[2], rel=1e-12)
    assert len(asked) == 2


def test_who_multiplies():
    """Ours up to about where cuBLAS takes over on an H200: 1024 neurons, of 128 samples up and of 64 down."""
    up = [predict_plan("relu", np.float32, (batch, 1024)) is not None for batch in (1, 64, 128, 129)]
    down = [feedback_plan(np.float32, (batch, 1024)) is not None for batch in (1, 64, 65, 128)]
    assert (up, down) == ([True, True, True, False], [True, True, False, False])
    assert predict_plan("relu", np.float32, (64, 10)).grid == (10, 64)  # a block for each number
    assert predict_plan("relu", np.float32, (64, 1024)).grid == (64, 2)
    assert predict_plan("relu", np.float32, (32, 1024)).grid == (64, 2)
    assert feedback_plan(np.float32, (1, 1024)).grid == (128, 1)


@pytest.mark.parametrize("tile", [Tile(8, 4, 4, 4, 2), Tile(8, 4, 4, 4, 2, groups=2)], ids=str)
def test_short_slices_leave_room_for_what_warps_have_summed(tile, rng, close):
    """Both lie in the same shared memory, one after the other, and either may be larger."""
    assert shared_size(Operand(True), Operand(True), tile) < tile.groups * tile.rows * tile.columns
    check(CudaKernels(product_tile=tile), draw(rng, np.float64, 9, 5, 17), "relu", close)


def test_nan_reaches_its_own_sums_only(small_kernels, rng):
    """A run that has diverged must be seen to have, and a tile shares memory with its neighbours."""
    arrays = draw(rng, np.float64, 5, 9, 10)
    arrays[0][2, 8] = arrays[3][1, 9] = np.nan
    activity, weight, bias, error = (small_kernels.to_device(array) for array in arrays)
    up, down = (small_kernels.zeros(array.shape, np.float64) for array in (arrays[3], arrays[0]))
    small_kernels.predict(activity, weight, bias, "relu", up)
    small_kernels.feedback(error, weight, 1.0, down)
    assert np.isnan(up.copy()).all(axis=1).tolist() == np.isnan(up.copy()).any(axis=1).tolist()
    assert np.isnan(up.copy()).any(axis=1).tolist() == [False, False, True, False, False]
    assert np.isnan(down.copy()).any(axis=1).tolist() == [False, True, False, False, False]


def test_mini_batches_arrive(kernels, rng):
    """Each in its turn, whatever the host's array becomes: on a GPU they come by another stream."""
    held, host = kernels.to_device(np.zeros((3, 5))), rng.random((3, 5))
    given, parts = [], [kernels.zeros((3, 5), np.float64) for _ in range(6)]
    for part in parts:
        host[...] = rng.random((3, 5))
        given.append(host.copy())
        assert kernels.load(host, held) is held
        host[...] = np.nan
        part[...] = held
    for part, expected in zip(parts, given):
        assert part.copy().tolist() == expected.tolist()
    assert kernels.load(np.asfortranarray(host), held) is held
    assert kernels.load(rng.random((2, 5)), held) is not held


def test_the_same_bits_each_time(kernels_of_warps, rng):
    """Sums are added in a fixed order, also those of several warps."""
    arrays = [kernels_of_warps.to_device(a) for a in draw(rng, np.float32, 5, 23, 9)]
    outs = [kernels_of_warps.zeros((5, 9), np.float32) for _ in range(3)]
    for out in outs:
        kernels_of_warps.predict(*arrays[:3], "tanh", out)
    assert len({out.copy().tobytes() for out in outs}) == 1


def test_tiles_that_cannot_be():
    """Warps that wait for nobody must each be a group of their own."""
    for tile in (
        {"across": 8, "down": 8, "groups": 2},
        {"across": 5, "down": 5},
        {"across": 32, "down": 33},
        {"across": 8, "down": 4, "groups": 33},
    ):
        with pytest.raises(ShapeError, match="expected a multiple of 32"):
            Tile(columns_each=1, rows_each=1, depth=2, **tile)


def test_more_numbers_than_32_bits_count(kernels):
    """Refused before any memory is taken."""
    with pytest.raises(ShapeError, match=rf"array of shape .* expected fewer than {LIMIT}"):
        kernels.zeros((2**16, 2**16), np.float32)
