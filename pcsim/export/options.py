"""What a user can ask of an export, and what an export answers: shared by all formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

# Told how much of the work is done, from 0 to 1.
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Prices:
    """What a machine charges, in plain numbers: an export knows no machines.

    Attributes:
        machine: its name.
        source: where the numbers come from.
        energy: pJ, by the terms of machine files; a term that is missing has no known price.
        time: ns, by the same.
        packet_bytes: of payload in one packet; None: a packet carries one number.
    """

    machine: str = "none"
    source: str = ""
    energy: Mapping[str, float] = field(default_factory=dict)
    time: Mapping[str, float] = field(default_factory=dict)
    packet_bytes: int | None = None


@dataclass(frozen=True)
class Options:
    """Options of exports; None where nothing is asked. A format refuses those that it does not have.

    Attributes:
        step: the recorded training step to export, instead of all or of the last.
        layer: the layer of a test bench.
        fixed_point: number formats of a test bench: `Q3.12` for all signals, `error=Q-6.17` for one.
        linearise: training step at whose recorded state functions are replaced by their tangents.
        mapping: file that says which neurons are on which core; without it, each layer is on its own.
        prices: of the machine that is described.
    """

    step: int | None = None
    layer: int | None = None
    fixed_point: str | tuple[str, ...] | None = None
    linearise: int | None = None
    mapping: Path | None = None
    prices: Prices | None = None

    def given(self) -> tuple[str, ...]:
        """Return the names of the options that are given."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is not None)


@dataclass(frozen=True)
class Outcome:
    """What a format has to say about an export.

    Attributes:
        notes: what the user must know, a sentence each: what the format cannot say, what was missing.
        manifest: what a reader of an exported folder must know; becomes part of its `manifest.json`.
        summary: how good what was made is, a line each.
    """

    notes: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    summary: tuple[str, ...] = ()


def counted(number: float, unit: str) -> str:
    """Return a number with its unit: 1 packet, 2 packets."""
    text = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{text} {unit}{'' if number == 1 else 's'}"
