"""Feeds every reader damaged files, in processes of their own, and counts what comes of them.

    python tests/hostile/fuzz.py --count 10000 [--target NAME]… [--seed 0] [--keep FOLDER]

A reader may give a result or refuse in one line with a PcsimError. Anything else is printed with the number
of the input, and leaves with 1: another exception, a dead process, an input that takes more than 5 seconds.
The same seed makes the same inputs; --keep writes those that are bad into a folder.
"""

from __future__ import annotations

import argparse
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
WORKER = TESTS / "hostile" / "worker.py"
HANG = 30.0  # seconds without a sign of life


@dataclass
class Tally:
    """What came of a target's inputs.

    Attributes:
        outcomes: how many were good, refused, bad, crashed or hung.
        bad: of each input that was neither good nor refused, its number and what happened.
        peak: memory in MiB that a process had at most, Python and its libraries included.
        seconds: of wall-clock time.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, str]] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Inputs so far."""
        return self.outcomes.total()

    def add(self, outcome: str, what: str = "") -> None:
        """Count one input."""
        if outcome not in ("good", "refused"):
            self.bad.append((self.done, what))
        self.outcomes[outcome] += 1


def fuzz(target: str, count: int, seed: int = 0) -> Tally:
    """Read `count` damaged files; a process that dies is replaced, and work goes on behind what killed it.

    Raises:
        RuntimeError: a process ends before its first input.
    """
    tally, begun = Tally(), time.monotonic()
    while tally.done < count:
        with tempfile.TemporaryDirectory() as folder:
            _work(target, count, seed, folder, tally)
    tally.seconds = time.monotonic() - begun
    return tally


def _work(target: str, count: int, seed: int, folder: str, tally: Tally) -> None:
    """Let one process read from the next input on, until it is done, dead or silent."""
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    command = [sys.executable, str(WORKER), target, str(seed)]
    with subprocess.Popen(
        [*command, str(tally.done), str(count - tally.done), folder],
        cwd=TESTS.parent,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=(Path(folder) / "stderr").open("wb"),
    ) as process:
        ready, said = False, ""
        try:
            for line in _lines(process):
                said, _, rest = line.partition(" ")
                ready = ready or said == "ready"
                if said == "peak":
                    tally.peak = max(tally.peak, int(rest))
                elif ready and said in ("good", "refused", "bad"):
                    tally.add(said, rest)
        except TimeoutError:
            process.kill()
            tally.add("hung", f"hung: nothing for {HANG:.0f} s")
            return
        code = process.wait()
    if not ready:
        raise RuntimeError(f"{target}: no input was read: {(Path(folder) / 'stderr').read_text()[-2000:]}")
    if said != "peak":
        tally.add("crashed", f"crashed: exit status {code}")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What a process prints, line by line.

    Raises:
        TimeoutError: it prints nothing for too long.
    """
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(HANG):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode() for line in whole)


def _keep(folder: Path, target: str, seed: int, tally: Tally) -> None:
    """Write the bad inputs of a target."""
    from hostile.worker import damaged

    folder.mkdir(parents=True, exist_ok=True)
    for number, _ in tally.bad:
        name = f"{target.replace(' ', '-').replace(',', '')}-{seed}-{number}"
        (folder / name).write_bytes(damaged(target, seed, number))


def main() -> int:
    """Fuzz, print a table, and say with the exit status whether all is well."""
    from hostile.targets import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each reader")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this reader")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--keep", type=Path, help="folder for the bad inputs")
    given = parser.parse_args()
    print(
        f"{'reader':<18}{'inputs':>8}{'result':>8}{'refused':>9}{'bad':>5}{'crashed':>9}{'hung':>6}{'MiB':>6}{'s':>6}"
    )
    failed = False
    for target in given.target or TARGETS:
        tally = fuzz(target, given.count, given.seed)
        counts = [tally.outcomes[name] for name in ("good", "refused", "bad", "crashed", "hung")]
        row = "".join(f"{n:>{width},}" for n, width in zip(counts, (8, 9, 5, 9, 6), strict=True))
        print(f"{target:<18}{tally.done:>8,}{row}{tally.peak:>6,}{tally.seconds:>6.0f}", flush=True)
        for number, what in tally.bad[:20]:
            print(f"  {number}: {what}", flush=True)
        if given.keep is not None:
            _keep(given.keep, target, given.seed, tally)
        failed = failed or bool(tally.bad)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    sys.exit(main())
