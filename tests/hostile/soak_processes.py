"""Processes of the soak: started with files for what they say, signalled, waited for, counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
PATIENCE = 300.0  # s after which a process counts as hung: the machine may be busy with other work
GONE = 60.0  # s that the processes of a dead master may take to notice
LOOK = 0.02  # s between looks at a process


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process as leader of a session of its own; what it says goes to a file."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=log.parent,
            env=os.environ | threads,
        )


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until something is so; return whether it is, before the process ends or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True


def ended(process: subprocess.Popen[bytes], seconds: float = PATIENCE) -> int | None:
    """Wait for a process; return its exit status, None if it hangs: it is killed then, with its session."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_session(process)
        return None
    except KeyboardInterrupt:
        kill_session(process)
        raise


def session(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes of the session that a process leads, without itself."""
    found = []
    for other in psutil.process_iter():
        try:
            if other.pid != process.pid and os.getsid(other.pid) == process.pid:
                found.append(other)
        except ProcessLookupError:
            continue
    return found


def orphans(process: subprocess.Popen[bytes]) -> list[str]:
    """Wait for what a dead process has started; say what does not end by itself, and kill it.

    A process that is still alive, as when the soak is interrupted, is killed at once, and nothing is said.
    """
    if process.poll() is None:
        kill_session(process)
        return []
    _, alive = psutil.wait_procs(session(process), timeout=GONE)
    stay = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    lines = [f"process {one.pid} has outlived its master for {GONE:.0f} s: {name_of(one)}" for one in stay]
    kill_session(process)
    return lines


def name_of(process: psutil.Process) -> str:
    """Return the start of a process's command line."""
    try:
        return " ".join(process.cmdline())[:100]
    except psutil.Error:
        return "gone"


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    for one in session(process):
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    if process.poll() is None:
        process.kill()
        process.wait()


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal: Ctrl-C to the whole session's group, as a terminal does, others to the one process."""
    try:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except ProcessLookupError:
        pass


def complaints(log: Path) -> list[str]:
    """Say which tracebacks a process has printed, but for Ctrl-C while Python starts, which is its own."""
    text = log.read_text(errors="replace") if log.exists() else ""
    parts = text.split("Traceback (most recent call last)")[1:]
    ends = [
        next((line for line in part.splitlines()[1:] if line and line[0].isalpha()), "") for part in parts
    ]
    return [
        f"a traceback in {log.name}: {end[:200]}" for end in ends if not end.startswith("KeyboardInterrupt")
    ]
