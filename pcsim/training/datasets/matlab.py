"""Numeric arrays from MATLAB's .mat files, version 5 to 7: a strict reader for files that may be hostile.

SciPy's reader allocates whatever a tag declares, up to 4 GB, before it looks for that many bytes; here each
declared size is first compared with what is there. SciPy is what the tests compare with.

Source: MathWorks, "MAT-File Format", Level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcsim.errors import DataError
from pcsim.training.datasets.files import read_file

HEADER = 128
MATRIX, COMPRESSED, INT32, UINT32, COMPLEX = 14, 15, 5, 6, 0x0800
MOST_VARIABLES = 16
# Types in which numbers are stored: the smallest that holds them, whatever MATLAB takes them for.
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC = range(6, 16)  # MATLAB's classes from double to uint64


class _Element(NamedTuple):
    """A typed run of bytes."""

    kind: int
    content: memoryview


def read_matlab(path: Path, names: Collection[str], limit: int) -> dict[str, NDArray[Any]]:
    """Read numeric arrays of a .mat file.

    Args:
        path: the file.
        names: of the variables wanted; others are skipped.
        limit: most bytes of the file, and of a variable after decompression.

    Returns:
        Read-only arrays in MATLAB's order (the first index runs fastest) and in the type in which they are
        stored, as far as they are there among the first 16 variables.

    Raises:
        DataError: damaged, another version, no numbers, or larger than the limit.
    """
    data = memoryview(read_file(path, limit))
    endian = bytes(data[126:HEADER])
    if endian not in (b"IM", b"MI"):
        raise DataError(f"{path}: no MATLAB file of version 5 to 7: expected one with numeric arrays")
    order = "<" if endian == b"IM" else ">"
    found: dict[str, NDArray[Any]] = {}
    at = HEADER
    for _ in range(MOST_VARIABLES):
        if at == len(data):
            break
        element, at = _element(data, at, order, str(path), padded=False)
        if element.kind == COMPRESSED:
            unpacked = memoryview(_decompress(element.content, limit, str(path)))
            element, end = _element(unpacked, 0, order, str(path))
            if end != len(unpacked):
                raise DataError(f"{path}: {len(unpacked)} bytes in a variable of {end}: expected as many")
        if element.kind == MATRIX:
            name, array = _matrix(element.content, order, names, str(path))
            if array is not None:
                found[name] = array
    return found


def _element(data: memoryview, at: int, order: str, where: str, padded: bool = True) -> tuple[_Element, int]:
    """The element that begins at an index, and where the next one begins."""
    if len(data) < at + 8:
        raise DataError(f"{where}: ends within a tag: expected a whole MATLAB file")
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # up to four bytes, which share the tag's eight with their size
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise DataError(f"{where}: a short element of {size} bytes: expected at most 4")
    else:
        start = at + 8
        end = start + size + (-size % 8 if padded and kind not in (MATRIX, COMPRESSED) else 0)
    if start + size > len(data):
        raise DataError(f"{where}: declares {size} bytes where {len(data) - start} follow: expected as many")
    return _Element(kind, data[start : start + size]), min(end, len(data))


def _decompress(packed: memoryview, limit: int, where: str) -> bytes:
    """Unpack a variable, to no more than the limit."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise DataError(f"{where}: damaged ({error}): expected a whole MATLAB file") from None
    if len(unpacked) > limit:
        raise DataError(f"{where}: a variable of more than {limit} bytes: expected at most that")
    if not stream.eof:
        raise DataError(f"{where}: a variable ends early: expected a whole MATLAB file")
    return unpacked


def _matrix(
    content: memoryview, order: str, names: Collection[str], where: str
) -> tuple[str, NDArray[Any] | None]:
    """Name and array of a matrix element; no array for a name that nobody wants."""
    flags, at = _element(content, 0, order, where)
    shape, at = _element(content, at, order, where)
    label, at = _element(content, at, order, where)
    name = bytes(label.content).decode("latin-1")
    if name not in names:
        return name, None
    if (flags.kind, len(flags.content), shape.kind) != (UINT32, 8, INT32) or len(shape.content) % 4:
        raise DataError(f"{where}: {name}: damaged: expected flags and a shape")
    (word,) = struct.unpack_from(f"{order}I", flags.content)
    if word & 0xFF not in NUMERIC or word & COMPLEX:
        raise DataError(f"{where}: {name} is of MATLAB's class {word & 0xFF}: expected real numbers")
    real, _ = _element(content, at, order, where)
    if real.kind not in STORED:
        raise DataError(f"{where}: {name} is stored as type {real.kind}: expected a type of numbers")
    sizes = struct.unpack(f"{order}{len(shape.content) // 4}i", shape.content)
    stored = np.dtype(STORED[real.kind]).newbyteorder("little" if order == "<" else "big")
    if (
        len(sizes) > 8
        or min(sizes, default=-1) < 0
        or math.prod(sizes) * stored.itemsize != len(real.content)
    ):
        raise DataError(
            f"{where}: {name} has shape {str(sizes)[:60]} and {len(real.content)} bytes: expected as many"
        )
    return name, np.frombuffer(real.content, stored).reshape(sizes, order="F")
