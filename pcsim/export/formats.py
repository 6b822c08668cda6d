"""The formats that a trace can be exported to, and the one function that exports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

from pcsim.errors import ConfigurationError, nearest
from pcsim.export.options import Options, Outcome, Progress
from pcsim.export.target import MADE_BY, MANIFEST, new_file, new_folder
from pcsim.tracing.reader import TraceReader, open_trace

NO_OPTIONS = Options()
FLAGS = {
    "step": "--step",
    "layer": "--layer",
    "fixed_point": "--format",
    "linearise": "--linearise",
    "mapping": "--mapping",
    "prices": "--hardware",
}


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        summary: what it is for, in words.
        reads: what of a trace it needs.
        folder: whether it makes a folder; else it makes one file.
        options: those of `Options` that it has.
    """

    summary: str
    reads: str
    folder: bool
    options: tuple[str, ...] = ()


# The module `pcsim.export.NAME` has `write(trace, out, options, progress) -> Outcome`; out is the path of a
# folder that is there, or a file that is open for bytes.
FORMATS: dict[str, Format] = {
    "csv": Format("all tables as tidy CSV files", "any table", folder=True),
    "nir": Format(
        "graph and recorded data in the Neuromorphic Intermediate Representation",
        "probes with weight and bias",
        folder=True,
        options=("step", "linearise"),
    ),
    "npz": Format("all tables as one NumPy archive", "any table", folder=False),
    "perfetto": Format(
        "timeline for ui.perfetto.dev (Chrome trace-event JSON)", "events", folder=False, options=("step",)
    ),
    "sanafe": Format(
        "chip, mapped network and one step's messages for the simulator SANA-FE",
        "events",
        folder=True,
        options=("step", "mapping", "prices"),
    ),
    "testbench": Format(
        "stimulus and expected response of one layer as $readmemh files, with a Verilog test bench",
        "probes with activity, error, prediction, message, weight, bias",
        folder=True,
        options=("layer", "step", "fixed_point"),
    ),
    "traffic": Format(
        "packets between cores as CSV and Parquet, links, and a Noxim traffic table",
        "events",
        folder=True,
        options=("mapping",),
    ),
}


@dataclass(frozen=True)
class Exported:
    """What an export has made.

    Attributes:
        format: its name.
        path: the file or folder.
        files: all files, by name.
        bytes: size of all files together.
        notes: what the user must know, a sentence each.
        summary: how good what was made is, a line each.
    """

    format: str
    path: str
    files: tuple[str, ...]
    bytes: int
    notes: tuple[str, ...]
    summary: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self)


def export(
    trace: str | PathLike[str],
    to: str,
    out: str | PathLike[str],
    options: Options = NO_OPTIONS,
    *,
    overwrite: bool = False,
    progress: Progress = lambda share: None,
) -> Exported:
    """Export a trace. What is made appears under its name at once and whole, or not at all.

    Args:
        trace: the trace file.
        to: a name of `FORMATS`.
        out: the file or folder to make.
        options: what the format is asked for.
        overwrite: replace an earlier export.
        progress: is told the share that is done.

    Raises:
        ConfigurationError: an unknown format, an option it has not, a file in the way or a missing package.
        TraceError: the trace is missing, damaged, of a newer schema, or lacks what the format needs.
    """
    if to not in FORMATS:
        raise ConfigurationError(f"format '{to}': {nearest(to, FORMATS)}")
    format_ = FORMATS[to]
    for name in options.given():
        if name not in format_.options:
            own = ", ".join(FLAGS[one] for one in format_.options) or "none"
            raise ConfigurationError(f"{FLAGS[name]} with --to {to}: this format's options are: {own}")
    target = Path(out)
    with open_trace(Path(trace)) as reader:
        make = _folder if format_.folder else _file
        return make(to, reader, target, overwrite, options, progress)


def _file(
    name: str, trace: TraceReader, target: Path, overwrite: bool, options: Options, progress: Progress
) -> Exported:
    with new_file(target, overwrite, keep=trace.path) as file:
        outcome: Outcome = _module(name).write(trace, file, options, progress)
        size = file.tell()
        progress(1.0)
    return Exported(name, str(target), (str(target),), size, outcome.notes, outcome.summary)


def _folder(
    name: str, trace: TraceReader, target: Path, overwrite: bool, options: Options, progress: Progress
) -> Exported:
    with new_folder(target, overwrite, keep=trace.path) as temporary:
        outcome: Outcome = _module(name).write(trace, temporary, options, progress)
        _write_manifest(name, trace, temporary, outcome)
        files = sorted(temporary.iterdir())
        size = sum(file.stat().st_size for file in files)
        progress(1.0)
    names = tuple(str(target / file.name) for file in files)
    return Exported(name, str(target), names, size, outcome.notes, outcome.summary)


def _module(name: str) -> ModuleType:
    return import_module(f"pcsim.export.{name}")


def _write_manifest(name: str, trace: TraceReader, folder: Path, outcome: Outcome) -> None:
    """Say what is in a folder, and that it is ours to overwrite."""
    told = ("name", "order", "iterations", "engine", "created", "pcsim_version", "schema_version", "state")
    manifest = {
        "made_by": MADE_BY,
        "format": name,
        "trace": {"path": str(trace.path)} | {one: trace.attributes.get(one) for one in told},
        "files": sorted(file.name for file in folder.iterdir()),
        "notes": list(outcome.notes),
        **outcome.manifest,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
