"""Reads what libFuzzer makes of some damaged files; a process of its own, because libFuzzer ends it.

python tests/hostile/guided_worker.py TARGET FOLDER [libFuzzer's options]
"""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import atheris

SEEDS = 40  # damaged files to begin with
SLOW = 30  # s by the clock that no file may take, also beside other work
MEMORY = 3072  # MiB


def main(target: str, folder: Path, options: list[str]) -> None:
    """Load the reader with its branches counted, make the first files, and let libFuzzer go on."""
    from hostile.targets import TARGETS
    from hostile.worker import _judge

    one, corpus = TARGETS[target], folder / "corpus"
    path = folder / one.file
    with atheris.instrument_imports(include=["pcsim"], enable_loader_override=False):
        from pcsim.errors import PcsimError

        corpus.mkdir()
        for number in range(SEEDS):
            content = one.make(random.Random(f"{target} {number}"))
            (corpus / str(number)).write_bytes(content)
            path.write_bytes(content)
            try:
                one.read(path)
            except PcsimError:
                continue

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            one.read(path)
        except PcsimError as error:
            if (judged := _judge(str(error))) != "refused":
                print(judged, flush=True)
                raise
        except BaseException as error:
            print(f"bad: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
            raise

    limits = [f"-timeout={SLOW}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *options], read)
    atheris.Fuzz()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
