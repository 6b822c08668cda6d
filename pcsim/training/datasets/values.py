"""Checks of values that could spoil a run later: each names the first wrong entry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.errors import DataError

Array = NDArray[Any]
# Anything above is an identifier and no class: one label decides how wide all one-hot targets are. It also
# keeps uint64 from wrapping when it becomes int64.
LARGEST_LABEL = 2**20


def inputs(where: str, array: Array) -> Array:
    """Inputs (samples, features): uint8, or floats that stay finite in float32."""
    if array.dtype != np.uint8 and not is_float(array):
        raise DataError(f"{where} is {array.dtype}: expected uint8 or float")
    if array.ndim < 2 or 0 in array.shape:
        raise DataError(f"{where} has shape {array.shape}: expected (samples, features, ...), none of them 0")
    if array.dtype != np.uint8:
        _refuse_not_finite(where, array)
    return array.reshape(len(array), -1)


def values(where: str, array: Array) -> Array:
    """Targets of a regression (samples, outputs)."""
    if not is_float(array) or array.ndim != 2 or not array.shape[1]:
        raise DataError(
            f"{where} is {array.dtype} {array.shape}: expected floats (samples, outputs), or integer "
            "labels (samples,)"
        )
    _refuse_not_finite(where, array)
    return array


def labels(where: str, array: Array, classes: int) -> Array:
    """Labels (samples,) as int64; floats are accepted if every one is a whole number."""
    if array.dtype.kind not in "iuf" or array.ndim != 1:
        raise DataError(
            f"{where} is {array.dtype} {array.shape}: expected integer labels (samples,), "
            "or float targets (samples, outputs)"
        )
    # float16 cannot hold the limit; and written so that NaN fails too.
    numbers = array.astype(np.float64) if array.dtype.kind == "f" else array
    good = (numbers >= 0) & (numbers < classes) & (numbers == np.floor(numbers))
    _refuse(where, array, ~good, f"a whole number from 0 to {classes - 1}")
    return array.astype(np.int64)


def is_float(array: Array) -> bool:
    """Whether an array holds float16, float32 or float64."""
    return array.dtype.kind == "f" and array.dtype.itemsize <= 8


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Shape (channels, height, width) of a sample of this shape; None if it is no image."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def same_length(where: str, inputs: Array, name: str, targets: Array) -> None:
    """Refuse inputs and targets of different numbers of samples."""
    if len(inputs) != len(targets):
        raise DataError(f"{where} has {len(inputs)} samples and {name} {len(targets)}: expected as many")


def same_width(where: str, train: Array, test: Array) -> None:
    """Refuse a test set whose rows have another length than those of the training set."""
    if test.shape[1] != train.shape[1]:
        raise DataError(f"{where} has {test.shape[1]} columns: expected {train.shape[1]}, as for training")


def _refuse_not_finite(where: str, array: Array) -> None:
    # float32's limit and not isfinite: a larger float64 becomes infinite when a float32 network reads it.
    _refuse(
        where, array, ~(np.abs(array) <= np.finfo(np.float32).max), "a finite number in the range of float32"
    )


def _refuse(where: str, array: Array, wrong: NDArray[np.bool_], expected: str) -> None:
    """Name the first wrong entry of an array."""
    if wrong.any():
        index = np.unravel_index(int(wrong.argmax()), array.shape)
        place = ", ".join(str(int(one)) for one in index)
        raise DataError(f"{where}[{place}] = {array[index].item()}: expected {expected}")
