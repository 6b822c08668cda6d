"""Successive halving, worked out by hand."""

import math

import pytest

from pcsim.experiments.sweep.file import HalvingConfig
from pcsim.experiments.sweep.halving import Round, best_epoch, measure_of, rounds, survivors, value


def test_rounds_by_hand():
    """27 configurations, 1, 3, 9, 27 epochs; the last round has all epochs whatever the factors."""
    three = HalvingConfig(first=1, factor=3)
    assert rounds(three, 27, 27) == (Round(1, 27), Round(3, 9), Round(9, 3), Round(27, 1))
    assert rounds(three, 10, 20) == (Round(1, 10), Round(3, 4), Round(9, 2), Round(20, 1))
    assert rounds(HalvingConfig(first=2, factor=2), 3, 5) == (Round(2, 3), Round(4, 2), Round(5, 1))
    assert rounds(three, 1, 9) == (Round(9, 1),)
    assert rounds(None, 5, 7) == (Round(7, 5),)


def test_survivors():
    """The largest values; of equal ones the first; who failed never, also if nobody else is left."""
    assert survivors({"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0}, 3) == ["b", "c", "d"]
    assert survivors({"a": -math.inf, "b": 1.0}, 2) == ["b"]
    assert survivors({"a": -math.inf}, 1) == []


def rows(name, *values):
    """Return epochs with these results."""
    return [{"epoch": place, name: one} for place, one in enumerate(values, 1)]


def test_what_counts():
    """Mean of the seeds' best epochs up to the round's last; losses count the other way."""
    one, other = rows("validation_accuracy", 0.5, 0.8, 0.9), rows("validation_accuracy", 0.7, 0.6, 1.0)
    assert value([one, other], 2, "accuracy") == pytest.approx((0.8 + 0.7) / 2)
    assert best_epoch(one + rows("validation_accuracy", 0.9), "accuracy")["epoch"] == 3
    losses = rows("validation_loss", 3.0, 2.0, 4.0)
    assert value([losses], 3, "loss") == -2.0
    assert value([losses, []], 3, "loss") == -math.inf
    assert best_epoch(rows("validation_accuracy", math.nan), "accuracy") is None
    assert measure_of({"a": losses}) == "loss"
    assert measure_of({"a": losses, "b": one}) == "accuracy"
