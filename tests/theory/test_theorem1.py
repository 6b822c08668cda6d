"""Theorem 1: closed forms by hand, the exact core on drawn networks, and pcsim's local units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError, ShapeError
from pcsim.learning import NLMS
from pcsim.network.network import Network
from pcsim.schedule.program import Schedule
from pcsim.theory.optimum import Core, over_activities, over_weights, relative_distance
from pcsim.theory.problem import Problem
from pcsim.theory.samples import OUTPUTS, SMOOTH, random_data, random_network
from pcsim.theory.theorem1 import check_theorem1
from pcsim.theory.updates import update, with_proximal_step


def line(w0: float, b0: float, w1: float, b1: float, beta: float, x: float, y: float) -> Problem:
    """A 1-1-1 linear network with one sample."""
    parameters = [(np.array([[w]]), np.array([b])) for w, b in ((w0, b0), (w1, b1))]
    network = Network.dense(
        [1, 1, 1], activation="identity", output="identity", dtype="float64", parameters=parameters
    )
    return Problem(network, np.array([[x]]), np.array([[y]]), beta)


def test_small_step_by_hand():
    """W = 0 everywhere: only the last bias can help, Δb_1 = βy/(1 + β), while β y √(x² + 1) ≤ 1 + β."""
    problem = line(0, 0, 0, 0, beta=0.5, x=1.0, y=2.0)
    for search in (over_weights, over_activities):
        np.testing.assert_allclose(search(problem).change, [0, 0, 0, 0.5 * 2 / 1.5], atol=1e-9)


def test_large_step_by_hand():
    """Past that, the hidden unit wakes up: u = ĥ_1² solves 1 + β + βu = βy √(x² + 1), by either sign.

    With β = 1, x = 1, y = 4: u = 4√2 − 2, the loss is ½y²/(1 + β + βu) + u/(2β(x² + 1)).
    """
    u = 4 * np.sqrt(2) - 2
    loss = 0.5 * 16 / (2 + u) + u / 4
    # begin off the saddle at 0, by so little that the minimum hardly moves
    problem = line(0, 1e-9, 0, 0, beta=1.0, x=1.0, y=4.0)
    for search in (over_weights, over_activities):
        found = search(problem)
        assert found.loss == pytest.approx(loss, rel=1e-8)
        hidden = found.change[0] + found.change[1]  # ĥ_1 = ΔW_0 x + Δb_0
        assert hidden**2 == pytest.approx(u, rel=1e-8)


def test_one_connection_by_hand():
    """Without a hidden layer the proximal update is ridge regression: e [x, 1]ᵀ β/(1 + β(‖x‖² + 1))."""
    weight, bias = np.array([[0.3, -0.2]]), np.array([0.1])
    network = Network.dense([2, 1], output="identity", dtype="float64", parameters=[(weight, bias)])
    x, y, beta = np.array([[1.0, 2.0]]), np.array([[1.5]]), 0.7
    residual = 1.5 - (0.3 - 0.4 + 0.1)
    expected = beta / (1 + beta * 6) * residual * np.array([1.0, 2.0, 1.0])
    problem = Problem(network, x, y, beta)
    np.testing.assert_allclose(over_weights(problem).change, expected, atol=1e-12)
    np.testing.assert_allclose(over_activities(problem).change, expected, atol=1e-12)
    schedule = Schedule("sequential", 0, precisions="theorem 1")  # no iteration is needed
    learnt = update(with_proximal_step(network, beta), schedule, NLMS(), x, y)
    np.testing.assert_allclose(learnt, expected, atol=1e-12)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**20),
    sizes=st.lists(st.integers(2, 4), min_size=3, max_size=4),
    activation=st.sampled_from([*SMOOTH, "identity"]),
    output=st.sampled_from(OUTPUTS),
    beta=st.sampled_from([0.01, 0.1, 1.0, 10.0]),
)
def test_core_is_the_proximal_update(seed, sizes, activation, output, beta):
    """Equal to 1e-6: next to each other always, and from where the network stands for small β."""
    network = random_network(seed, sizes, activation=activation, output=output, gain=1.0)
    problem = Problem(network, *random_data(seed, network, 1), beta)
    best = over_weights(problem)
    assert best.gradient_norm <= 1e-10
    realised = problem.forward(problem.start + best.change)[1:]
    nearby = over_activities(problem, start=np.concatenate([row[0] for row in realised]) + 1e-6)
    assert relative_distance(nearby.change, best.change) < 1e-6
    assert nearby.loss == pytest.approx(best.loss, rel=1e-9)
    if beta <= 0.1:
        assert relative_distance(over_activities(problem).change, best.change) < 1e-6


def test_core_slope_is_its_gradient():
    """The decay's sign is the point where the paper is wrong, so it is checked by differences."""
    network = random_network(2, (3, 4, 3, 2), activation="gelu", output="softmax")
    core = Core(Problem(network, *random_data(2, network, 1), 0.7))
    flat = np.random.default_rng(0).normal(size=9)
    step = 1e-6
    rows = [(core.value(flat + step * d) - core.value(flat - step * d)) / (2 * step) for d in np.eye(9)]
    np.testing.assert_allclose(core.slope(flat), rows, atol=1e-8)


def test_update_realises_the_activities():
    """The premise of the core: after the update a forward sweep gives the very activities."""
    network = random_network(4, (3, 4, 3, 2))
    problem = Problem(network, *random_data(4, network, 1), 1.0)
    flat = np.random.default_rng(1).normal(size=9)
    forward = problem.forward(problem.start + Core(problem).update(flat))[1:]
    np.testing.assert_allclose(np.concatenate([row[0] for row in forward]), flat, atol=1e-12)


@pytest.mark.parametrize("direction", ["sequential", "simultaneous"])
@pytest.mark.parametrize("beta", [0.1, 10.0])
def test_local_units_reach_the_proximal_update(direction, beta):
    """Relaxing with refreshed precisions ends at it; with the printed ones it does not."""
    network = random_network(0, (3, 4, 5, 2), gain=0.8)
    x, y = random_data(0, network, 1)
    best = over_weights(Problem(network, x, y, beta)).change

    def distance(precisions):
        schedule = Schedule(direction, 250, 0.5, "none", precisions)
        change = update(with_proximal_step(network, beta), schedule, NLMS(), x, y)
        return relative_distance(change, best)

    assert distance("theorem 1") < 1e-6
    assert distance("theorem 1 as printed") > 0.1
    assert distance("theorem 1 with printed decay") > 0.01


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_other_outputs_agree_to_first_order_only(output):
    """The clamp is an explicit step there: a tenth of β, a tenth of the relative distance."""
    network = random_network(0, (3, 4, 4, 3), output=output, gain=0.8)
    x, y = random_data(0, network, 1)

    def distance(beta):
        schedule = Schedule("sequential", 300, 0.5, "none", "theorem 1")
        best = over_activities(Problem(network, x, y, beta)).change
        change = update(with_proximal_step(network, beta), schedule, NLMS(), x, y)
        return relative_distance(change, best)

    assert distance(0.001) == pytest.approx(distance(0.01) / 10, rel=0.2)


def test_check_counts_and_finds_the_minima():
    """The command's numbers: each β once a network, gradients as tight as promised."""
    seen = []
    rows = check_theorem1((0.1, 1.0), networks=4, seed=1, iterations=50, advance=lambda: seen.append(1))
    assert len(seen) == 4
    assert [row.proximal_step for row in rows] == [0.1, 1.0] * 4
    assert [row.distance_units is None for row in rows] == [row.output != "identity" for row in rows]
    assert max(max(row.gradient_weights, row.gradient_activities) for row in rows) <= 1e-10
    assert max(row.distance_nearby for row in rows) < 1e-6


def test_needs_one_sample_and_a_smooth_loss():
    """The theorem is for a mini-batch of one; at a kink there may be no minimum with a gradient of 0."""
    network = random_network(0, (2, 3, 2))
    with pytest.raises(ShapeError, match="mini-batch of one"):
        over_activities(Problem(network, *random_data(0, network, 2), 1.0))
    kinked = line(1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 2.0)
    with pytest.raises(ConfigurationError, match="take a smaller step"):
        over_weights(kinked, tolerance=-1.0)
