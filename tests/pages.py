"""Runs a page of the documentation as a reader would: every block in order, in an empty folder."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = {"toml"}  # what a page shows without asking the reader to run it


def run_shell(code: str) -> str:
    """Run a block in a shell that stops at the first failure; return what it printed."""
    program = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    outcome = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, f"{code}\n{outcome.stderr}"
    return outcome.stdout


def run_page(page: Path) -> dict[str, Any]:
    """Run the blocks of a page in the current folder; return the names that its Python has defined.

    A block of text is what the block before it prints: all of it after Python, some of it after a shell.
    """
    names: dict[str, Any] = {}
    printed, whole = "", False
    for language, code in BLOCK.findall(page.read_text()):
        if language == "text":
            assert code == printed if whole else code in printed, (
                f"{page.name} promises\n{code}not\n{printed}"
            )
            assert code
        elif language == "sh":
            printed, whole = run_shell(code), False
        elif language == "python":
            with redirect_stdout(io.StringIO()) as caught:
                exec(compile(code, page.name, "exec"), names)
            printed, whole = caught.getvalue(), True
        else:
            assert language in SHOWN, f"{page.name}: a block of {language}"
    return names
