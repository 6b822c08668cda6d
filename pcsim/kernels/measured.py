"""What self-tests of products have found, kept in a file: a section for each machine that shares it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pcsim.hidden_file import replacing
from pcsim.locks import lock

Key = tuple[str, int, int, int, str]  # product, batch, inputs, outputs, type of numbers

PATIENCE = 2.0  # seconds to wait for another process that writes, which takes a few milliseconds
EVERY = 0.005  # seconds between looks whether it has ended
MOST_OTHERS = 20  # machines, or versions of libraries, of which lines are kept beside this one's
KINDS: dict[Any, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int)}


@dataclass(frozen=True)
class Measured:
    """One line of the self-test.

    Attributes:
        product: predict, feedback or hebbian.
        batch: samples.
        inputs: presynaptic neurons, n.
        outputs: postsynaptic neurons, m.
        dtype: of the numbers.
        provider: its name.
        gflops: speed on one thread, two operations a multiplication.
    """

    product: str
    batch: int
    inputs: int
    outputs: int
    dtype: str
    provider: str
    gflops: float

    @property
    def key(self) -> Key:
        """What was measured."""
        return self.product, self.batch, self.inputs, self.outputs, self.dtype


def load(path: Path, machine: dict[str, str], providers: Sequence[str]) -> list[Measured]:
    """Return the lines of a machine that name one of these providers; what is damaged is left out."""
    for section in _sections(path):
        if section["machine"] == machine:
            lines = section.get("measured")
            made = [_line(line, providers) for line in lines] if isinstance(lines, list) else []
            return [line for line in made if line is not None]
    return []


def keep(
    path: Path, machine: dict[str, str], providers: Sequence[str], found: list[Measured]
) -> list[Measured]:
    """Add lines to the file; return the machine's, where those that others have written come first.

    Of one product the lines that are there stay. A file that cannot be written is done without.
    """
    with _alone(path) as writing:
        kept = load(path, machine, providers)
        known = {line.key for line in kept}
        kept += [line for line in found if line.key not in known]
        if writing:
            others = [section for section in _sections(path) if section["machine"] != machine]
            section = {"machine": machine, "measured": [asdict(line) for line in kept]}
            text = json.dumps(section | {"others": others[:MOST_OTHERS]}, indent=1)
            with suppress(OSError), replacing(path) as file:
                file.write(text.encode())
    return kept


def _sections(path: Path) -> list[dict[str, Any]]:
    """Return what the file has of each machine; the machine that wrote last is at the top."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    others = kept.get("others") if isinstance(kept, dict) else None
    sections = [kept, *(others if isinstance(others, list) else [])]
    return [
        {name: section[name] for name in ("machine", "measured") if name in section}
        for section in sections
        if isinstance(section, dict) and "machine" in section
    ]


def _line(raw: object, providers: Sequence[str]) -> Measured | None:
    """Return a line, if it is one."""
    names = {field.name: KINDS[field.type] for field in fields(Measured)}
    if not isinstance(raw, dict) or raw.keys() != names.keys() or raw["provider"] not in providers:
        return None
    if any(type(raw[name]) not in kinds for name, kinds in names.items()):
        return None
    return Measured(**raw)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Keep other processes from writing a file; give whether it may be written here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        side = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # a read-only home costs a second a run, not the run
        yield False
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while not (mine := lock(side)) and time.monotonic() < deadline:
            time.sleep(EVERY)
        yield mine
    finally:
        os.close(side)
