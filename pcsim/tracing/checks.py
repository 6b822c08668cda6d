"""What is read of an HDF5 file that anybody may have written.

HDF5 allows more than a trace needs: links to other files, numbers that lie in other files, groups that
contain themselves, shapes of any size with nothing stored. None of it is followed, and memory follows what
the file holds, not what it declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcsim.errors import TraceError
from pcsim.places import what_is
from pcsim.tracing.schema import FORMAT, SCHEMA_VERSION, SIZE_ONLY, plain

LARGEST_CHUNK = (
    2**27
)  # bytes; pcsim writes up to half of that: a chunk is in memory as a whole while a part of it is read
HEAP_REGION = 2**24  # bytes at the beginning of a file
MOST_HEAP_OBJECTS = 2**18  # a trace has a few for each column
_SIGNATURE, _HEAP, _HEAP_OBJECT = b"\x89HDF\r\n\x1a\n", b"GCOL\1\0\0\0", 16
LARGEST_DIMENSION = 2**26  # of a dimension that has a size and no values


def check_hdf5(path: Path) -> None:
    """Refuse what is missing, out of reach, no file (a pipe would block), or not HDF5."""
    try:
        if path.exists() and not path.is_file():
            raise TraceError(f"{path} is {what_is(path)}: expected a pcsim trace")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}") from error
    if empty:
        raise TraceError(f"{path} is empty: expected a pcsim trace")
    if not h5py.is_hdf5(path):
        raise TraceError(f"{path} is not an HDF5 file: expected a pcsim trace")
    _check_heaps(path)


def _check_heaps(path: Path) -> None:
    """Walk through the heaps that hold text and lists: HDF5 2.0 loops for ever at free space of size 0.

    pcsim writes them at the beginning of a trace; what lies behind `HEAP_REGION` is not looked at.
    Source: HDF5 File Format Specification, III.E, Global Heap.
    """
    with path.open("rb") as file:  # not mapped: a hole of a file on a full disk would end the process
        content = file.read(HEAP_REGION)
    widths = content[13:15] if content[8:9] in (b"\0", b"\1") else content[9:11]
    if content[:8] != _SIGNATURE or widths != b"\x08\x08":
        raise TraceError(f"{path} is HDF5 but not a pcsim trace: expected addresses of 8 bytes from byte 0")
    at, objects, whole = content.find(_HEAP), 0, path.stat().st_size
    while at >= 0:
        found = _heap_objects(content, at, whole)
        objects += found or 0
        if found is None or objects > MOST_HEAP_OBJECTS:  # heaps may lie in each other
            raise TraceError(f"{path} is truncated or damaged: the heap at byte {at}")
        at = content.find(_HEAP, at + 1)


def _heap_objects(content: bytes, heap: int, whole: int) -> int | None:
    """Count the objects of a heap; None if they do not follow each other to its end."""
    at, end = heap + 16, heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
    objects = 0
    if end > whole:
        return None
    while min(end, len(content)) - at >= _HEAP_OBJECT and objects < MOST_HEAP_OBJECTS:
        number = int.from_bytes(content[at : at + 2], "little")
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        # The size of free space, which is object 0, includes its head; others are padded to eight bytes.
        step = _HEAP_OBJECT + size + -size % 8 if number else size
        if step < _HEAP_OBJECT:
            return None
        at, objects = at + step, objects + 1
    return objects if at <= end else None


def check_schema(path: Path, attributes: dict[str, Any]) -> None:
    """Refuse HDF5 files that are not traces, and traces of a schema that this version does not know."""
    if attributes.get("format") != FORMAT:
        raise TraceError(f"{path} is HDF5 but not a pcsim trace: expected the attribute format = '{FORMAT}'")
    version = attributes.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TraceError(f"{path} has schema version {str(version)[:40]!r}: expected a whole number from 1")
    if version > SCHEMA_VERSION:
        raise TraceError(
            f"{path} has schema version {version}, this pcsim reads up to {SCHEMA_VERSION}: "
            "install a newer pcsim"
        )


def attributes_of(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Return an object's attributes that are numbers or text; not those of dimension scales.

    Of other types, such as lists of any length, a damaged one crashes the process (HDF5 2.0).

    Raises:
        TraceError: one of them declares more bytes than the file has.
    """
    found = {}
    for name in item.attrs:
        if name not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
            identifier = item.attrs.get_id(name)
            _check_size(item, f"attribute '{name}'", identifier.shape or (), identifier.dtype.itemsize)
            if _is_plain(identifier.dtype):
                found[name] = plain(item.attrs[name])
    return found


def size_only(dataset: h5py.Dataset) -> bool:
    """Tell a scale that only gives a dimension its size."""
    if "NAME" not in dataset.attrs:
        return False
    identifier = dataset.attrs.get_id("NAME")
    if identifier.dtype.kind != "S" or identifier.shape != ():
        return False
    _check_size(dataset, "attribute 'NAME'", (), identifier.dtype.itemsize)
    return bytes(dataset.attrs["NAME"]).startswith(SIZE_ONLY.encode())


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether these are numbers or text, and not lists, records or references."""
    return h5py.check_string_dtype(dtype) is not None or dtype.kind in "biuf"


def items_of(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Return the groups and datasets that a group itself holds; soft and external links are passed over.

    Raises:
        TraceError: a name that is not text.
    """
    for name in group:
        if not isinstance(name, str):
            raise TraceError(f"{_path(group)} is damaged: a name in '{group.name}' is not text")
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            item = group[name]
            if isinstance(item, h5py.Group | h5py.Dataset):
                yield name, item


def groups_below(
    group: h5py.Group, prefix: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Return each group below a group once, by its path; one that contains itself ends nowhere."""
    seen = {_address(group)} if seen is None else seen
    for name, item in items_of(group):
        if isinstance(item, h5py.Group) and _address(item) not in seen:
            seen.add(_address(item))
            yield prefix + name, item
            yield from groups_below(item, f"{prefix}{name}/", seen)


def check_numbers(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that is no array of plain numbers or text, or that the file does not hold.

    Raises:
        TraceError: says what is wrong.
    """
    where = f"{_path(dataset)}: '{dataset.name.strip('/')}'"
    if dataset.shape is None or not _is_plain(dataset.dtype):
        raise TraceError(f"{where} is of type {str(dataset.dtype)[:40]}: expected numbers or text")
    if dataset.is_virtual or dataset.external:
        raise TraceError(f"{where} lies in another file: expected a trace in one file")
    itemsize = dataset.dtype.itemsize
    if dataset.chunks is None:
        _check_size(dataset, "", dataset.shape, itemsize)
        return
    if math.prod(dataset.chunks) * itemsize > LARGEST_CHUNK:
        raise TraceError(f"{where} has chunks {dataset.chunks}: expected at most {LARGEST_CHUNK} bytes each")
    if math.prod(dataset.shape) * itemsize > _file_bytes(dataset):  # compressed, or not there
        sizes = zip(dataset.shape, dataset.chunks, strict=True)
        needed, there = math.prod(-(-size // chunk) for size, chunk in sizes), dataset.id.get_num_chunks()
        if there < needed:
            raise TraceError(
                f"{where} is damaged: it declares shape {dataset.shape}, {needed} chunks, and holds {there}"
            )


def dimension_names(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of a dataset's dimension scales, one an axis.

    h5py's own way, `dataset.dims`, crashes the process where DIMENSION_LIST is of another type (HDF5 2.0).

    Raises:
        TraceError: there are not as many as axes, or one has another length than its axis.
    """
    where = f"{_path(dataset)} is damaged: '{dataset.name.strip('/')}'"
    identifier = dataset.attrs.get_id("DIMENSION_LIST")
    inner = h5py.check_vlen_dtype(identifier.dtype)
    # As stored: class 9 is a list of any length, its kind 0 a sequence; HDF5 crashes on unknown kinds.
    stored = identifier.get_type().encode()
    if (
        inner is None
        or h5py.check_ref_dtype(inner) is not h5py.Reference
        or stored[2] & 15 != 9
        or stored[3] & 15
    ):
        raise TraceError(f"{where} has no list of dimensions: expected references")
    if identifier.shape != (dataset.ndim,):
        raise TraceError(f"{where} has dimensions for {identifier.shape} axes: expected {dataset.ndim}")
    names = []
    for axis, references in enumerate(np.asarray(dataset.attrs["DIMENSION_LIST"], object)):
        scale = dataset.file[references[0]] if len(references) and references[0] else None
        # The first axis grows, and a killed process may have left it longer in one column than in another.
        if not isinstance(scale, h5py.Dataset) or (axis and scale.shape != (dataset.shape[axis],)):
            raise TraceError(f"{where}, axis {axis}: expected a dimension of its length")
        names.append(str(scale.name).rpartition("/")[2])
    return tuple(names)


def check_dimension(scale: h5py.Dataset) -> None:
    """Refuse a dimension of a size that no run has."""
    if scale.ndim != 1 or len(scale) > LARGEST_DIMENSION:
        raise TraceError(
            f"{_path(scale)}: dimension '{scale.name.strip('/')}' has shape {scale.shape}: "
            f"expected a size of at most {LARGEST_DIMENSION}"
        )


def _check_size(item: h5py.Group | h5py.Dataset, what: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse more bytes than there are in the file."""
    declared, there = math.prod(shape) * itemsize, _file_bytes(item)
    if declared > there:
        where = f"'{item.name.strip('/')}'{what and ', '}{what}"
        raise TraceError(f"{_path(item)} is damaged: {where} declares {declared} bytes in a file of {there}")


def _file_bytes(item: h5py.Group | h5py.Dataset) -> int:
    return int(item.file.id.get_filesize())


def _path(item: h5py.Group | h5py.Dataset) -> str:
    return str(item.file.filename)


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)
