"""Kills, resumes, sweeps and trains for hours, and says whether anything was lost or memory grew.

    python tests/hostile/soak.py --hours 2 -o FOLDER [--seed 0] [--json]
    python tests/hostile/soak.py --show FOLDER

Rounds are drawn at random: `pcsim run` on three engines with three rules, killed and resumed until it has the
bits of a run that nobody disturbed; `pcsim sweep` with two workers, workers and sweep killed, every run done
once; and all the while one process that trains, records, reads and resumes. Each round is a line in
FOLDER/soak.jsonl, so that an interrupted soak still says what it saw. Leaves with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).resolve().parents[1]
LIVED = TESTS / "hostile" / "soak_lived.py"
SWEEPS = 0.25  # share of rounds that are studies
REST = 0.2  # of a round's time that the machine is left to others behind it
SAMPLE = 5.0  # s between looks at the long-lived process


class Log:
    """The file of a soak: lines of JSON, each with the time since it began.

    Args:
        path: a new file.

    Raises:
        FileExistsError: it is there.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._begun, self._lock = path.open("x"), time.monotonic(), threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line, at once."""
        with self._lock:
            self._file.write(json.dumps({**line, "at": round(self.seconds, 2)}) + "\n")
            self._file.flush()


class Sampler(threading.Thread):
    """Looks at the long-lived process every few seconds, and tells of its turns."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path, log: Log) -> None:
        super().__init__(daemon=True)
        self._process, self._said, self._log, self.over = process, said, log, threading.Event()
        self._offset = 0

    def run(self) -> None:
        """Look until it is over or the process has ended."""
        while not self.over.wait(SAMPLE):
            with suppress(psutil.NoSuchProcess):
                self._log.add(sample(psutil.Process(self._process.pid)))
            self.tell()
            if self._process.poll() is not None:
                return

    def tell(self) -> None:
        """Pass on which turns it has done."""
        text = self._said.read_text(errors="replace")
        whole = text[self._offset : text.rfind("\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            if line.startswith("{"):
                self._log.add({"kind": "lived", **json.loads(line)})


def sample(process: psutil.Process) -> dict[str, Any]:
    """Return what a process holds: memory in bytes, open files, threads.

    Its own memory is what it has written to (RssAnon). "Unique" memory (USS) would not do: the pages of a
    library count there only while no other process has loaded it, and here they come and go.
    """
    with process.oneshot():
        memory = process.memory_info()
        return {
            "kind": "memory",
            "own": memory.rss - memory.shared,
            "rss": memory.rss,
            "files": process.num_fds(),
            "threads": process.num_threads(),
        }


def soak(folder: Path, seconds: float, seed: int) -> None:
    """Play rounds for so long; what happens goes to the folder's soak.jsonl.

    Raises:
        FileExistsError: the folder holds a soak.
    """
    from hostile.soak_processes import complaints, kill_session, start
    from hostile.soak_report import FILE

    import pcsim

    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder / FILE)
    log.add({"kind": "begin", "seed": seed, "wanted": seconds, "version": version(pcsim)})
    said = folder / "lived.log"
    lived = start([sys.executable, str(LIVED), str(folder), str(seconds)], said)
    sampler = Sampler(lived, said, log)
    sampler.start()
    state = "interrupted"
    try:
        play(folder, seconds, random.Random(seed), log)
        state = "complete"
    finally:
        early = lived.poll()
        sampler.over.set()
        sampler.join()
        sampler.tell()
        kill_session(lived)
        problems = complaints(said)
        if early is not None and early != 0:
            problems.append(f"the long-lived process has ended with exit status {early}")
        log.add({"kind": "end", "state": state, "problems": problems})


def version(pcsim: Any) -> str:
    """Say which pcsim is soaked."""
    return f"{metadata.version('pcsim')} in {Path(pcsim.__file__).parent}"


def play(folder: Path, seconds: float, chance: random.Random, log: Log) -> None:
    """Play one round after the other; the first is a killed run."""
    from hostile.soak_runs import Runs
    from hostile.soak_sweeps import Sweeps
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    runs, sweeps = Runs(folder, chance), Sweeps(folder, chance)
    columns = (TextColumn("soak"), BarColumn(30), TimeRemainingColumn(), TextColumn("{task.fields[news]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task, rounds, kills, lost = bar.add_task("soak", total=seconds, news=""), 0, 0, 0
        while log.seconds < seconds:
            one = sweeps.play() if rounds and chance.random() < SWEEPS else runs.play()
            log.add(asdict(one))
            rounds, kills, lost = rounds + 1, kills + len(one.kills), lost + len(one.problems)
            news = f"{rounds} rounds, {kills} kills, {lost} lost"
            bar.update(task, completed=min(log.seconds, seconds), news=news)
            bar.console.print(
                f"{log.seconds:6.0f} s: {one.kind}, {one.seconds:.0f} s; {news}", highlight=False
            )
            if one.problems:
                keep(folder, "run" if one.kind == "run" else "study", folder / f"wrong-{rounds}")
            for text in one.problems:
                bar.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
            time.sleep(max(0.0, min(REST * one.seconds, seconds - log.seconds)))


def keep(folder: Path, name: str, aside: Path) -> None:
    """Put aside what a round has left that went wrong, and what its processes have said."""
    aside.mkdir()
    for path in (folder / name, folder / f"{name}.log"):
        if path.exists():
            path.rename(aside / path.name)


def main() -> int:
    """Soak, or show what a soak has come to; return the exit status."""
    from hostile.soak_report import read_lines, report, show

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0, help="how long [2]")
    parser.add_argument("-o", "--out", type=Path, help="folder for soak.jsonl and what is trained")
    parser.add_argument("--seed", type=int, default=0, help="of everything random [0]")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="only print what a soak has come to")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    if (given.out is None) == (given.show is None):
        parser.error("expected either -o FOLDER or --show FOLDER")
    if given.out is not None:
        for number in (signal.SIGINT, signal.SIGTERM):  # nohup and `&` would have the children ignore Ctrl-C
            signal.signal(number, signal.default_int_handler)
        print(f"seed {given.seed}", file=sys.stderr, flush=True)
        try:
            soak(given.out.resolve(), 3600 * given.hours, given.seed)
        except FileExistsError:
            parser.error(f"{given.out} holds a soak: give another folder, or --show {given.out}")
        except KeyboardInterrupt:
            for child in psutil.Process().children(recursive=True):  # one that was being started, perhaps
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            print("interrupted", file=sys.stderr)
    found = report(read_lines(given.out or given.show))
    print(json.dumps(found.to_dict(), indent=2)) if given.json else show(found)
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    sys.exit(main())
