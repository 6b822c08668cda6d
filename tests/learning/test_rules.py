"""Each learning rule over several updates, against the oracle, torch and hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import Oracle

from pcsim.errors import ConfigurationError, ShapeError
from pcsim.kernels import reference
from pcsim.learning import MQ, NLMS, SGD, Adam

RULES = {"sgd": SGD(0.05), "mq": MQ(0.05), "adam": Adam(0.05), "nlms": NLMS()}


@pytest.mark.parametrize("name", sorted(RULES))
def test_ten_updates_follow_the_oracle(name, rng):
    """State carried from update to update (moments, v, counters) goes wrong only after the first."""
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    oracle = Oracle([weight], [bias], output="identity", rule=name, alpha=0.05)
    learner = RULES[name](weight, bias)
    for _ in range(10):
        x, y = rng.normal(size=(1 if name == "nlms" else 5, 4)), rng.normal(size=3)
        error = y - (x @ weight.T + bias)
        before = weight.copy(), bias.copy()
        magnitude = learner.learn(reference, weight, bias, error, x, "identity")
        oracle.learn([x, np.broadcast_to(y, error.shape)])
        np.testing.assert_allclose(weight, oracle.weights[0], rtol=1e-11)
        np.testing.assert_allclose(bias, oracle.biases[0], rtol=1e-11)
        change = np.abs(weight - before[0]).sum() + np.abs(bias - before[1]).sum()
        assert magnitude == pytest.approx(change / 15)


def test_mq_forgets_its_start_value_as_a_plain_mean():
    """ρ_n = min(n/(n + 1), ρ) with ρ = 0.7: ½, ⅔, 0.7.

    |G| = |g| = m = 1, 3, 2 from v = ½: ½·½ + ½·1 = ¾; ⅔·¾ + ⅓·3 = 1.5; 0.7·1.5 + 0.3·2 = 1.65.
    """
    weight, bias = np.zeros((1, 1)), np.zeros(1)
    learner = MQ(0.5, decay=0.7)(weight, bias)
    seen = []
    for m in (1.0, 3.0, 2.0):
        learner.learn(reference, weight, bias, np.array([[m]]), np.ones((1, 1)), "identity")
        seen.append(learner.mean_gradient[0])
    np.testing.assert_allclose(seen, [0.75, 1.5, 1.65])


def test_mq_steps_with_the_mean_of_before():
    """(7) divides by v_l of before the update: first step α/(α + r) + α_min, here 0.5/(0.5 + 0.5) + 0.25."""
    weight, bias = np.zeros((1, 1)), np.zeros(1)
    learner = MQ(0.5, minimum_rate=0.25, r=0.5)(weight, bias)
    learner.learn(reference, weight, bias, np.array([[8.0]]), np.ones((1, 1)), "identity")
    np.testing.assert_allclose([weight[0, 0], bias[0]], [6, 6])


@pytest.mark.parametrize("r", [0, -1e-6, float("inf"), float("nan")])
def test_mq_refuses_an_r_that_keeps_nothing_finite(r):
    """Model files refuse it, and here r = 0 divided by zero once a gradient was zero."""
    with pytest.raises(ConfigurationError, match=r"learning\.r = .*: expected a value above 0"):
        MQ(0.5, r=r)


def test_adam_is_the_adam_of_torch(rng):
    """Twenty steps on the same gradients, to 1e-12."""
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    twins = [torch.nn.Parameter(torch.tensor(array.copy())) for array in (weight, bias)]
    optimizer = torch.optim.Adam(twins, lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    learner = Adam(0.01, 0.8, 0.95, 1e-6)(weight, bias)
    for _ in range(20):
        error, activity = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
        learner.learn(reference, weight, bias, error, activity, "identity")
        twins[0].grad = torch.tensor(-error.T @ activity / 5)
        twins[1].grad = torch.tensor(-error.mean(0))
        optimizer.step()
    np.testing.assert_allclose(weight, twins[0].detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bias, twins[1].detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [2, 64])
def test_nlms_refuses_a_larger_mini_batch(batch):
    """The exact step exists for one sample only; averaged ones would silently miss it."""
    learner = NLMS()(np.zeros((1, 1)), np.zeros(1))
    one = np.ones((batch, 1))
    with pytest.raises(ShapeError, match=f"mini-batch of {batch}"):
        learner.learn(reference, np.zeros((1, 1)), np.zeros(1), one, one, "identity")


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_connection_gets_a_state_of_its_own(name):
    """Shared moments would couple layers: the rule would no longer be local."""
    one, other = (RULES[name](np.zeros((1, 1)), np.zeros(1)) for _ in range(2))
    before = {key: np.copy(value) for key, value in other.state().items()}
    one.learn(reference, np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)), np.ones((1, 1)), "identity")
    assert all(np.array_equal(before[key], value) for key, value in other.state().items())
    assert name in ("sgd", "nlms") or one.state()["updates"][0] == 1
