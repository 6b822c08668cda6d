"""Run the kernel tests of `device/` in Numba's CUDA simulator, each file in a process of its own.

Whether `numba.cuda` is the simulator is decided at the first import of Numba in a process, and the CPU
kernels import Numba too. So the variable cannot be set in the process of the ordinary suite. One process a
file lets pytest-xdist run them side by side. On a machine with a GPU the same files also run on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the CUDA kernels need Numba")
FILES = sorted((Path(__file__).parent / "device").glob("test_*.py"))
ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(bool(os.environ.get("NUMBA_ENABLE_CUDASIM")), reason="this is the simulator's process")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_the_simulator(path):
    """Every kernel agrees with the reference where threads are Python threads and blocks run one by one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    outcome = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert " passed" in outcome.stdout
