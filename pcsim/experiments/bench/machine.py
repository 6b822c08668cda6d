"""Where a benchmark ran."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pcsim

CPU_FIELDS = ("model name", "cpu family", "model", "cache size")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine() -> dict[str, Any]:
    """Describe processor, memory caches, system and state of the source, fit for JSON."""
    processor = _processor()
    return {
        "cpu": processor.pop("model name", platform.processor() or "unknown"),
        "cpu_details": processor,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "caches": _caches(),
        "system": platform.platform(),
        "git": _commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    known = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: known[name] for name in CPU_FIELDS if name in known}


def _caches() -> dict[str, str]:
    """Return the sizes of the first processor's caches, such as L2: 1024K."""
    found = {}
    for cache in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = ((cache / part).read_text().strip() for part in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level}{kind[0].lower() if level == '1' else ''}"] = size
    return found


def _commit() -> str:
    """Return the commit of the source, marked if files differ from it."""
    root = Path(pcsim.__file__).parents[1]
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changes.stdout.strip() else "")
