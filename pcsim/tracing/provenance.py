"""What computed a trace's numbers, as its attribute `computed_by` says: what the last bits depend on.

It comes from a file that anybody may have written, and older traces have none.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

NAME = "computed_by"
OWN = "pcsim"  # products of our own, which have the same bits on any number of threads
NEUTRAL = ("h5py",)  # records, and computes nothing

Pairs: TypeAlias = dict[str, tuple[Any, Any]]


def in_short(facts: object) -> dict[str, str]:
    """Return the facts in words for a table, by name: of products only how many each provider computes."""
    if not isinstance(facts, dict):
        return {}
    return {str(name): _words(name, value) for name, value in facts.items()}


def _words(name: str, value: object) -> str:
    """Return a fact on one line."""
    if not isinstance(value, dict):
        return str(value)
    if name == "products":  # "pcsim 8" would read like a version
        return ", ".join(f"{number} by {one}" for one, number in sorted(Counter(value.values()).items()))
    return ", ".join(f"{one} {version}" for one, version in sorted(value.items()))


def differences(one: object, other: object) -> Pairs:
    """Return what may have changed the last bits from one trace, or start of a run, to another, by name.

    Of a product or a library that only one of them has, the other's value is None. Nothing differs from a
    trace without the facts.
    """
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {}
    found: Pairs = {}
    for name in {**one, **other}:
        found |= _pairs(name, one.get(name), other.get(name))
    neutral = (*NEUTRAL, "threads") if _alone(one) and _alone(other) else NEUTRAL
    return {name: pair for name, pair in found.items() if pair[0] != pair[1] and name not in neutral}


def _pairs(name: str, one: object, other: object) -> Pairs:
    """Return both values of a fact; of versions and products one by one, by their own names."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {part: (one.get(part), other.get(part)) for part in {**one, **other}}
    return {name: (_words(name, one), _words(name, other))}


def _alone(facts: dict[str, Any]) -> bool:
    """Whether all products are our own."""
    products = facts.get("products")
    return isinstance(products, dict) and all(name == OWN for name in products.values())
