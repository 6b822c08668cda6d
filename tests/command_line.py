"""Commands in processes of their own that start at once: forks of a server that has everything loaded.

What is killed twenty times would spend most of its time on imports. What must come from a new interpreter is
started with `PCSIM`.
"""

import multiprocessing
import os
import sys
from pathlib import Path

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["command_line_warm"])


def start(*arguments, errors=os.devnull):
    """Start `pcsim` with these arguments; return the process. What it prints is lost, but for errors."""
    process = _CONTEXT.Process(target=_run, args=([str(one) for one in arguments], str(errors)))
    process.start()
    return process


def _run(arguments, errors):
    """Do it, in the new process."""
    for number, name in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["pcsim", *arguments]
    from pcsim.cli import main

    main()


def finished(process, errors=Path(os.devnull), seconds=120):
    """Wait for a process; fail with what it has said if it has failed."""
    process.join(seconds)
    assert process.exitcode == 0, errors.read_text()
