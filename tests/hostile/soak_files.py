"""What a run leaves behind, as fingerprints that can be compared, and what it should not leave behind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from pcsim.errors import PcsimError
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.tracing import open_trace

CLOCK = "seconds"  # the one column that may differ between two runs of the same settings


def fingerprint(folder: Path, trace: str) -> dict[str, str]:
    """Return a digest of each array of a run that has ended: those of its checkpoint and of its trace.

    Args:
        folder: with the checkpoint.
        trace: name of the trace there.

    Raises:
        PcsimError: the trace is damaged, or says that the run has not ended.
    """
    arrays = {f"checkpoint {name}": digest(array) for name, array in load_file(folder / CHECKPOINT).items()}
    with open_trace(folder / trace) as reader:
        if reader.state != "complete":
            raise PcsimError(f"{folder / trace}: state {reader.state}, expected complete")
        reader.verify()
        for name in reader.tables:
            table = reader.table(name)
            names = [column for column in table.columns if column != CLOCK]
            arrays |= {f"trace {name}/{column}": digest(table.read(column)) for column in names}
    return arrays


def digest(array: np.ndarray) -> str:
    """Return a digest of an array's type, shape and bytes."""
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def differences(ours: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Say which arrays are not those of the undisturbed run, in a line each."""
    missing = [f"{name} is missing" for name in expected.keys() - ours.keys()]
    more = [f"{name} is too much" for name in ours.keys() - expected.keys()]
    other = [f"{name} differs" for name in ours.keys() & expected.keys() if ours[name] != expected[name]]
    return sorted(missing + more + other)


def names_in(folder: Path) -> frozenset[str]:
    """Return all files in a folder and below it, hidden ones included."""
    return frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def left_over(folder: Path, expected: Iterable[str]) -> list[str]:
    """Return what lies in a folder beside what an undisturbed run leaves there."""
    return sorted(names_in(folder) - frozenset(expected))


def unreadable(path: Path) -> list[str]:
    """Say what is wrong with the trace of a run that was killed; none at all is all right."""
    if not path.exists():
        return []
    try:
        with open_trace(path) as reader:
            reader.verify()
            for name in reader.tables:
                for column in reader.table(name).columns:
                    reader.table(name).read(column)
    except Exception as error:  # whatever it is, it belongs into the report
        return [f"{path.name} cannot be read after a kill: {type(error).__name__}: {error}"]
    return []
