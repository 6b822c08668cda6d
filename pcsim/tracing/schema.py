"""What a trace is made of: root attributes, columns, coordinates, chunks, the netCDF4 conventions.

Nothing here touches a file. `writer` and `reader` share these definitions; `traces/README.md` states them for
users.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pcsim.errors import TraceError

FORMAT = "pcsim-trace"
SCHEMA_VERSION = 4

# A dimension's values, or only its size: such a dimension has no coordinate variable.
Coordinate: TypeAlias = ArrayLike | int
Attribute: TypeAlias = str | int | float

# netCDF's name for a scale that only gives a dimension its size (netCDF-4 file format, dimension scales).
SIZE_ONLY = "This is a netCDF dimension but not a netCDF variable."
# Attribute of a group that is a table: the name of the dimension that its rows extend.
UNLIMITED_ATTRIBUTE = "unlimited_dimension"

CHUNK_BYTES = 2**20
UNKNOWN_CHUNK_BYTES = 2**16
MOST_CHUNK_ROWS = 65_536
# Chunks of compressed columns are full sooner: only what is full when it is first written gets compressed.
MOST_COMPRESSED_ROWS = 4096
SINGLE_ROW_BYTES = 2**11
MOST_FLAGS = 2**14  # of a column: HDF5 has 64 KiB for an attribute, here `flag_values`


@dataclass(frozen=True)
class Column:
    """One quantity of a table.

    Attributes:
        dims: names of the dimensions after the table's unlimited one, e.g. `("iteration", "layer")`.
        dtype: NumPy name of the numbers' type, e.g. `"float32"`.
        description: what it is, in words (CF `long_name`).
        units: CF `units`; empty if it has none.
        flags: for a column of codes, the meaning of 0, 1, 2, … (CF `flag_values`, `flag_meanings`); words
            without blanks.
    """

    dims: tuple[str, ...]
    dtype: str
    description: str
    units: str = ""
    flags: tuple[str, ...] = ()

    @classmethod
    def of_codes(cls, description: str, flags: tuple[str, ...]) -> Self:
        """Return a column of codes, of the smallest signed type that has one for each word."""
        return cls((), np.min_scalar_type(-len(flags)).name, description, flags=flags)

    def attributes(self) -> dict[str, Any]:
        """Return the CF attributes that say this in the file."""
        attributes: dict[str, Any] = {"long_name": self.description}
        if self.units:
            attributes["units"] = self.units
        if self.flags:
            attributes["flag_values"] = np.arange(len(self.flags), dtype=self.dtype)
            attributes["flag_meanings"] = " ".join(self.flags)
        return attributes


def flags_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the meanings of the codes 0, 1, 2, … from a column's attributes; empty if it holds no codes."""
    meanings = str(attributes.get("flag_meanings", ""))
    return tuple(meanings.split(" ")) if meanings else ()


def first_attributes(attributes: Mapping[str, object]) -> dict[str, Attribute]:
    """Return the root attributes of a trace that begins now: pcsim's own and the caller's, encoded."""
    try:
        version = importlib.metadata.version("pcsim")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    own: dict[str, Attribute] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pcsim_version": version,
        "state": "running",
    }
    return own | {name: encode(name, value) for name, value in attributes.items()}


def encode(name: str, value: object) -> Attribute:
    """Return an attribute's value as stored: text and numbers as they are, all else as JSON text.

    A text that `decode` would take for such JSON becomes JSON itself, in quotes.

    Raises:
        TraceError: the value cannot be written as JSON.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) or (isinstance(value, str) and _parsed(value) is value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _fits(value):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise TraceError(f"attribute '{name}': expected something that JSON can say, {error}") from error


def decode(value: object) -> object:
    """Return an attribute's value as given to the writer: JSON text parsed, numbers as Python's own."""
    value = plain(value)
    return _parsed(value) if isinstance(value, str) else value


def plain(value: object) -> object:
    """Return text and numbers as Python's own."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


def _parsed(text: str) -> object:
    """Return what JSON says that `encode` may have written; any other text as it is, the same object.

    A text in quotes or of digits only is JSON of ours if it could not have been written without.
    """
    number = text.removeprefix("-").isdecimal()
    if not (number or text[:1] in ("{", "[", '"') or text in ("true", "false", "null")):
        return text
    try:
        said: object = json.loads(text)
        ours = not _fits(said) if number else not isinstance(said, str) or _parsed(said) is not said
    except (ValueError, RecursionError):
        return text
    return said if ours else text


def _fits(number: object) -> bool:
    """Whether HDF5 has a whole number for it."""
    return isinstance(number, int) and -(2**63) <= number < 2**63


def chunk_shape(
    shape: Sequence[int],
    dtype: str,
    expected_rows: int | None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    compressed: bool = False,
) -> tuple[int, ...]:
    """Return a chunk's shape, (rows, *shape) or a part of it.

    A chunk is stored whole, so that a few rows in large chunks would be mostly air.

    Args:
        shape: one row's shape.
        dtype: NumPy name of the numbers' type.
        expected_rows: about how many rows will come; None if nobody knows, which makes chunks of 64 KiB
            and 1,024 rows at most, or one row if that is larger.
        chunk_bytes: of a chunk at most; it has at most 65,536 rows.
        compressed: smaller chunks, of 64 KiB and 4,096 rows at most, and of one row from 2 KiB on.
    """
    room = max(1, chunk_bytes // np.dtype(dtype).itemsize)
    inner: list[int] = []
    for size in reversed(shape):
        inner.insert(0, max(1, min(size, room)))
        room //= inner[0]
    whole = math.prod(inner) == math.prod(shape)
    row_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not whole or (compressed and row_bytes >= SINGLE_ROW_BYTES):
        return (1, *inner)
    most = MOST_COMPRESSED_ROWS if compressed else MOST_CHUNK_ROWS
    if expected_rows is None or compressed:
        room = min(room, UNKNOWN_CHUNK_BYTES // row_bytes)
    rows = min(room, most, 1024 if expected_rows is None else expected_rows)
    return (max(1, rows), *inner)


def check_table(
    name: str, unlimited: str, columns: Mapping[str, Column], coordinates: Mapping[str, Coordinate]
) -> None:
    """Refuse a table that could not be written, or that netCDF readers would not understand.

    Raises:
        TraceError: says which column or dimension, and what was expected.
    """
    if unlimited in coordinates:
        raise TraceError(f"table '{name}': '{unlimited}' is unlimited: expected no coordinate of that name")
    if not columns:
        raise TraceError(f"table '{name}' has no columns: expected at least one")
    for title, column in columns.items():
        where = f"table '{name}', column '{title}'"
        if title in coordinates or "/" in title:
            raise TraceError(f"{where}: expected a name without '/' that is not also a coordinate's")
        if title == unlimited and column.dims:
            raise TraceError(f"{where}: expected no further dimensions, it is the unlimited one's coordinate")
        if len(set(column.dims)) != len(column.dims) or unlimited in column.dims:
            raise TraceError(f"{where}: dimensions {column.dims} repeat: expected each once")
        if missing := [dim for dim in column.dims if dim not in coordinates]:
            raise TraceError(f"{where}: no size for '{missing[0]}': add it to coordinates")
        if bad := [flag for flag in column.flags if flag.split() != [flag]]:
            raise TraceError(f"{where}: expected flags that are words without blanks, got {bad[0]!r}")
        if column.flags:
            _check_room(where, column)


def _check_room(where: str, column: Column) -> None:
    """Refuse more codes than a column's type, or its attributes, can hold."""
    whole = np.dtype(column.dtype).kind in "iu"
    most = min(MOST_FLAGS, np.iinfo(column.dtype).max + 1) if whole else 0
    if len(column.flags) > most:
        raise TraceError(f"{where}: {len(column.flags)} flags: expected at most {most} of {column.dtype}")
