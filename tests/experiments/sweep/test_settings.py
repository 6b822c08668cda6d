"""From grids and draws to settings, and from settings to overrides."""

import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcsim.config import load_model
from pcsim.errors import ConfigurationError
from pcsim.experiments.sweep.file import DrawsConfig
from pcsim.experiments.sweep.settings import as_override, as_toml, of_draws, of_grid


def test_grid_by_hand():
    """All combinations, the last key fastest; a single value is a list of one; keys nest as in TOML."""
    grid = tomllib.loads(
        'learning.rate = [0.1, 1.0]\nschedule.order = "sequential"\nnetwork.layers = [[4, 2]]'
    )
    assert list(of_grid(grid, "grid")) == [
        {"learning.rate": 0.1, "schedule.order": "sequential", "network.layers": [4, 2]},
        {"learning.rate": 1.0, "schedule.order": "sequential", "network.layers": [4, 2]},
    ]
    tables = tomllib.loads('learning = [{rule = "sgd", rate = 1.0}, {rule = "mq", rate = 1e-3}]')
    assert [one["learning"]["rule"] for one in of_grid(tables, "grid")] == ["sgd", "mq"]
    with pytest.raises(
        ConfigurationError, match=r"grid\.learning\.rate = \[\]: expected a list with at least"
    ):
        list(of_grid({"learning": {"rate": []}}, "grid"))


def test_draws_stay_in_their_ranges():
    """Whole numbers with both ends, floats between them, logarithms evenly; the same draws each time."""
    keys = tomllib.loads(
        'a = {low = 1, high = 3}\nb.rate = {low = 1e-6, high = 1.0, scale = "log"}\n'
        "c = {low = 0.0, high = 1.0}\n"
        'd = ["x", "y"]\ne = {low = 1, high = 100, scale = "log"}'
    )
    draws = DrawsConfig(draws=2000, seed=1, keys=keys)
    found = of_draws(draws, "random")
    assert found == of_draws(draws, "random")
    assert found != of_draws(DrawsConfig(draws=2000, seed=2, keys=keys), "random")
    assert {one["a"] for one in found} == {1, 2, 3}
    assert {one["d"] for one in found} == {"x", "y"}
    logs = [math.log10(one["b.rate"]) for one in found]
    assert min(logs) >= -6
    assert max(logs) <= 0
    assert sum(logs) / len(logs) == pytest.approx(-3, abs=0.15)  # standard error 0.04
    assert sum(one["c"] for one in found) / len(found) == pytest.approx(0.5, abs=0.03)
    whole = [one["e"] for one in found]
    assert {type(one) for one in whole} == {int}
    assert (min(whole), max(whole)) == (1, 100)
    assert sum(one <= 10 for one in whole) / len(whole) == pytest.approx(0.52, abs=0.05)  # ln 11 / ln 101


@pytest.mark.parametrize(
    "value",
    [
        3,
        [],
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "scale": "log"},
        {"low": "a", "high": 1},
    ],
)
def test_what_cannot_be_drawn_from(value):
    """One line that names the key."""
    with pytest.raises(ConfigurationError, match=r"^random\.keys\.k = .*expected"):
        of_draws(DrawsConfig(draws=1, keys={"k": value}), "random")


VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.text(st.characters(codec="utf-8", exclude_characters="\x7f")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(codec="ascii", exclude_characters="\x7f"), min_size=1), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(VALUES)
def test_settings_survive_toml(value):
    """Whatever a sweep file can hold arrives in the model file as it was, also as an override."""
    assert tomllib.loads(f"value = {as_toml(value)}")["value"] == value


def test_overrides_are_taken(model):
    """An inline table replaces the whole section, so that rule and rate can go together."""
    text = as_override("learning", {"rule": "sgd", "rate": 0.5})
    assert load_model(model, [text]).learning.rate == 0.5
