"""Every kernel on activities and errors against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.kernels import reference

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
OUTPUTS = pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])


def draw(rng, dtype, count, *shape):
    """Random arrays with zeros and large values among them, where kinks and overflows are."""
    arrays = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
    arrays[0].flat[:3] = [0, -200, 90][: arrays[0].size]
    return arrays


@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_relax(activation, dtype, kernels, rng, close):
    """Equation (2) with all its terms; 3 × 11 elements do not fill their two warps."""
    host = draw(rng, dtype, 3, 3, 11)
    device = [kernels.to_device(array) for array in host]
    wide = [array.astype(float) for array in host]
    for decay in (0.0, 0.3):
        kernels.relax(*device, activation, 0.1, 1.5, decay)
        reference.relax(*wide, activation, 0.1, 1.5, decay)
    for actual, desired in zip(device, wide):
        close(actual, desired)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_relax_and_compare(activation, kernels, rng, close):
    """One pass does what relax and compare do one after the other; 7 × 41 elements are two blocks."""
    activity, error, feedback, prediction = host = draw(rng, np.float64, 4, 7, 41)
    device = [kernels.to_device(array) for array in host]
    said = kernels.relax_and_compare(*device, activation, 0.1, 1.5, 0.3)
    reference.relax(activity, error, feedback, activation, 0.1, 1.5, 0.3)
    reference.compare(activity, prediction, error)
    close(device[0], activity)
    close(device[1], error)
    assert float(said) == pytest.approx(reference.squared_error(error), rel=1e-12)


@OUTPUTS
@pytest.mark.parametrize("mix", [0.0, 1 / 101, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 10), (3, 33), (1, 130)], ids=str)
def test_clamp_and_compare(output, mix, shape, kernels, rng, close):
    """Rows of less than a warp, of more than a warp, and of more than the block has threads."""
    prediction, target = draw(rng, np.float64, 1, *shape)[0], rng.uniform(size=shape)
    activity, error = (kernels.zeros(shape, np.float64) for _ in range(2))
    given = (kernels.to_device(target), kernels.to_device(prediction))
    said = kernels.clamp_and_compare(*given, output, mix, activity, error)
    desired, difference = np.empty(shape), np.empty(shape)
    reference.soft_clamp(target, prediction, output, mix, desired)
    reference.compare_output(desired, prediction, output, difference)
    close(activity, desired)
    close(error, difference)
    assert float(said) == pytest.approx(reference.squared_error(difference), rel=1e-12, abs=1e-300)


@OUTPUTS
@DTYPES
def test_output_functions_of_the_protocol(output, dtype, kernels, rng, close):
    """What a layer calls when nothing is fused."""
    prediction, target, activity = draw(rng, dtype, 3, 2, 5)
    given = [kernels.to_device(array) for array in (prediction, target, activity)]
    out, desired = kernels.zeros((2, 5), dtype), np.empty((2, 5))
    close(kernels.output(output, given[0]), reference.output(output, prediction.astype(float)))
    kernels.soft_clamp(given[1], given[0], output, 0.25, out)
    reference.soft_clamp(target.astype(float), prediction.astype(float), output, 0.25, desired)
    close(out, desired)
    kernels.compare_output(given[2], given[0], output, out)
    reference.compare_output(activity.astype(float), prediction.astype(float), output, desired)
    close(out, desired)
    close(given[2], activity)


@OUTPUTS
def test_hard_clamp_does_not_see_the_prediction(output, kernels):
    """0 · ∞ is NaN: a prediction that has diverged must not reach a clamped activity."""
    target, prediction = np.array([[0.0, 1.0]]), np.array([[np.inf, np.nan]])
    activity, error = (kernels.zeros((1, 2), np.float64) for _ in range(2))
    given = (kernels.to_device(target), kernels.to_device(prediction))
    kernels.clamp_and_compare(*given, output, 0.0, activity, error)
    assert activity.copy().tolist() == [[0, 1]]
    assert np.isnan(error.copy()).any()


@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype, kernels, rng, close):
    """The kink, far out on both sides, and NaN, which has to come through."""
    (values,) = draw(rng, dtype, 1, 2, 17)
    values.flat[-1] = np.nan
    out = kernels.zeros(values.shape, dtype)
    kernels.fire(kernels.to_device(values), activation, out)
    close(out, reference.activate(activation, values.astype(float)))


def test_compare(kernels, rng, close):
    """More than one block of threads, the last one not full."""
    activity, prediction = draw(rng, np.float64, 2, 33, 9)
    out = kernels.zeros((33, 9), np.float64)
    said = kernels.compare(kernels.to_device(activity), kernels.to_device(prediction), out)
    close(out, activity - prediction)
    assert float(said) == pytest.approx(reference.squared_error(activity - prediction), rel=1e-12)


@DTYPES
@pytest.mark.parametrize("precision", [1, 2.5])
def test_products(precision, dtype, kernels, rng, close):
    """Prediction with activation and bias, feedback with precision."""
    activity, weight, bias, error = (
        rng.normal(size=shape).astype(dtype) for shape in ((7, 5), (3, 5), (3,), (7, 3))
    )
    given = [kernels.to_device(array) for array in (activity, weight, bias, error)]
    up, down = kernels.zeros((7, 3), dtype), kernels.zeros((7, 5), dtype)
    kernels.predict(*given[:3], "tanh", up)
    kernels.feedback(given[3], given[1], precision, down)
    close(up, np.tanh(activity.astype(float)) @ weight.astype(float).T + bias)
    close(down, precision * (error.astype(float) @ weight.astype(float)))


@DTYPES
def test_energies(dtype, kernels, rng):
    """Read by observers; more elements than threads."""
    error, activity = (rng.normal(size=(7, 50)).astype(dtype) for _ in range(2))
    given = kernels.to_device(activity)
    squared, tolerance = (
        kernels.squared_error(kernels.to_device(error)),
        1e-6 if dtype == np.float32 else 1e-12,
    )
    wide = error.astype(float), activity.astype(float)
    assert float(squared) == pytest.approx(reference.squared_error(wide[0]), rel=tolerance)
    for decay in (0.0, 0.4):
        expected = reference.free_energy(wide[1], reference.squared_error(wide[0]), "sigmoid", 1.5, decay)
        for known in (squared, float(squared)):
            actual = kernels.free_energy(given, known, "sigmoid", 1.5, decay)
            assert float(actual) == pytest.approx(expected, rel=tolerance)


@OUTPUTS
@DTYPES
@pytest.mark.parametrize("width", [3, 33, 130])
def test_energy_of_the_output(output, dtype, width, kernels, rng):
    """Every share of equation (1), with a target of zeros and ones, and an activity that has rounded to 0."""
    target = np.eye(width)[:2].astype(dtype)
    activity, prediction = rng.uniform(0.1, 0.9, (2, width)).astype(dtype), 5 * rng.normal(size=(2, width))
    activity[0, 0] = 0
    host = target, activity, prediction.astype(dtype)
    wide = [array.astype(float) for array in host]
    wide[1][0, 0] = np.finfo(dtype).tiny  # where the reference's float32 ends, too
    squared = reference.squared_error(wide[1] - wide[2]) if output == "identity" else 0.3
    expected = reference.output_free_energy(*wide, squared, output, 2.0)
    actual = kernels.output_free_energy(*map(kernels.to_device, host), kernels.zeros, output, 2.0)
    assert float(actual) == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-12)


def test_numbers_outlive_what_comes_after(kernels, rng):
    """Each number has cells of its own: more of them than one piece of memory has."""
    from pcsim.kernels.cuda_numbers import CELLS

    arrays = [kernels.to_device(rng.normal(size=(1, 3))) for _ in range(4)]
    found = [kernels.squared_error(array) for array in arrays]
    kernels.take(CELLS)
    found.append(kernels.squared_error(arrays[0]) * 2.0 + 1.0)
    expected = [0.5 * float((array.copy() ** 2).sum()) for array in arrays]
    assert [float(number) for number in found] == pytest.approx([*expected, 2 * expected[0] + 1], rel=1e-12)


def test_scratch_is_kept_by_shape(kernels, rng):
    """A step must not allocate: the second call finds the arrays of the first."""
    activity, weight = kernels.zeros((2, 5), np.float64), kernels.zeros((3, 5), np.float64)
    bias, out = kernels.zeros((3,), np.float64), kernels.zeros((2, 3), np.float64)
    kernels.predict(activity, weight, bias, "relu", out)
    kept = dict(kernels._kept)
    kernels.predict(activity, weight, bias, "relu", out)
    assert kernels._kept == kept


def test_copy_and_count(kernels):
    """What the event engine does with a message, by hand: three numbers are not zero, NaN among them."""
    values = kernels.to_device(np.array([[0, -0.0, np.nan], [1, 0, -7]]))
    out = kernels.zeros((2, 3), np.float64)
    assert kernels.copy_and_count(values, out) == 3
    np.testing.assert_array_equal(out.copy(), values.copy())
