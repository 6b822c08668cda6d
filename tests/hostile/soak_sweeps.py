"""Rounds of the soak that kill a study's workers and the study itself, and count what was done."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from hostile.soak_files import differences, fingerprint, left_over, names_in, unreadable
from hostile.soak_processes import PCSIM, complaints, ended, orphans, send, session, start, wait_until
from hostile.soak_runs import ENDS, SIGNALS, fresh

from pcsim.errors import PcsimError
from pcsim.experiments.alone import FILE as LOCK
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.experiments.sweep.index import FILE as INDEX
from pcsim.experiments.sweep.index import RUNS, Index
from pcsim.experiments.workers import TRACE
from pcsim.tracing import open_trace

SWEEP = """
model = "{model}"
seeds = [0, 1, 2]
set = ["training.epochs=100", "data.validation_fraction=0.2"]
grid.learning.rate = [3e-4, 1e-3]
"""
COUNT = 6  # runs of the study
EVERY = 0.1  # s between looks at the index


@dataclass
class Round:
    """What happened in a round; fit for a line of JSON."""

    kind: str = "sweep"
    kills: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    runs: int = 0
    looks: int = 0
    checked: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Watcher(threading.Thread):
    """Reads the index all the while, as `pcsim study show` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.looks, self.problems, self.over = folder, 0, list[str](), threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(EVERY):
            if not (self.folder / INDEX).exists():
                continue
            try:
                with Index.open(self.folder) as index:
                    assert len(index.rows()) in (0, COUNT)
                    index.epochs()
                self.looks += 1
            except Exception as error:  # whatever it is, it belongs into the report
                self.problems.append(f"the index cannot be read: {type(error).__name__}: {error}")


class Sweeps:
    """Plays rounds; keeps what an undisturbed study has left behind.

    Args:
        folder: for everything; holds model.toml.
        chance: draws moments, signals and victims.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._file = folder / "study.toml"
        self._file.write_text(SWEEP.format(model=folder / "model.toml"))
        self._whole: dict[str, dict[str, str]] = {}
        self._names: frozenset[str] = frozenset()

    def play(self) -> Round:
        """Begin a study, kill and begin it again until it is done; compare it with the undisturbed one."""
        one, begun = Round(), time.monotonic()
        log = self._folder / "study.log"
        log.unlink(missing_ok=True)
        try:
            self._undisturbed()
        except PcsimError as error:
            one.problems.append(str(error))
            return one
        folder = fresh(self._folder / "study")
        kills = ["worker"] * self._chance.randint(0, 2) + ["sweep"] * self._chance.randint(0, 2)
        self._chance.shuffle(kills)
        done: dict[str, int] = {}
        watcher = Watcher(folder)
        watcher.start()
        code: int | None = -1
        while code != 0 and not one.problems:
            code = self._attempt(folder, log, one, kills, done)
        watcher.over.set()
        watcher.join()
        one.looks, one.runs = watcher.looks, COUNT
        one.problems += watcher.problems[:5]
        if not one.problems:
            one.problems += self._compare(folder, done)
        one.problems += complaints(log)
        one.seconds = time.monotonic() - begun
        return one

    def _command(self, folder: Path, *options: str) -> list[str]:
        return [*PCSIM, "sweep", str(self._file), "--study", str(folder), *options]

    def _undisturbed(self) -> None:
        """Run the study in one process that nobody disturbs, once.

        Raises:
            PcsimError: it fails.
        """
        if self._whole:
            return
        folder, log = fresh(self._folder / "whole-study"), self._folder / "whole-study.log"
        log.unlink(missing_ok=True)
        if (code := ended(start(self._command(folder), log))) != 0:
            raise PcsimError(f"undisturbed study: exit status {code}: {log.read_text()[-300:]}")
        self._whole = {path.name: fingerprint(path, TRACE) for path in (folder / RUNS).iterdir()}
        self._names = names_in(folder)
        shutil.rmtree(folder)

    def _attempt(
        self, folder: Path, log: Path, one: Round, kills: list[str], done: dict[str, int]
    ) -> int | None:
        """Begin the study or go on with it, with two workers; kill what is to be killed."""
        process = start(self._command(folder, "--workers", "2"), log)
        one.starts += 1
        try:
            while kills and wait_until(lambda: holders(process), process, 300):
                wait_until(lambda: False, process, self._chance.uniform(0, 8))
                if process.poll() is not None:
                    break
                if kills.pop() == "sweep":
                    return self._kill(process, folder, one, done)
                victim = next(iter(holders(process)), None)
                if victim is not None:
                    victim.kill()
                    one.kills.append({"signal": "SIGKILL", "victim": "worker"})
            if (code := ended(process)) != 0:
                one.problems.append(f"study: exit status {code}: {log.read_text()[-300:]}")
            return code
        except psutil.NoSuchProcess:
            return ended(process)
        finally:
            one.problems += orphans(process)

    def _kill(
        self, process: subprocess.Popen[bytes], folder: Path, one: Round, done: dict[str, int]
    ) -> int | None:
        """Kill the sweep, note which runs are done, and see whether the traces can be read."""
        number = self._chance.choice(SIGNALS)
        send(process, number)
        code = ended(process, 120)
        one.kills.append({"signal": number.name, "victim": "sweep", "code": code})
        if code is None or code not in ENDS[number] | {0}:
            one.problems.append(f"exit status {code} after {number.name} of the sweep")
        one.problems += orphans(process)
        with Index.open(folder) as index:
            finished = [row.run for row in index.rows() if row.state == "finished"]
        for run in finished:
            done.setdefault(run, (folder / RUNS / run / CHECKPOINT).stat().st_mtime_ns)
        for trace in folder.glob(f"{RUNS}/*/{TRACE}"):
            one.problems += unreadable(trace)
            one.checked += 1
        return code

    def _compare(self, folder: Path, done: dict[str, int]) -> list[str]:
        """Say what was not done exactly once, and to the bits of the undisturbed study."""
        problems = []
        with Index.open(folder) as index:
            rows, epochs = index.rows(), index.epochs()
        if sorted(row.run for row in rows) != sorted(self._whole):
            problems.append(f"{len(rows)} rows: expected one for each of {len(self._whole)} runs")
        for row in rows:
            path = folder / RUNS / row.run
            if (row.state, row.error) != ("finished", ""):
                problems.append(f"{row.run}: {row.state} {row.error}")
                continue
            once = list(range(1, row.epochs + 1))
            with open_trace(path / TRACE) as trace:
                traced = trace.table("learning").read("epoch").tolist()
            if [one["epoch"] for one in epochs[row.run]] != once or traced != once:
                problems.append(f"{row.run}: not every epoch once")
            problems += [
                f"{row.run}: {line}" for line in differences(fingerprint(path, TRACE), self._whole[row.run])
            ]
        again = [run for run, then in done.items() if _changed(folder / RUNS / run) != then]
        problems += [f"{run} was trained again" for run in again]
        return problems + [f"left over: {name}" for name in left_over(folder, self._names)]


def _changed(folder: Path) -> int:
    return (folder / CHECKPOINT).stat().st_mtime_ns


def holders(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the workers that train a run: those that have the lock of its folder open."""
    found = []
    for one in session(process):
        try:
            if any(f"/{RUNS}/" in file.path and file.path.endswith(f"/{LOCK}") for file in one.open_files()):
                found.append(one)
        except psutil.Error:
            continue
    return found
