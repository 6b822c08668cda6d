"""A user's own arrays: a NumPy archive (.npz) with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from pcsim.errors import DataError, nearest
from pcsim.places import from_here
from pcsim.training.dataset import Array, Dataset
from pcsim.training.datasets import values
from pcsim.training.datasets.files import reason

LAYOUT = {
    "x_train": (
        "(samples, features), or images (samples, height, width) or (samples, channels, height, width)",
        "uint8, scaled by 1/255; or floats, taken as they are",
    ),
    "y_train": (
        "(samples,) for classes; (samples, outputs) for values",
        "whole numbers from 0 for classes: labels 0 to 4 are 5 classes; floats for values",
    ),
    "x_test": ("as x_train, with samples of its own", "as x_train"),
    "y_test": ("as y_train, a row a sample of x_test", "as y_train, no label above the largest of y_train"),
}
DEFLATE_RATIO = 1032  # deflate cannot pack better


def read_npz(path: Path) -> Dataset:
    """Read the four arrays of `LAYOUT`.

    Raises:
        DataError: missing, damaged or hostile, or arrays with unusable shapes or values.
    """
    arrays = _arrays(path)
    where = {key: f"{path}: {key}" for key in LAYOUT}
    x_train, x_test = (values.inputs(where[key], arrays[key]) for key in ("x_train", "x_test"))
    values.same_width(where["x_test"], x_train, x_test)
    if (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
        raise DataError(f"{where['x_test']} is {x_test.dtype}: expected {x_train.dtype}, as for training")
    if arrays["y_train"].ndim == 2:
        y_train, y_test = (values.values(where[key], arrays[key]) for key in ("y_train", "y_test"))
        values.same_width(where["y_test"], y_train, y_test)
        classes = 0
    else:
        y_train = values.labels(where["y_train"], arrays["y_train"], values.LARGEST_LABEL)
        classes = int(y_train.max(initial=0)) + 1
        y_test = values.labels(where["y_test"], arrays["y_test"], classes)
    values.same_length(where["x_train"], x_train, "y_train", y_train)
    values.same_length(where["x_test"], x_test, "y_test", y_test)
    scale = 1 / 255 if x_train.dtype == np.uint8 else 1.0
    shape = values.image_shape(arrays["x_train"].shape[1:])
    return Dataset(path.stem, x_train, y_train, x_test, y_test, scale, classes, shape=shape)


def check_npz(path: Path) -> None:
    """Look whether there is such a file.

    Raises:
        DataError: there is none.
    """
    if not path.is_file():
        raise DataError(
            f"{from_here(path)}: no such file: expected a NumPy .npz archive; set data.path, which counts "
            "from the current folder"
        )


def _arrays(path: Path) -> dict[str, Array]:
    """Read the four arrays of an .npz file, without ever unpickling anything."""
    check_npz(path)
    key = "archive"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
            for key in LAYOUT:
                if key not in members:
                    known = [name[:40] for name in members if name.isprintable()][:20]
                    raise DataError(
                        f"{path}: no array {key}: expected {', '.join(LAYOUT)}; {nearest(key, known)}"
                    )
            wanted = {key: members[key] for key in LAYOUT}
            _check_memory(path, wanted)
            arrays = {}
            for key, member in wanted.items():
                arrays[key] = _array(archive, member, f"{path}: {key}")
    except DataError:
        raise
    # NumPy, zipfile and zlib raise a dozen unrelated types on what is damaged or hostile.
    except Exception as error:
        raise DataError(
            f"{path}: {key}: cannot be read ({reason(error)}): "
            "expected plain numeric arrays in a .npz archive"
        ) from None
    return arrays


def _check_memory(path: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse sizes that lie, and arrays that are larger than this machine's memory."""
    there = path.stat().st_size
    for key, member in members.items():
        if member.compress_size > there or member.file_size > DEFLATE_RATIO * member.compress_size + 64:
            raise DataError(
                f"{path}: {key} declares {member.file_size} bytes in {min(member.compress_size, there)}: "
                "expected as many as there are"
            )
    total = sum(member.file_size for member in members.values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > memory:
        raise DataError(f"{path}: arrays of {total} bytes: expected less than this machine's {memory}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray[Any, Any]:
    """Read an array, once its header agrees with the size of its member."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: compressed by method {member.compress_type}: expected deflate or none")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and size != member.file_size - stream.tell():
            raise DataError(
                f"{where} declares {str(shape)[:60]} of {str(dtype)[:20]} where "
                f"{member.file_size - stream.tell()} bytes follow: expected {size}"
            )
    with archive.open(member) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))
