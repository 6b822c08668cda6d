"""One process that trains, records, reads and resumes for hours; `soak.py` starts it and watches its memory.

    python tests/hostile/soak_lived.py FOLDER SECONDS

Each turn is two calls of `pcsim.run` (half a run, then the rest, resumed), a trace read whole, and a
comparison with the first turn of its kind. A line of JSON a turn goes to standard output.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pcsim.experiments.task import EngineName

TESTS = Path(__file__).resolve().parents[1]
EPOCHS = 6
TRACE = "run.h5"
Kind: TypeAlias = "tuple[EngineName, str, str]"
KINDS: list[Kind] = [
    ("fast", "mq", "sequential"),
    ("event", "adam", "simultaneous"),
    ("fast", "sgd", "simultaneous"),
    ("event", "mq", "sequential"),
    ("fast", "adam", "sequential"),
]
DISTRIBUTED: Kind = ("distributed", "mq", "sequential")
SELDOM = 4  # rounds of all kinds, after which layers go into processes of their own once


def turn(folder: Path, engine: EngineName, rule: str, order: str) -> dict[str, str]:
    """Train half a run, resume it to its end, read its trace; return the digests of all arrays."""
    from hostile.soak_files import fingerprint
    from hostile.soak_runs import MODEL, RATES

    import pcsim
    from pcsim.config import load_model
    from pcsim.engine.distributed.plan import Distribution
    from pcsim.experiments.experiment import Experiment

    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(MODEL)
    sets = [f'learning.rule="{rule}"', f"learning.rate={RATES[rule]}", f'schedule.order="{order}"']
    model = load_model(folder / "model.toml", [*sets, f"training.epochs={EPOCHS}"])
    distribution = Distribution(processes=2, timeout=900.0) if engine == "distributed" else None
    for until in (EPOCHS // 2, EPOCHS):
        pcsim.run(
            Experiment.from_model(model),
            engine=engine,
            trace=folder / TRACE,
            checkpoint=folder,
            resume=True,
            until=until,
            distribution=distribution,
        )
    return fingerprint(folder, TRACE)


def kinds() -> Iterator[Kind]:
    """Give the kinds of turns, the distributed one in the first round and then seldom."""
    for number in itertools.count():
        yield from KINDS
        if number % SELDOM == 0:
            yield DISTRIBUTED


def main(folder: Path, seconds: float) -> None:
    """Take turns until the time is over or the parent is gone; rest longer than a turn has taken."""
    from hostile.soak_files import differences

    first: dict[Kind, dict[str, str]] = {}
    end, parent = time.monotonic() + seconds, os.getppid()
    for number, kind in enumerate(kinds(), 1):
        begun = time.monotonic()
        arrays = turn(folder / "lived", *kind)
        problems = [
            f"{' '.join(kind)}: {line}" for line in differences(arrays, first.setdefault(kind, arrays))
        ]
        shutil.rmtree(folder / "lived")
        print(json.dumps({"turns": number, "runs": 2 * number, "problems": problems}), flush=True)
        if time.monotonic() > end or os.getppid() != parent:
            return
        time.sleep(1.5 * (time.monotonic() - begun))


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main(Path(sys.argv[1]), float(sys.argv[2]))
