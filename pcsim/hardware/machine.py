"""A machine: its prices and its chip, read from a TOML file; those that come with pcsim are in `presets/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isclose
from os import PathLike
from pathlib import Path
from typing import Any

from pcsim.errors import ConfigurationError, nearest
from pcsim.hardware.chip import Chip
from pcsim.hardware.prices import WHOLE, Evidence, Price, PriceList, Term

PRESETS = Path(__file__).parent / "presets"
UNITS = {"energy": ("pJ", "1"), "time": ("ns", "1")}
_NUMBERS = {"near_bytes": int, "packet_bytes": int, "hop_mm": float}
_TEXTS = ("title", "source", "notes")
PARTS = tuple(term for term in Term if term not in WHOLE)  # what a price can include
_HOPS = {"hop_ns_horizontal": Term.HOP_HORIZONTAL, "hop_ns_vertical": Term.HOP_VERTICAL}  # keys of [chip]
_PRICE = ("value", "unit", "source", "evidence", "includes")


@dataclass(frozen=True)
class Machine:
    """What a schedule would run on.

    Attributes:
        name: of the preset, or the stem of the file.
        title: one line for tables.
        source: where its prices come from, in a few words: printed beside every total.
        notes: what the prices are about and what is left out.
        prices: what is charged; with what the chip says of its links as prices in time.
        chip: the mesh of cores, if there is one.
        near_bytes: weights beyond so many bytes are far; None: as many as the chip's cores hold, and
            without a chip any number.
        packet_bytes: of payload in one packet; None: a packet carries one value.
        hop_mm: length of the wire from one router to the next; None: not known.
    """

    name: str
    title: str
    source: str
    notes: str
    prices: PriceList
    chip: Chip | None = None
    near_bytes: int | None = None
    packet_bytes: int | None = None
    hop_mm: float | None = None

    @property
    def passed_bytes(self) -> int | None:
        """Bytes that a link passes in the time of a `message`; None: a value, whatever its bytes."""
        if self.packet_bytes is None and self.chip is not None and self.chip.link_bytes_per_ns is not None:
            return 1
        return self.packet_bytes

    @property
    def near_capacity(self) -> int | None:
        """Bytes of weights that fit near the arithmetic; None if there is no limit.

        All cores count, in use or not: what does not fit few of them is spread over more.
        """
        if self.near_bytes is not None:
            return self.near_bytes
        if self.chip is None or self.chip.synapse_bytes_per_core is None:
            return None
        return self.chip.cores * self.chip.synapse_bytes_per_core


def machine_names() -> tuple[str, ...]:
    """Return the names of the presets, sorted."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def option_of(name: str) -> str:
    """Return what to pass for a machine of that name: the preset's name, else that of a file."""
    return name if name in machine_names() else f"{name}.toml"


def load_machine(name: str | PathLike[str]) -> Machine:
    """Read a preset by its name, or a file that ends in .toml.

    Raises:
        ConfigurationError: one line: what was given, what was expected, what to do.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in machine_names():
            hint = nearest(str(name), machine_names())
            raise ConfigurationError(f"hardware '{name}': expected a preset or a .toml file; {hint}")
        path = PRESETS / f"{name}.toml"
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: expected a machine file (TOML)") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: broken TOML: {' '.join(str(error).split())}") from None
    try:
        return _machine(path.stem, document)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _machine(name: str, document: Mapping[str, Any]) -> Machine:
    """Check a machine file that is a dictionary already."""
    known = (*_TEXTS, *_NUMBERS, *UNITS, "chip")
    for key in document:
        if key not in known:
            raise ConfigurationError(f"{key}: unknown key: {nearest(key, known)}")
    for key in _TEXTS[:2]:
        if key not in document:
            raise ConfigurationError(f"{key} is missing: expected text that is not empty")
    texts = {key: document.get(key, "") for key in _TEXTS}
    for key, text in texts.items():
        if not isinstance(text, str) or (not text and key != "notes"):
            raise ConfigurationError(f"{key} = {text!r}: expected text that is not empty")
    numbers: dict[str, Any] = {
        key: _number(key, document[key], kind) for key, kind in _NUMBERS.items() if key in document
    }
    prices = PriceList(**{kind: _prices(kind, _table(kind, document.get(kind, {}))) for kind in UNITS})
    if Term.LINK_BIT_MM in prices.energy and "hop_mm" not in numbers:
        raise ConfigurationError(
            "energy.link_bit_mm: expected hop_mm too, the millimetres from router to router"
        )
    chip = None
    if "chip" in document:
        chip = _chip(_table("chip", document["chip"]), prices)
        prices = _with_links(prices, chip, numbers.get("packet_bytes"))
    return Machine(name, **texts, prices=prices, chip=chip, **numbers)


def _chip(table: Mapping[str, Any], prices: PriceList) -> Chip:
    """Make the chip; a hop that has a price in time need not be given twice."""
    known = [field.name for field in fields(Chip)]
    for key in table:
        if key not in known:
            raise ConfigurationError(f"chip.{key}: unknown key: {nearest(key, known)}")
    for key in ("rows", "columns"):
        if key not in table:
            raise ConfigurationError(f"chip.{key} is missing: expected a whole number from 1")
    priced = {key: prices.time[term].value for key, term in _HOPS.items() if term in prices.time}
    chip = Chip(**{**priced, **table})
    for key, value in priced.items():
        if getattr(chip, key) != value:
            raise ConfigurationError(
                f"chip.{key} = {table[key]}: expected {value:g}, as time.{_HOPS[key]} says, or one of the two"
            )
    return chip


def _with_links(prices: PriceList, chip: Chip, packet_bytes: int | None) -> PriceList:
    """Add to the prices in time what the chip says of its links, so that every clock takes the same."""
    given = {term: getattr(chip, key) for key, term in _HOPS.items()}
    width, message = chip.link_bytes_per_ns, prices.time.get(Term.MESSAGE)
    if width is not None:
        given[Term.MESSAGE] = (packet_bytes or 1) / width
        if message is not None and not (packet_bytes and isclose(message.value, given[Term.MESSAGE])):
            says = f"{packet_bytes or 'packet_bytes'} / chip.link_bytes_per_ns"
            raise ConfigurationError(
                f"time.message.value = {message.value:g}: expected {says}, as chip.link_bytes_per_ns = "
                f"{width:g} says, or one of the two"
            )
    known = {
        term: Price(value, prices.time_unit, "the chip", Evidence.ASSUMED)
        for term, value in given.items()
        if value is not None and term not in prices.time
    }
    return replace(prices, time={**prices.time, **known})


def _prices(kind: str, table: Mapping[str, Any]) -> dict[Term, Price]:
    """Read [energy.*] or [time.*]."""
    read = {}
    for term, entry in table.items():
        where = f"{kind}.{term}"
        if term not in list(Term):
            raise ConfigurationError(f"{where}: unknown term: {nearest(term, [str(one) for one in Term])}")
        read[Term(term)] = _price(where, UNITS[kind], _table(where, entry))
    if len({price.unit for price in read.values()}) > 1:
        raise ConfigurationError(f"{kind}: expected one unit for all of them, {' or '.join(UNITS[kind])}")
    return read


def _price(where: str, units: tuple[str, ...], entry: Mapping[str, Any]) -> Price:
    for key in entry:
        if key not in _PRICE:
            raise ConfigurationError(f"{where}.{key}: unknown key: {nearest(key, _PRICE)}")
    for key in _PRICE[:4]:
        if key not in entry:
            raise ConfigurationError(f"{where}.{key} is missing: every price has {', '.join(_PRICE[:4])}")
    if entry["unit"] not in units:
        raise ConfigurationError(f"{where}.unit = {entry['unit']!r}: expected {' or '.join(units)}")
    if not isinstance(entry["source"], str) or not entry["source"]:
        raise ConfigurationError(
            f"{where}.source = {entry['source']!r}: expected text: where the number is from"
        )
    kinds = [str(one) for one in Evidence]
    if entry["evidence"] not in kinds:
        raise ConfigurationError(
            f"{where}.evidence = {entry['evidence']!r}: expected one of {', '.join(kinds)}"
        )
    includes = entry.get("includes", [])
    unknown = [one for one in includes if one not in PARTS] if isinstance(includes, list) else [includes]
    if unknown:
        terms = "a list of terms: " + ", ".join(PARTS)
        raise ConfigurationError(f"{where}.includes = {unknown[0]!r}: expected {terms}")
    try:
        return Price(
            entry["value"],
            entry["unit"],
            entry["source"],
            Evidence(entry["evidence"]),
            frozenset(map(Term, includes)),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _number(key: str, number: object, kind: type) -> int | float:
    good = isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < float("inf")
    if not good or (kind is int and not isinstance(number, int)):
        expected = "a whole number from 1" if kind is int else "a number above 0"
        raise ConfigurationError(f"{key} = {number!r}: expected {expected}")
    assert isinstance(number, int | float)
    return number


def _table(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} = {value!r}: expected a table of keys")
    return value
