"""What the last bits of a product depend on: the processor, and the versions of the libraries."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def software() -> dict[str, str]:
    """Return the versions of all that computes and records, and the core that OpenBLAS was told to suit."""
    core = os.environ.get("OPENBLAS_CORETYPE") or "auto"
    known = versions("pcsim", "numpy", "numba", "torch", "h5py")
    return {"python": platform.python_version(), **known, "openblas": core}


def processor() -> str:
    """Return the processor's name; where it has none, as on ARM, its maker's numbers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    for keys in (
        ("model name", "cpu family", "model"),
        ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    ):
        model = " ".join(named[key] for key in keys if named.get(key))
        if model:
            return model
    return platform.processor() or platform.machine()


def versions(*names: str) -> dict[str, str]:
    """Return the versions of those libraries that are here."""
    return {name: _version(name) for name in names if installed(name)}


def installed(name: str) -> bool:
    """Return whether a library can be imported; a folder that happens to have its name is none."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # it was not installed by a package manager
        return "unknown"
