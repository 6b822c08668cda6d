"""Rounds of the soak that kill `pcsim run` and resume it, until it has done what nobody disturbed."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from hostile.soak_files import differences, fingerprint, left_over, names_in, unreadable
from hostile.soak_processes import (
    PATIENCE,
    PCSIM,
    complaints,
    ended,
    kill_session,
    orphans,
    send,
    session,
    start,
    wait_until,
)

from pcsim.errors import PcsimError
from pcsim.experiments.checkpoint import FILE as CHECKPOINT

TRACE = "run.h5"
MODEL = """
[network]
layers = [64, 96, 64, 10]
[data]
name = "digits"
[schedule]
iterations = 3
step_size = 0.05
[learning]
rule = "mq"
rate = 1e-3
[training]
epochs = 20
batch = 32
[trace]
flush_seconds = 0.2
[probe.all]
record = ["activity", "error", "message", "update"]
every = 40
"""
EPOCHS = {"fast": 120, "event": 60, "distributed": 60}  # some seconds of training each
RATES = {"mq": "1e-3", "sgd": "0.3", "adam": "1e-3"}
SIGNALS = (signal.SIGKILL,) * 5 + (signal.SIGTERM, signal.SIGINT)  # most of them cannot be handled
KILLS = 5  # at most, a round
LOST_PEER = 2  # exit status of a distributed run that has lost a process
ENDS = {signal.SIGKILL: {-9}, signal.SIGTERM: {-15, 143}, signal.SIGINT: {-2, 130}}


@dataclass(frozen=True)
class Settings:
    """What decides a run's numbers.

    Attributes:
        engine: fast, event or distributed (in two processes).
        rule: mq, sgd or adam.
        order: of the schedule.
    """

    engine: str
    rule: str
    order: str

    def command(self, model: Path, folder: Path) -> list[str]:
        """Return the command that begins this run in a folder, or goes on with it."""
        sets = [f"training.epochs={EPOCHS[self.engine]}", f'learning.rule="{self.rule}"']
        sets += [f"learning.rate={RATES[self.rule]}", f'schedule.order="{self.order}"']
        options = ["--engine", self.engine, *itertools.chain(*(("--set", one) for one in sets))]
        options += ["--processes", "2", "--timeout", "900"] if self.engine == "distributed" else []
        files = ["--trace", str(folder / TRACE), "--checkpoint", str(folder), "--resume"]
        return [*PCSIM, "run", str(model), *options, *files]


ALL = [Settings(*one) for one in itertools.product(EPOCHS, RATES, ("sequential", "simultaneous"))]


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run leaves behind.

    Attributes:
        arrays: their digests.
        names: of its files.
        starting: s until its first checkpoint.
    """

    arrays: dict[str, str]
    names: frozenset[str]
    starting: float


@dataclass
class Round:
    """What happened in a round; fit for a line of JSON."""

    settings: dict[str, Any]
    kind: str = "run"
    kills: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    checked: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Runs:
    """Plays rounds; keeps what undisturbed runs have left behind.

    Args:
        folder: for everything.
        chance: draws settings, moments, signals and victims.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._model = folder / "model.toml"
        self._model.write_text(MODEL)
        self._wholes: dict[Settings, Whole] = {}
        self._turns = self._in_turn()

    def play(self) -> Round:
        """Kill and resume a run until it has ended, and compare it with the undisturbed one."""
        settings, begun = next(self._turns), time.monotonic()
        one = Round(asdict(settings))
        try:
            whole = self._whole(settings)
        except PcsimError as error:
            one.problems.append(str(error))
            return one
        folder, log = fresh(self._folder / "run"), self._folder / "run.log"
        log.unlink(missing_ok=True)
        wanted = self._chance.randint(1, KILLS)
        code: int | None = -1
        while code != 0 and not one.problems:
            code = self._attempt(settings, folder, log, one, whole if len(one.kills) < wanted else None)
        if not one.problems:
            one.problems += compare(folder, whole)
        one.problems += complaints(log)
        one.seconds = time.monotonic() - begun
        return one

    def _in_turn(self) -> Iterator[Settings]:
        """Draw all settings in a random order, again and again; each engine leads once in the first three."""
        while True:
            yield from self._chance.sample(ALL, len(ALL))

    def _whole(self, settings: Settings) -> Whole:
        """Return what the undisturbed run leaves; run it if that is not known yet.

        Raises:
            PcsimError: it fails.
        """
        if settings not in self._wholes:
            folder, log = fresh(self._folder / "whole"), self._folder / "whole.log"
            log.unlink(missing_ok=True)
            begun = time.monotonic()
            process = start(settings.command(self._model, folder), log)
            try:
                wait_until((folder / CHECKPOINT).exists, process, 300)
                first = time.monotonic()
                code = ended(process)
            finally:
                kill_session(process)
            if code != 0:
                raise PcsimError(f"undisturbed: exit status {code}: {log.read_text()[-300:]}")
            arrays, names = fingerprint(folder, TRACE), names_in(folder)
            self._wholes[settings] = Whole(arrays, names, first - begun)
            shutil.rmtree(folder)
        return self._wholes[settings]

    def _attempt(
        self, settings: Settings, folder: Path, log: Path, one: Round, whole: Whole | None
    ) -> int | None:
        """Start the run; kill it at a random moment, or let it be if `whole` is not given."""
        process = start(settings.command(self._model, folder), log)
        one.starts += 1
        try:
            if whole is None or not self._wait(process, settings, folder, whole):
                if (code := ended(process)) != 0:
                    one.problems.append(f"undisturbed: exit status {code}: {log.read_text()[-300:]}")
                return code
            return self._kill(process, settings, folder, one)
        finally:
            one.problems += orphans(process)

    def _wait(self, process: subprocess.Popen[bytes], settings: Settings, folder: Path, whole: Whole) -> bool:
        """Wait for a random moment of the start or of the training; return whether the run still goes on."""
        if self._chance.random() < 0.25:
            wait_until(lambda: False, process, self._chance.uniform(0, whole.starting))
            return process.poll() is None
        checkpoints = Checkpoints(folder)
        wanted = self._chance.randint(1, EPOCHS[settings.engine] // 3)
        wait_until(lambda: checkpoints.seen() >= wanted, process, PATIENCE)
        wait_until(lambda: False, process, self._chance.uniform(0, 0.1))
        return process.poll() is None

    def _kill(
        self, process: subprocess.Popen[bytes], settings: Settings, folder: Path, one: Round
    ) -> int | None:
        """Send the signal, see how the run ends and whether its trace can be read."""
        number, expected, victim = self._chance.choice(SIGNALS), set[int](), "run"
        others = [each for each in session(process) if has_rank(each)]
        if others and self._chance.random() < 0.4:
            victim, number, expected = "worker", signal.SIGKILL, {LOST_PEER}
            with contextlib.suppress(psutil.NoSuchProcess):
                self._chance.choice(others).kill()
        else:
            expected = ENDS[number]
            send(process, number)
        code = ended(process, 120)
        kill = {"signal": number.name, "victim": victim, "code": code}
        one.kills.append(kill)
        if code is None:
            one.problems.append(f"hung for 120 s after {number.name} of the {victim}")
        elif code not in expected | {0}:
            one.problems.append(f"exit status {code} after {number.name} of the {victim}")
        one.problems += unreadable(folder / TRACE)
        one.checked += (folder / TRACE).exists()
        return code


class Checkpoints:
    """Counts how often a run has written a checkpoint since it was started."""

    def __init__(self, folder: Path) -> None:
        self._path, self._count = folder / CHECKPOINT, 0
        self._last = self._changed()

    def _changed(self) -> int:
        return self._path.stat().st_mtime_ns if self._path.exists() else 0

    def seen(self) -> int:
        """Look, and return how often it was another one."""
        changed = self._changed()
        self._count += changed != self._last
        self._last = changed
        return self._count


def has_rank(process: psutil.Process) -> bool:
    """Tell whether a process is a worker of a distributed run."""
    try:
        return "RANK" in process.environ()
    except psutil.Error:
        return False


def fresh(folder: Path) -> Path:
    """Return an empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def compare(folder: Path, whole: Whole) -> list[str]:
    """Say how what a run has left differs from what the undisturbed one has."""
    try:
        problems = differences(fingerprint(folder, TRACE), whole.arrays)
    except Exception as error:  # whatever it is, it belongs into the report
        problems = [f"cannot be read at the end: {type(error).__name__}: {error}"]
    return problems + [f"left over: {name}" for name in left_over(folder, whole.names)]
