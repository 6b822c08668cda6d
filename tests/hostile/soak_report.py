"""What a soak has come to, from the lines in its file: counts, memory, and what was lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from rich.console import Console

from pcsim.terminal import NOTHING, new_table

FILE = "soak.jsonl"
WARM_UP = 600.0  # s, or a tenth of what there is if that is less
FLAT = 0.05  # how far the later half's median may be from the first steady value
ENOUGH = 100  # samples after the warm-up, below which nothing is said of memory
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """How the long-lived process has fared.

    Attributes:
        samples: after the warm-up.
        steady: first steady value in MiB: median of as long a time as the warm-up took, right behind it.
        later: median of the later half in MiB.
        slope: of a straight line through all after the warm-up, in MiB an hour.
        most: in MiB.
        files: open files and sockets, median of the same two times.
        threads: likewise.
    """

    samples: int
    steady: float
    later: float
    slope: float
    most: float
    files: tuple[float, float]
    threads: tuple[float, float]

    @property
    def change(self) -> float:
        """Later half against the first steady value, as a share of that."""
        return self.later / self.steady - 1

    @property
    def flat(self) -> bool:
        """Whether the change is small; a short soak says nothing."""
        return self.samples < ENOUGH or abs(self.change) <= FLAT


@dataclass(frozen=True)
class Report:
    """What a soak has come to.

    Attributes:
        state: complete, interrupted or running.
        seed: of everything random.
        version: of pcsim, and where it lies.
        seconds: so far.
        rounds: by kind.
        kills: by kind, victim and signal.
        starts: processes of `pcsim run` and `pcsim sweep`, undisturbed ones not counted.
        swept: runs of studies.
        read: traces that were read whole after a kill.
        looks: at the index of a study that was written meanwhile.
        turns: of the long-lived process.
        runs: calls of `pcsim.run` in it.
        memory: None before there is enough to say anything.
        problems: what was lost, different, left over or wrong.
    """

    state: str
    seed: int
    version: str
    seconds: float
    rounds: Mapping[str, int]
    kills: Mapping[str, int]
    starts: int
    swept: int
    read: int
    looks: int
    turns: int
    runs: int
    memory: Memory | None
    problems: Sequence[str]

    @property
    def good(self) -> bool:
        """Whether nothing was lost and memory is flat."""
        return not self.problems and (self.memory is None or self.memory.flat)

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        memory = self.memory and asdict(self.memory) | {
            "change": self.memory.change,
            "flat": self.memory.flat,
        }
        return asdict(self) | {"memory": memory, "good": self.good}


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return what a soak has written; a last line that was cut by a kill does not count."""
    lines = []
    for line in (folder / FILE).read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def report(lines: Sequence[Mapping[str, Any]]) -> Report:
    """Count."""
    begin, end = lines[0], next((line for line in lines if line["kind"] == "end"), None)
    rounds = [line for line in lines if line["kind"] in ("run", "sweep")]
    lived = [line for line in lines if line["kind"] == "lived"]
    kills = Counter(
        f"{kill['victim']} of a {one['kind']}, {kill['signal']}"
        if kill["victim"] == "worker"
        else f"{one['kind']}, {kill['signal']}"
        for one in rounds
        for kill in one["kills"]
    )
    return Report(
        state=end["state"] if end else "running",
        seed=begin["seed"],
        version=begin["version"],
        seconds=max(line["at"] for line in lines),
        rounds=dict(Counter(one["kind"] for one in rounds)),
        kills=dict(sorted(kills.items())),
        starts=sum(one["starts"] for one in rounds),
        swept=sum(one.get("runs", 0) for one in rounds),
        read=sum(one["checked"] for one in rounds),
        looks=sum(one.get("looks", 0) for one in rounds),
        turns=max((line["turns"] for line in lived), default=0),
        runs=max((line["runs"] for line in lived), default=0),
        memory=memory([line for line in lines if line["kind"] == "memory"]),
        problems=[f"at {line['at']:.0f} s: {text}" for line in lines for text in line.get("problems", ())],
    )


def memory(samples: Sequence[Mapping[str, Any]]) -> Memory | None:
    """Say how memory, files and threads have changed since the warm-up."""
    if not samples:
        return None
    warm = min(WARM_UP, samples[-1]["at"] / 10)
    after = [one for one in samples if one["at"] > warm]
    first = [one for one in after if one["at"] <= 2 * warm]
    half = [one for one in after if one["at"] > (warm + samples[-1]["at"]) / 2]
    if len(first) < 2 or len(half) < 2:
        return None

    def between(name: str) -> tuple[float, float]:
        return median(one[name] for one in first), median(one[name] for one in half)

    steady, later = between("own")
    slope, _ = linear_regression([one["at"] for one in after], [one["own"] for one in after])
    return Memory(
        samples=len(after),
        steady=steady / MIB,
        later=later / MIB,
        slope=3600 * slope / MIB,
        most=max(one["own"] for one in after) / MIB,
        files=between("files"),
        threads=between("threads"),
    )


def show(one: Report) -> None:
    """Print the table, and below it what was lost."""
    title = f"Soak of {one.seconds / 60:.0f} minutes, seed {one.seed}, {one.state}"
    table = new_table(title, "what")
    table.add_column("figure", justify="right", no_wrap=True)
    for name, value in rows(one):
        table.add_row(name, value)
    console = Console(markup=False)
    console.print(table)
    for text in one.problems[:20]:
        console.print(text, highlight=False)
    if len(one.problems) > 20:
        console.print(f"… and {len(one.problems) - 20} more")


def rows(one: Report) -> list[tuple[str, str]]:
    """Return the lines of the table."""
    return [
        ("rounds of killed and resumed runs", f"{one.rounds.get('run', 0):,}"),
        ("rounds of killed and continued studies", f"{one.rounds.get('sweep', 0):,}"),
        ("runs of these studies, each done once", f"{one.swept:,}"),
        *((f"killed: {name}", f"{count:,}") for name, count in one.kills.items()),
        ("processes started for that", f"{one.starts:,}"),
        ("traces read whole after a kill", f"{one.read:,}"),
        ("looks at an index that was being written", f"{one.looks:,}"),
        ("calls of pcsim.run in one process", f"{one.runs:,}"),
        *_memory_rows(one.memory),
        ("lost, different, left over or wrong", f"{len(one.problems):,}"),
    ]


def _memory_rows(one: Memory | None) -> list[tuple[str, str]]:
    if one is None:
        return [("its memory", NOTHING)]
    return [
        ("its memory after the warm-up, MiB", f"{one.steady:.1f}"),
        ("in the later half, MiB", f"{one.later:.1f}"),
        ("change", f"{one.change:+.1%}"),
        ("slope, MiB an hour", f"{one.slope:+.1f}"),
        ("its open files, then and later", " and ".join(f"{each:g}" for each in one.files)),
        ("its threads, then and later", " and ".join(f"{each:g}" for each in one.threads)),
    ]
