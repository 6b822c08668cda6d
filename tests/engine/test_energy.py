"""Inference descends the free energy exactly, and learning tends to backprop: checked with torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ACTIVATIONS, HARD, OUTPUTS, SMOOTH, TORCH_ACTIVATIONS, Case, cases, run

from pcsim.schedule.program import Program

PRECISION, DECAY = (1.0, 0.7, 1.6, 2.3), (0.0, 0.4, 0.2, 0.0)
F = torch.nn.functional


def predictions(case: Case, activities, parameters):
    """p_1, …, p_L from given activities, before the output function."""
    f = TORCH_ACTIVATIONS[case.activation]
    rates = [activities[0], *(f(h) for h in activities[1:-1])]
    return [rate @ weight.T + bias for rate, (weight, bias) in zip(rates, parameters)]


def divergence(output, target, prediction):
    """½‖y − p‖² or the (binary) cross-entropy of y against out(p), summed over the batch."""
    if output == "identity":
        return 0.5 * ((target - prediction) ** 2).sum()
    if output == "softmax":
        return F.cross_entropy(prediction, target, reduction="sum")
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="sum")


def shares(case: Case, activities, parameters, target):
    """Each layer's share of equation (1), summed over the batch."""
    precision = case.precision or (1.0,) * (case.top + 1)
    decay = case.decay or (0.0,) * (case.top + 1)
    predicted = predictions(case, activities, parameters)
    f, top = TORCH_ACTIVATIONS[case.activation], activities[-1]
    hidden = [
        precision[l] * 0.5 * ((activities[l] - predicted[l - 1]) ** 2).sum()
        + decay[l] * 0.5 * (f(activities[l]) ** 2).sum()
        for l in range(1, case.top)
    ]
    if case.output == "identity":
        loss = 0.5 * ((target - top) ** 2).sum()
    else:
        loss = (torch.xlogy(target, target) - torch.xlogy(target, top)).sum()
    if case.output == "sigmoid":
        loss = loss + (torch.xlogy(1 - target, 1 - target) - torch.xlogy(1 - target, 1 - top)).sum()
    return [*hidden, precision[-1] * divergence(case.output, top, predicted[-1]) + loss]


def tensors(arrays) -> list[torch.Tensor]:
    """Copies that record gradients."""
    return [torch.tensor(array, requires_grad=True) for array in arrays]


def state(outcome, iteration: int, top: int) -> list[np.ndarray]:
    """ĥ_1 … ĥ_L after an iteration of the first mini-batch."""
    return [outcome.states.at(0, iteration, "activity", layer) for layer in range(1, top + 1)]


# ------------------------------------------------------------------------------------------- descent


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activity_updates_are_the_gradient_of_the_free_energy(activation, output):
    """The fourth simultaneous step is −k ∂F/∂ĥ at every hidden layer, precision and decay included."""
    case = Case(
        (3, 5, 4, 3),
        activation,
        output,
        "simultaneous",
        iterations=4,
        step_decay="none",
        proximal_step=HARD,
        precision=PRECISION,
        decay=DECAY,
        steps=1,
    )
    outcome, (x, y) = run(case), case.data()[0]
    before, after = state(outcome, 3, 3), state(outcome, 4, 3)
    hidden = tensors(before[:-1])
    parameters = [tensors(pair) for pair in case.network().parameters]
    activities = [torch.tensor(x), *hidden, torch.tensor(before[-1])]
    sum(shares(case, activities, parameters, torch.tensor(y))).backward()
    for layer in (0, 1):
        step = -case.step_size * hidden[layer].grad.numpy()
        assert np.abs(step).min() > 0 or activation == "relu"
        np.testing.assert_allclose(after[layer] - before[layer], step, rtol=1e-9, atol=1e-13)


@settings(max_examples=50)
@given(
    cases(
        order=st.sampled_from(["sequential", "simultaneous"]),
        activation=st.sampled_from(SMOOTH),
        proximal_step=HARD,
        step_size=1e-3,
        iterations=8,
        rule="sgd",
        steps=2,
    )
)
def test_free_energy_never_rises(case):
    """Under a hard clamp every small step goes down; a sign error anywhere goes up."""
    for energies in run(case).energies:
        total = energies[1].sum(axis=1)
        assert (np.diff(total) <= 1e-12 * np.abs(total[0]) + 1e-15).all()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_free_energy_never_rises_with_kinks(activation, order, seed):
    """The published networks use relu: away from its kink, where random activities lie, F falls as well."""
    case = Case(
        (6, 8, 7, 8, 4), activation, "softmax", order, 30, 1e-3, "none", HARD, steps=1, batch=8, seed=seed
    )
    total = run(case).energies[0][1].sum(axis=1)
    assert (np.diff(total) < 0).all()


def test_free_energy_falls_for_good():
    """And it does fall: a step of size 0 would satisfy the test above."""
    case = Case(proximal_step=HARD, iterations=100, step_decay="none", steps=1, precision=PRECISION)
    total = run(case).energies[0][1].sum(axis=1)
    assert total[-1] < 0.97 * total[0]


@settings(max_examples=60)
@given(cases(steps=1, rule="sgd", order=st.sampled_from(["sequential", "simultaneous", "red-black"])))
def test_reported_free_energy_is_equation_one(case):
    """Layer by layer and iteration by iteration, the loss of a soft clamp included."""
    outcome, (x, y) = run(case), case.data()[0]
    parameters = [tensors(pair) for pair in case.network().parameters]
    for n in range(case.iterations + 1):
        activities = [torch.tensor(x), *(torch.tensor(h) for h in state(outcome, n, case.top))]
        expected = [s.item() / case.batch for s in shares(case, activities, parameters, torch.tensor(y))]
        np.testing.assert_allclose(outcome.energies[0][1][n], expected, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------ backprop's limit


def updates(case: Case) -> list[np.ndarray]:
    """How one mini-batch changes each (W, b), in a row a connection."""
    outcome, start = run(case), case.network().parameters
    pairs = zip(outcome.network.parameters, start)
    return [np.concatenate([(new - old).ravel() for new, old in zip(*pair)]) for pair in pairs]


def backprop(case: Case) -> list[np.ndarray]:
    """Minus the gradients of the loss of a plain forward pass, likewise."""
    (x, y), f = case.data()[0], TORCH_ACTIVATIONS[case.activation]
    parameters = [tensors(pair) for pair in case.network().parameters]
    rate = torch.tensor(x)
    for weight, bias in parameters[:-1]:
        rate = f(rate @ weight.T + bias)
    weight, bias = parameters[-1]
    divergence(case.output, torch.tensor(y), rate @ weight.T + bias).backward()
    return [-np.concatenate([p.grad.numpy().ravel() for p in pair]) for pair in parameters]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two updates."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


LIMIT = Case((5, 6, 7, 6, 3), step_size=1e-3, proximal_step=HARD, batch=4, steps=1)


@pytest.mark.parametrize(
    ("order", "iterations"),
    [("sequential", 1), ("sequential", 3), ("simultaneous", 3), ("simultaneous", 5), ("red-black", 3)],
)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_small_steps_learn_in_the_direction_of_backprop(activation, output, order, iterations):
    """As ε → 0 each matrix's update points along backprop's, once errors have reached it."""
    case = replace(LIMIT, activation=activation, output=output, order=order, iterations=iterations)
    for ours, theirs in zip(updates(case), backprop(case)):
        assert cosine(ours, theirs) > 0.999


def test_too_few_simultaneous_iterations_leave_lower_layers_exactly_unchanged():
    """T = L − 2: the first connection has seen no error; the others already point along backprop."""
    case = replace(LIMIT, order="simultaneous", iterations=2)
    ours, theirs = updates(case), backprop(case)
    assert not ours[0].any()
    assert all(cosine(a, b) > 0.999 for a, b in zip(ours[1:], theirs[1:]))


def test_lengths_fall_by_the_step_a_layer():
    """‖ΔW_l‖ is proportional to ε^(L − 1 − l): ten times smaller steps, ten times smaller a layer."""
    large, small = (updates(replace(LIMIT, step_size=step, iterations=1)) for step in (1e-2, 1e-3))
    ratios = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(large, small)]
    np.testing.assert_allclose(ratios, [1000, 100, 10, 1], rtol=0.05)


def test_the_output_connection_learns_backprop_itself_at_no_iterations():
    """T = 0 under a hard clamp: e_L is the gradient of the loss, to rounding."""
    case = replace(LIMIT, iterations=0)
    ours, theirs = updates(case)[-1], backprop(case)[-1]
    np.testing.assert_allclose(ours, 0.1 * theirs / case.batch, rtol=1e-10)
    assert Program.build(case.network(), case.schedule()).iterations == 0
