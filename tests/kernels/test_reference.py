"""The arithmetic against numbers worked out by hand, and slopes against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from strategies import ACTIVATIONS, OUTPUTS, TORCH_ACTIVATIONS

from pcsim.kernels import reference as kernels

LOG3 = np.log(3.0)


def row(*values: float) -> np.ndarray:
    """One sample."""
    return np.array([values], float)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Zero weight (2, 2) and bias (2,)."""
    return np.zeros((2, 2)), np.zeros(2)


# ---------------------------------------------------------------------------------------- inference


def test_predict_applies_the_activation_before_the_weights():
    """W f(h) + b with f(1, −2) = (1, 0): (2 + 1, −1 + 1, 0 + 1); f after W would give (0, 0, 0)."""
    out = np.full((1, 3), np.nan)
    kernels.predict(row(1, -2), np.array([[2.0, 3], [-1, 4], [0, 1]]), np.ones(3), "relu", out)
    assert_allclose(out, row(3, 0, 1))


def test_compare_subtracts_the_prediction_from_the_activity():
    """(1, 2) − (3, −1) = (−2, 3); the opposite sign would make every update climb."""
    out = np.empty((1, 2))
    kernels.compare(row(1, 2), row(3, -1), out)
    assert_allclose(out, row(-2, 3))


@pytest.mark.parametrize(
    ("output", "prediction", "expected"),
    [
        ("softmax", row(0, LOG3), row(-0.25, 0.25)),
        ("sigmoid", row(LOG3, 0), row(-0.75, 0.5)),
        ("identity", row(2, 3), row(-2, -2)),
    ],
)
def test_compare_output_goes_through_the_output_function(output, prediction, expected):
    """Target (0, 1) minus softmax(0, log 3) = (¼, ¾), sigmoid(log 3, 0) = (¾, ½), or the values."""
    out = np.empty((1, 2))
    kernels.compare_output(row(0, 1), prediction, output, out)
    assert_allclose(out, expected)


def test_soft_clamp_mixes_target_and_output():
    """¾ (0, 1) + ¼ (¼, ¾) = (1/16, 15/16) for m = ¼; swapped shares would give (3/16, 13/16)."""
    out = np.empty((1, 2))
    kernels.soft_clamp(row(0, 1), row(0, LOG3), "softmax", 0.25, out)
    assert_allclose(out, row(1 / 16, 15 / 16))


@pytest.mark.parametrize(("precision", "expected"), [(1, row(7, 2, 2)), (0.5, row(3.5, 1, 1))])
def test_feedback_is_the_transposed_product_times_the_precision_above(precision, expected):
    """(1, 2) through the transpose of [[1, 0, 2], [3, 1, 0]] is (7, 2, 2), times γ."""
    out = np.empty((1, 3))
    kernels.feedback(row(1, 2), np.array([[1.0, 0, 2], [3, 1, 0]]), precision, out)
    assert_allclose(out, expected)


@pytest.mark.parametrize(
    ("activation", "precision", "decay", "expected"),
    [
        ("relu", 1, 0, row(2.25, -0.9)),
        ("relu", 2, 0, row(2.2, -0.8)),
        ("relu", 2, 0.5, row(2.1, -0.8)),
        ("leaky_relu", 2, 0.5, row(2.1, -1 + 0.1 * (0.01 * (5 + 0.5 * 0.01) + 2))),
        ("identity", 1, 0.5, row(2.15, -1 + 0.1 * (5.5 + 1))),
    ],
)
def test_relax_is_equation_two(activation, precision, decay, expected):
    """H = (2, −1), feedback (3, 5), e = (½, −1), k = 0.1; relu: f = (2, 0), f' = (1, 0).

    Without decay: 0.1 (3 − γ/2, γ). With decay ½: 0.1 (3 − 1 − γ/2, γ). Leaky: f = −0.01, f' = 0.01.
    """
    activity = row(2, -1)
    kernels.relax(activity, row(0.5, -1), row(3, 5), activation, 0.1, precision, decay)
    assert_allclose(activity, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_slopes_match_torch(activation):
    """A wrong slope trains, only worse; automatic differentiation sees it."""
    points = np.concatenate([np.linspace(-6, 6, 60), [-30.0, 30.0, 1e-9, -1e-9]])
    x = torch.tensor(points, requires_grad=True)
    y = TORCH_ACTIVATIONS[activation](x)
    y.sum().backward()
    assert_allclose(kernels.activate(activation, points), y.detach().numpy(), rtol=1e-13, atol=1e-15)
    assert_allclose(kernels.derivative(activation, points), x.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0), ("leaky_relu", 0.01)])
def test_the_kink_has_the_documented_slope(activation, slope):
    """Silent relu units sit exactly at 0: they must not pass errors on."""
    assert kernels.derivative(activation, np.zeros(1))[0] == slope


def test_outputs_survive_large_predictions():
    """A diverging prediction must not turn into NaN by overflow in exp."""
    assert_allclose(kernels.output("softmax", row(1000, 0)), row(1, 0))
    assert_allclose(kernels.output("sigmoid", row(1000, -1000)), row(1, 0))


# ----------------------------------------------------------------------------------------- learning


def test_hebbian_is_the_batch_mean_of_outer_products():
    """E = (1, 2), (3, 0) and f = (1, 0), (2, 1): G = [[7, 3], [2, 0]]/2, g = (4, 2)/2."""
    weight, bias = kernels.hebbian(np.array([[1.0, 2], [3, 0]]), np.array([[1.0, -1], [2, 1]]), "relu")
    assert_allclose(weight, [[3.5, 1.5], [1, 0]])
    assert_allclose(bias, [2, 1])


def test_sgd_step_adds_and_reports_the_mean_change(pair):
    """0.1 [[3.5, 1.5], [1, 0]] and 0.1 (2, 1), whose mean magnitude is 0.1 · 9/6."""
    error, activity = np.array([[1.0, 2], [3, 0]]), np.array([[1.0, -1], [2, 1]])
    assert kernels.sgd_step(*pair, error, activity, "relu", 0.1) == pytest.approx(0.15)
    assert_allclose(pair[0], [[0.35, 0.15], [0.1, 0]])
    assert_allclose(pair[1], [0.2, 0.1])


def test_nlms_step_by_hand(pair):
    """H = (1, 2), so ‖f‖² + 1 = 6; an error of (12, −6) moves W by (2, 4), (−1, −2) and b by (2, −1)."""
    assert kernels.nlms_step(*pair, row(12, -6), row(1, 2), "identity") == pytest.approx(12 / 6)
    assert_allclose(pair[0], [[2, 4], [-1, -2]])
    assert_allclose(pair[1], [2, -1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nlms_step_makes_the_prediction_equal_the_activity(activation, rng):
    """That is what the rule is for; forgetting the bias's input would overshoot."""
    activity, above, weight, bias = (rng.normal(size=s) for s in ((1, 4), (1, 3), (3, 4), (3,)))
    out = np.empty((1, 3))
    kernels.predict(activity, weight, bias, activation, out)
    kernels.nlms_step(weight, bias, above - out, activity, activation)
    kernels.predict(activity, weight, bias, activation, out)
    assert_allclose(out, above, rtol=1e-12)


def test_mq_step_twice_by_hand():
    """G = 2, g = 1, mean 1.5; v = r = ½: scale 0.1/1 + 0.01; v → ¼·½ + ¾·1.5 = 1.25: 0.1/1.75 + 0.01."""
    weight, bias, mean, updates = np.zeros((1, 1)), np.zeros(1), np.array([0.5]), np.zeros(1)
    arguments = (row(1), row(2), "identity", mean, updates, 0.1, 0.01, 0.5, 0.25)
    assert kernels.mq_step(weight, bias, *arguments) == pytest.approx(0.11 * 1.5)
    assert_allclose([weight[0, 0], bias[0], mean[0]], [0.22, 0.11, 1.25])
    second = 0.1 / 1.75 + 0.01
    assert kernels.mq_step(weight, bias, *arguments) == pytest.approx(second * 1.5)
    assert_allclose([weight[0, 0], bias[0], mean[0]], [0.22 + 2 * second, 0.11 + second, 0.25 * 1.25 + 1.125])
    assert updates == 2


def test_the_first_updates_of_mq_are_averaged():
    """|G| = |g| = 1 from v = 5: ρ_n = ½, ⅔, ¾, then ρ = 0.7: v = 3, 7/3, 2.0, since ¾ is above ρ."""
    weight, bias, mean, updates, found = np.zeros((1, 1)), np.zeros(1), np.array([5.0]), np.zeros(1), []
    for _ in range(3):
        kernels.mq_step(weight, bias, row(1), row(1), "identity", mean, updates, 0.1, 0.0, 1.0, 0.7)
        found.append(mean[0])
    assert_allclose(found, [3, 7 / 3, 0.7 * 7 / 3 + 0.3])


def test_first_adam_step_has_the_length_of_the_rate(pair):
    """Bias correction makes the first step rate · sign(G), whatever the gradient's size."""
    moments = (np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    error, activity = row(3, -0.02), row(5, -0.1)
    updates = np.zeros(1)
    mean = kernels.adam_step(*pair, error, activity, "identity", moments, updates, 0.01, 0.9, 0.999, 1e-12)
    assert_allclose(pair[0], [[0.01, -0.01], [-0.01, 0.01]])
    assert_allclose(pair[1], [0.01, -0.01])
    assert mean == pytest.approx(0.01)
    assert_allclose(moments[0], 0.1 * error.T @ activity)
    assert_allclose(moments[1], 0.001 * (error.T @ activity) ** 2)
    assert updates == 1


# ------------------------------------------------------------------------------------------- energy


def test_squared_error_is_half_the_square_a_sample():
    """½ (1 + 4 + 4 + 0)/2 = 2.25."""
    assert kernels.squared_error(np.array([[1.0, 2], [2, 0]])) == pytest.approx(2.25)


@pytest.mark.parametrize(("decay", "expected"), [(0, 6.75), (0.5, 7.5)])
def test_free_energy_of_a_hidden_layer(decay, expected):
    """3 · 2.25 + ½ · ½ · (1 + 0 + 4 + 1)/2 with relu of (1, −3), (2, 1)."""
    activity = np.array([[1.0, -3], [2, 1]])
    assert kernels.free_energy(activity, 2.25, "relu", 3, decay) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "target", "activity", "prediction", "expected"),
    [
        ("identity", row(1, 0), row(0.5, 0.5), row(0, 0), 2 * 0.3 + 0.25),
        ("softmax", row(0, 1), row(0, 1), row(0, LOG3), -2 * np.log(0.75)),
        ("softmax", row(0, 1), row(0.5, 0.5), row(0, LOG3), -np.log(0.75 * 0.25) + np.log(2)),
        ("sigmoid", row(1), row(1), row(LOG3), -2 * np.log(0.75)),
        ("sigmoid", row(1), row(0.5), row(LOG3), -np.log(0.75 * 0.25) + np.log(2)),
        ("sigmoid", row(0), row(0.5), row(LOG3), -np.log(0.75 * 0.25) + np.log(2)),
    ],
)
def test_free_energy_of_the_output_layer(output, target, activity, prediction, expected):
    """γ = 2; identity 2·0.3 + ½(¼ + ¼); else −2 Σ h log out, and log 2 for a clamp half way to y."""
    energy = kernels.output_free_energy(target, activity, prediction, 0.3, output, 2)
    assert energy == pytest.approx(expected)


@pytest.mark.parametrize("output", OUTPUTS)
def test_free_energy_of_the_output_layer_is_a_mean_over_the_batch(output, rng):
    """Energies of runs with different mini-batches must be comparable."""
    shapes = rng.uniform(0.1, 0.4, (3, 5, 2))
    whole = kernels.output_free_energy(*shapes, 1.0, output, 1.3)
    single = [kernels.output_free_energy(*shapes[:, i : i + 1], 1.0, output, 1.3) for i in range(5)]
    assert whole == pytest.approx(np.mean(single))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_saturated_output_costs_finitely_much(output):
    """float32 rounds a sure wrong output to 0; log 0 would stop the run as not finite."""
    target, activity = np.float32([[1, 0]]), np.float32([[0, 1]])
    energy = kernels.output_free_energy(target, activity, np.float32([[-90, 90]]), 1.0, output, 1.0)
    assert np.isfinite(energy)


# --------------------------------------------------------------------------------------------- dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_functions_keep_the_dtype(activation, dtype):
    """One promotion to float64 would halve the speed of a float32 run unnoticed."""
    values = np.array([[-1, 0, 2]], dtype)
    assert kernels.activate(activation, values).dtype == dtype
    assert kernels.derivative(activation, values).dtype == dtype
    assert [part.dtype for part in kernels.hebbian(values, values, activation)] == [dtype, dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_keep_the_dtype(output, dtype):
    """As above, for what the network says."""
    assert kernels.output(output, np.array([[-1, 2]], dtype)).dtype == dtype


def test_steps_in_float32_are_as_good_as_float32_can_be(rng):
    """Rounding the result is allowed, losing half the digits is not."""
    narrow = [rng.normal(size=s).astype(np.float32) for s in ((3, 4), (3,), (5, 3), (5, 4))]
    wide = [array.astype(float) for array in narrow]
    for weight, bias, error, activity in (narrow, wide):
        moments = tuple(np.zeros_like(a) for a in (weight, weight, bias, bias))
        kernels.sgd_step(weight, bias, error, activity, "gelu", 0.1)
        kernels.mq_step(
            weight, bias, error, activity, "gelu", np.array([0.3]), np.zeros(1), 0.1, 1e-3, 1e-6, 0.5
        )
        kernels.adam_step(weight, bias, error, activity, "gelu", moments, np.zeros(1), 0.1, 0.9, 0.999, 1e-8)
        kernels.relax(activity, activity * 2, activity * 3, "gelu", 0.1, 1.5, 0.5)
    for small, large in zip(narrow, wide):
        assert small.dtype == np.float32
        assert_allclose(small, large, rtol=1e-5, atol=1e-6)
