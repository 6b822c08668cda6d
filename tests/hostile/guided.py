"""Feeds readers files that are mutated towards code that was not reached before: atheris (libFuzzer).

    python tests/hostile/guided.py --count 10000 [--target NAME]… [--seed 1] [--keep FOLDER]

Needs `pip install pcsim[fuzz]`. It begins with some of the damaged files of `fuzz.py` and keeps what reaches
new code in pcsim. What counts as bad is what counts there; the first such file ends its reader's turn, and
--keep writes it into a folder. Leaves with 1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
WORKER = TESTS / "hostile" / "guided_worker.py"


@dataclass(frozen=True)
class Guided:
    """What came of a reader.

    Attributes:
        inputs: files that it was given.
        before: branches of pcsim that the first files reached.
        reached: branches in the end.
        seconds: of wall-clock time.
        bad: what was wrong, empty if nothing was.
    """

    inputs: int
    before: int
    reached: int
    seconds: int
    bad: str


def guided(target: str, count: int, seed: int = 1, keep: Path | None = None) -> Guided:
    """Let a process of its own mutate and read.

    Args:
        target: a name in `hostile.targets.TARGETS`.
        count: files.
        seed: of the mutations; the same seed makes the same files.
        keep: folder for a bad file.

    Raises:
        RuntimeError: it ends before its first file, for want of atheris perhaps.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        options = [f"-runs={count}", f"-seed={seed}", f"-artifact_prefix={kept}/{_plain(target)}-"]
        ran = subprocess.run(
            [sys.executable, str(WORKER), target, folder, *options],
            cwd=TESTS.parent,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent))),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
            capture_output=True,
            check=False,
        )
    return _parse(target, ran.returncode, (ran.stdout + ran.stderr).decode(errors="replace"))


def _parse(target: str, code: int, text: str) -> Guided:
    """Read what libFuzzer says.

    Raises:
        RuntimeError: no file was read.
    """
    units = re.search(r"^stat::number_of_executed_units: (\d+)", text, re.MULTILINE)
    if units is None:
        raise RuntimeError(f"{target}: no file was read: {text[-2000:]}")
    reached = [int(found) for found in re.findall(r"^#\d+\s.*? cov: (\d+)", text, re.MULTILINE)]
    first = re.search(r"^#\d+\s+INITED.*? cov: (\d+)", text, re.MULTILINE)
    done = re.search(r"^Done \d+ runs in (\d+) second", text, re.MULTILINE)
    bad = "" if code == 0 and done else _why(text, code)
    return Guided(
        inputs=int(units[1]),
        before=int(first[1]) if first else 0,
        reached=max(reached, default=0),
        seconds=int(done[1]) if done else 0,
        bad=bad,
    )


def _why(text: str, code: int) -> str:
    """Return the line that says what was wrong."""
    found = re.search(r"^(bad: .*|==\d+== ?ERROR: .*)$", text, re.MULTILINE)
    return found[1] if found else f"exit status {code}: {text[-300:]}"


def _plain(target: str) -> str:
    return target.replace(" ", "-").replace(",", "")


def main() -> int:
    """Fuzz, print a table, and say with the exit status whether all is well."""
    from hostile.targets import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="files for each reader")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this reader")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--keep", type=Path, help="folder for bad files")
    given = parser.parse_args()
    print(f"{'reader':<18}{'inputs':>8}{'branches':>10}{'then':>7}{'bad':>5}{'s':>6}")
    failed = False
    for target in given.target or TARGETS:
        one = guided(target, given.count, given.seed, given.keep)
        row = f"{one.inputs:>8,}{one.before:>10,}{one.reached:>7,}{bool(one.bad):>5d}{one.seconds:>6}"
        print(f"{target:<18}{row}", flush=True)
        if one.bad:
            print(f"  {one.bad}", flush=True)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    sys.exit(main())
