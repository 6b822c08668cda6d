"""Trains on a disk that fills up or cannot be written. Run by test_disk in a mount namespace of its own."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
RUN = ["run", "digits", "--threads", "1"]
NOT_ALLOWED = 77
READ_ONLY, REMOUNT, PRIVATE, ALL_BELOW = 1, 32, 1 << 18, 1 << 14


def mount(folder: Path | str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """Mount a disk in this process's namespace, or leave with NOT_ALLOWED."""
    libc = ctypes.CDLL(None, use_errno=True)
    given = kind.encode() if kind else None
    if libc.mount(given, str(folder).encode(), given, flags, options.encode()) != 0:
        print(f"mount: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(NOT_ALLOWED)


def pcsim(*arguments: str) -> tuple[int, str]:
    """Run a command; returns exit status and its last line of errors."""
    done = subprocess.run([*PCSIM, *arguments], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line]
    assert not any("Traceback" in line for line in lines), done.stderr
    return done.returncode, lines[-1] if lines else ""


def full(folder: Path) -> None:
    """A trace outgrows the disk."""
    from pcsim.tracing import open_trace

    mount(folder, "tmpfs", options="size=9m")
    trace = folder / "t.h5"
    print(
        *pcsim(
            *RUN,
            "--set",
            "probe.error-flow.every=1",
            "--set",
            "trace.flush_seconds=0.05",
            "--trace",
            str(trace),
        ),
        sep="\n",
    )
    with open_trace(trace) as reader:
        reader.verify()
        print(reader.table("summary").rows, reader.state, sep="\n")


def checkpoint(folder: Path) -> None:
    """There is room for one checkpoint and not for its successor beside it."""
    from pcsim.experiments.checkpoint import FILE

    mount(folder, "tmpfs", options="size=160k")
    trace = folder.parent / "t.h5"
    options = [*RUN, "--set", "training.epochs=2", "--trace", str(trace), "--checkpoint", str(folder)]
    print(*pcsim(*options), sep="\n")
    from safetensors import safe_open

    with safe_open(folder / FILE, "numpy") as file:
        print(len(json.loads(file.metadata()["pcsim"])["facts"]["epochs"]))
    mount(folder, "tmpfs", REMOUNT, "size=2m")
    print(pcsim(*options, "--resume")[0])
    print(*sorted(os.listdir(folder)))


def read_only(folder: Path) -> None:
    """Neither trace nor checkpoint can be written."""
    mount(folder, "tmpfs", READ_ONLY, "size=1m")
    print(*pcsim(*RUN, "--trace", str(folder / "t.h5")))
    trace = folder.parent / "t.h5"
    print(*pcsim(*RUN, "--set", "training.epochs=1", "--trace", str(trace), "--checkpoint", str(folder)))


if __name__ == "__main__":
    mount("/", None, PRIVATE | ALL_BELOW)
    {"full": full, "checkpoint": checkpoint, "read-only": read_only}[sys.argv[1]](Path(sys.argv[2]))
