"""The import arrows of docs/architecture.md."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_point_downward():
    """A room that imports upward would couple what must stay apart, such as reports and the simulator."""
    linter = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout


def test_start_is_light():
    """`import pcsim` and `pcsim --help` must not wait for torch, Numba, scikit-learn or matplotlib."""
    heavy = "{'torch', 'numba', 'sklearn', 'matplotlib', 'scipy', 'h5py', 'numpy'}"
    code = f"import sys, pcsim, pcsim.cli; print(sorted({heavy} & set(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_public_names_resolve():
    """Each lazily loaded public name leads to something."""
    import pcsim

    for name in pcsim.__all__:
        assert getattr(pcsim, name) is not None
