"""The six things that a local unit can do, each with what is in its inbox."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pcsim.learning import SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network

PREDICTION, ERROR = MessageKind.PREDICTION, MessageKind.ERROR
LOG3 = np.log(3.0)


@pytest.fixture
def units():
    """A 2-2-2 tanh classifier with soft clamp m = ¼, γ = (1, 2, 3), decay ½ at layer 1, batch 1."""
    weight = np.array([[1.0, 2], [3, 4]])
    network = Network.dense(
        [2, 2, 2],
        activation="relu",
        proximal_step=3,
        precision=[1, 2, 3],
        activity_decay=[0, 0.5, 0],
        dtype="float64",
        parameters=[(weight, np.ones(2)), (weight, np.ones(2))],
    )
    return network.layers(1, SGD(0.5))


def test_signed_input_is_not_passed_through_f(units):
    """Inputs may be signed: relu on them would throw half of the data away: W(−1, 1) + 1 = (2, 2)."""
    units[0].target = np.array([[-1.0, 1]])
    units[0].clamp()
    assert_allclose(units[0].predict(), [[2, 2]])


def test_hidden_prediction_goes_through_f(units):
    """relu(−1, 1) = (0, 1), so W f + 1 = (3, 5)."""
    units[1].activity[:] = [-1, 1]
    assert_allclose(units[1].predict(), [[3, 5]])


def test_initialise_takes_the_prediction_over(units):
    """At the output it goes through the output function, as a plain forward pass would."""
    for unit in units[1:]:
        unit.inbox[PREDICTION] = np.array([[0, LOG3]])
        unit.initialise()
    assert_allclose(units[1].activity, [[0, LOG3]])
    assert_allclose(units[2].activity, [[0.25, 0.75]])


def test_soft_clamp_and_output_error(units):
    """¾ (0, 1) + ¼ (¼, ¾) = (1/16, 15/16), and the error is that minus (¼, ¾)."""
    units[2].target, units[2].inbox[PREDICTION] = np.array([[0.0, 1]]), np.array([[0, LOG3]])
    units[2].clamp()
    assert_allclose(units[2].activity, [[1 / 16, 15 / 16]])
    assert_allclose(units[2].compare(), [[-3 / 16, 3 / 16]])


def test_hard_clamp_needs_no_prediction():
    """The hard clamp is y itself, before anything has arrived."""
    unit = Network.dense([2, 2], proximal_step=float("inf"), dtype="float64").layers(1)[1]
    unit.target = np.array([[0.0, 1]])
    unit.clamp()
    assert_allclose(unit.activity, [[0, 1]])


def test_relax_uses_both_precisions_and_the_decay(units):
    """e_2 = (1, 1) comes back as 3·(4, 6); own error (1, 0), γ = 2; h = (1, −1), decay ½.

    0.1 (12 − ½·1 − 2·1, 0) = (0.95, 0).
    """
    unit = units[1]
    unit.activity[:], unit.error[:], unit.inbox[ERROR] = [1, -1], [1, 0], np.ones((1, 2))
    unit.relax(0.1)
    assert_allclose(unit.activity, [[1.95, -1]])


def test_learn_uses_the_error_from_above_and_reports_its_size(units):
    """½ (1, −1)ᵀ relu(2, −1) = ½ [[2, 0], [−2, 0]], bias ½ (1, −1): mean |Δ| = ½ · 6/6."""
    unit = units[1]
    before = unit.weight.copy(), unit.bias.copy()
    unit.activity[:], unit.inbox[ERROR] = [2, -1], np.array([[1.0, -1]])
    unit.learn()
    assert_allclose(unit.weight - before[0], [[1, 0], [-1, 0]])
    assert_allclose(unit.bias - before[1], [0.5, -0.5])
    assert unit.update_magnitude == pytest.approx(0.5)


def test_free_energy_of_hidden_and_output_layer(units):
    """Hidden: 2 · 0.3 + ½·½·(4 + 0) = 1.6. Output under a hard target: 3 · (−log ¾)."""
    units[1].activity[:] = [2, -1]
    assert units[1].free_energy(0.3) == pytest.approx(1.6)
    units[2].activity[:] = units[2].target = np.array([[0.0, 1]])
    units[2].inbox[PREDICTION] = np.array([[0, LOG3]])
    assert units[2].free_energy(9.0) == pytest.approx(-3 * np.log(0.75))
