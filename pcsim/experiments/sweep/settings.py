"""From grids and random draws to settings: for each run, what it changes in the model file."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pcsim.errors import ConfigurationError
from pcsim.experiments.sweep.file import DrawsConfig

Settings = dict[str, Any]  # value by dotted key; an inline table is a dictionary
RANGE = {"low", "high", "scale"}
LARGEST = 1e15  # of the ends of a range: whole numbers that are exact as floats too


def of_grid(grid: Mapping[str, Any], where: str) -> Iterator[Settings]:
    """Return all combinations of the values of a grid, the last key changing fastest.

    Args:
        grid: lists of values by key, nested as TOML nests `learning.rate = [0.1, 1.0]`; a single value
            stands for a list of one.
        where: what an error names.

    Raises:
        ConfigurationError: a key with no values.
    """
    values = {}
    for key, value in _flat(grid):
        values[key] = value if isinstance(value, list) else [value]
        if not values[key]:
            raise ConfigurationError(f"{where}.{key} = []: expected a list with at least one value")
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def of_draws(draws: DrawsConfig, where: str) -> list[Settings]:
    """Return random settings, the same in every call.

    Args:
        draws: how many, of what.
        where: what an error names.

    Raises:
        ConfigurationError: a key that is neither a list nor a range of numbers.
    """
    rng = np.random.default_rng(draws.seed)
    keys = dict(_flat(draws.keys))
    for key, value in keys.items():
        _check(f"{where}.keys.{key}", value)
    return [{key: _draw(value, rng) for key, value in keys.items()} for _ in range(draws.draws)]


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Return the leaves of nested tables by dotted key; a range is a leaf."""
    for key, value in table.items():
        dotted = f"{before}{key}"
        if isinstance(value, dict) and value and not value.keys() <= RANGE:
            yield from _flat(value, f"{dotted}.")
        else:
            yield dotted, value


def _check(where: str, value: object) -> None:
    """Refuse what cannot be drawn from."""
    if isinstance(value, list) and value:
        return
    expected = "expected a list of values or {low = …, high = …}"
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} = {value!r}: {expected}")
    low, high, scale = value.get("low"), value.get("high"), value.get("scale", "linear")
    for end in (low, high):
        # Compared and not converted: TOML's whole numbers have any length; and false for NaN.
        if isinstance(end, bool) or not isinstance(end, int | float) or not -LARGEST <= end <= LARGEST:
            given = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:97]}..."
            raise ConfigurationError(f"{where} = {given}: {expected}, two numbers within ±{LARGEST:g}")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if not low < high or scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise ConfigurationError(
            f'{where} = {value!r}: expected low < high, scale "linear" or "log", and low > 0 for "log"'
        )


def _draw(value: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 - whatever TOML has
    """Draw one value: of a list evenly; whole numbers if both ends are, which are then included."""
    if isinstance(value, list):
        return value[int(rng.integers(len(value)))]
    low, high = value["low"], value["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    if value.get("scale") == "log":
        low, high = math.log(low), math.log(high + 1 if whole else high)
        drawn = math.exp(rng.uniform(low, high))
        return min(int(drawn), value["high"]) if whole else float(f"{drawn:.3g}")
    return int(rng.integers(low, high + 1)) if whole else float(f"{rng.uniform(low, high):.3g}")


def as_override(key: str, value: object) -> str:
    """Return a setting as `pcsim run --set` takes it."""
    return f"{key}={as_toml(value)}"


def as_toml(value: object) -> str:
    """Return a value that TOML has as TOML text on one line."""
    if isinstance(value, dict):
        entries = (f"{_as_key(key)} = {as_toml(entry)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(entry) for entry in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if not isinstance(value, float) else repr(value)


def _as_key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
