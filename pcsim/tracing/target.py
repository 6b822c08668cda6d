"""Where a trace may be written: no file is lost that is no trace, and none is gone on with by another run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

from pcsim.errors import ConfigurationError, TraceError
from pcsim.places import check_new_file
from pcsim.tracing.reader import TraceReader, open_trace
from pcsim.tracing.schema import SCHEMA_VERSION, decode, encode
from pcsim.tracing.table_reader import TableReader


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse to replace anything but a trace or an empty file, and even these without being told to.

    Raises:
        TraceError: says what is in the way.
    """
    try:
        _refuse_link(path)
        check_new_file(path, overwrite)
        if not path.exists() or path.stat().st_size == 0:
            return
    except ConfigurationError as error:
        raise TraceError(str(error)) from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        open_trace(path).close()
    except TraceError as error:
        raise TraceError(f"{path} is not overwritten, it is no readable pcsim trace: {error}") from error


def rows_to_keep(path: Path, attributes: Mapping[str, object], steps_done: int) -> dict[str, int]:
    """Return how many rows of each table of a trace belong to the first training steps of a run.

    Args:
        path: the trace.
        attributes: root attributes of the run that goes on with it.
        steps_done: training steps that the run has behind it.

    Raises:
        TraceError: the trace cannot be read, is another run's, or of another version.
    """
    with open_trace(path) as trace:
        _check_same(trace, attributes)
        kept = {name: _rows_before(trace.table(name), steps_done) for name in trace.tables}
    _refuse_link(path)
    return kept


def _check_same(trace: TraceReader, attributes: Mapping[str, object]) -> None:
    """Refuse to go on with a trace that another run, or another version, has begun."""
    version = trace.attributes["schema_version"]
    if version != SCHEMA_VERSION:
        raise TraceError(
            f"{trace.path} has schema version {version}: expected {SCHEMA_VERSION} to append to it; "
            "write a new trace; a checkpoint goes on with any"
        )
    for name, value in attributes.items():
        given = decode(encode(name, value))
        if name in trace.attributes and trace.attributes[name] != given:
            raise TraceError(
                f"{trace.path} is a trace of another run, its {name} is {_short(trace.attributes[name])}: "
                f"expected {_short(given)}; write a new trace"
            )


def _rows_before(table: TableReader, steps_done: int) -> int:
    """Return how many rows of a table belong to the first training steps; they come in order."""
    for name, least in (("step", steps_done), ("training_steps", steps_done + 1)):
        if name in table.columns:
            return bisect_left(table.column(name), least, key=int)
    return table.rows


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise TraceError(f"{path} is a symbolic link: expected a file's own name, give what it points to")


def unwritable(path: Path, error: OSError) -> TraceError:
    """Return what to raise where the operating system does not let us write."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return TraceError(f"cannot write {path}: its folder is a file: expected a folder or nothing there")
    return TraceError(f"cannot write {path}: {error.strerror or error}")
