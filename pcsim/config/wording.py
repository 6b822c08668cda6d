"""What is wrong in a model file, in one line: the key, what was given, what was expected."""

from __future__ import annotations

from typing import NamedTuple

Location = tuple[int | str, ...]


class Problem(NamedTuple):
    """One thing that is wrong: the dotted key it is about, and the line that says so."""

    key: str
    text: str


def contradiction(key: str, given: object, expected: str) -> Problem:
    """Return the problem that a key's value does not go with another's."""
    return Problem(key, f"{key} = {shown(given)}: expected {expected}")


def touches(key: str, other: str) -> bool:
    """Whether one dotted key is the other or lies in it, as `probe.a` does with `probe.a.layers[0]`."""
    outer, inner = sorted((key, other), key=len)
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))


def dotted_key(location: Location) -> str:
    """Write a location as in the file: `network.layers[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{one_key(part)}" for part in location)[1:]


def one_key(part: str) -> str:
    """Write one part of a dotted key; what cannot be printed as Python would."""
    return part if part.isprintable() else repr(part)


def shown(value: object) -> str:
    """Write a value on one line of bounded length."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
