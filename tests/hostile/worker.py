"""Reads damaged files, one after the other, and says what came of each. A process of its own: it may die.

    python tests/hostile/worker.py TARGET SEED FIRST COUNT FOLDER

Prints `N` before input N is read, then what came of it: `good`, `refused`, or `bad` with what is wrong; at
the end `peak` and the most memory that it had, in MiB.
"""

from __future__ import annotations

import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

MEMORY = 3 << 30  # bytes of addresses; nothing that is read here needs a tenth of it
SLOW = 5.0  # seconds of processor time that no damaged file of some kilobytes may take


def peak_mib() -> int:
    """Return the most memory that this process had; getrusage would count what its parent had before exec."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def damaged(target: str, seed: int, number: int) -> bytes:
    """Return input `number`: the same for the same seed."""
    from hostile.targets import TARGETS

    return TARGETS[target].make(random.Random(f"{target} {seed} {number}"))


def outcome(target: str, seed: int, number: int, folder: Path) -> str:
    """Make input `number`, read it, and judge."""
    from hostile.targets import TARGETS

    from pcsim.errors import PcsimError

    one = TARGETS[target]
    path = folder / one.file
    path.write_bytes(damaged(target, seed, number))
    print(number, flush=True)
    begun = time.process_time()
    try:
        one.read(path)
        result = "good"
    except PcsimError as error:
        result = _judge(str(error))
    except BaseException as error:
        result = f"bad {type(error).__name__}: {' '.join(str(error).split())[:200]}{_place(error)}"
    seconds = time.process_time() - begun
    return f"bad slow: {seconds:.1f} s" if seconds > SLOW else result


def _judge(message: str) -> str:
    if len(message.splitlines()) != 1 or len(message) > 1500:
        return f"bad message: {message[:300]!r}"
    return "refused"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/pcsim/" in frame.filename] or frames
    return f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def main(target: str, seed: str, first: str, count: str, folder: str) -> None:
    """Work through the inputs."""
    warnings.simplefilter("ignore")
    import hostile.targets  # noqa: F401 - libraries are loaded before memory is limited

    outcome(target, -1, 0, Path(folder))  # the whole files are made, lazy imports done
    print("ready", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(int(first), int(first) + int(count)):
        print(outcome(target, int(seed), number, Path(folder)), flush=True)
    print("peak", peak_mib(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
