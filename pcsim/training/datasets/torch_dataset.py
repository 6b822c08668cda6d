"""Samples of a torch Dataset or DataLoader as arrays. Tensors, images are read through NumPy, not torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pcsim.errors import DataError
from pcsim.training.datasets import values

Array = NDArray[Any]


@runtime_checkable
class Loader(Protocol):
    """What a DataLoader offers: mini-batches, and the Dataset that they come from."""

    @property
    def dataset(self) -> Any:  # noqa: ANN401 - whatever it loads from
        """Where the samples come from."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Mini-batches (samples, targets)."""
        ...


@runtime_checkable
class MapStyle(Protocol):
    """What a map-style Dataset offers."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401 - whatever the data set gives
        """Pair (sample, target)."""
        ...


def stack(source: MapStyle | Loader, where: str) -> tuple[Array, Array, tuple[int, int, int] | None]:
    """Read every sample once; of a DataLoader in the order, and through the functions, that it has.

    Returns:
        Inputs (samples, features), labels (samples,) or values (samples, outputs), and the shape
        (channels, height, width) of a sample, or None.

    Raises:
        DataError: neither map-style nor a DataLoader, or empty; or a sample of an unusable type, or of
            another type or shape than the first.
    """
    samples = source if isinstance(source, MapStyle) else _samples(source, where)
    if not len(samples):
        raise DataError(f"{where} is empty: expected at least one sample")
    first, target = _pair(samples, 0, where)
    inputs, targets = (np.empty((len(samples), *one.shape), one.dtype) for one in (first, target))
    for index in range(len(samples)):
        pair = _pair(samples, index, where)
        for one, rows, kind in zip(pair, (inputs, targets), ("sample", "target"), strict=True):
            if one.shape != rows.shape[1:] or one.dtype != rows.dtype:
                raise DataError(
                    f"{where}[{index}]: {kind} is {one.dtype} {one.shape}: "
                    f"expected {rows.dtype} {rows.shape[1:]}, as in {where}[0]"
                )
            rows[index] = one
    if targets.ndim > 1 or targets.dtype.kind == "f":
        targets = values.values(f"{where} targets", targets.reshape(len(targets), -1))
    flat = values.inputs(f"{where} samples", inputs if inputs.ndim > 1 else inputs[:, None])
    return flat, targets, values.image_shape(first.shape)


def _samples(loader: Loader, where: str) -> Sequence[tuple[Any, Any]]:
    """Take the mini-batches of a loader apart into pairs; tensors are views of their mini-batch."""
    # torch's Dataset base class has __getitem__ but not __len__; an iterable one lacks both.
    if not isinstance(loader, Loader):
        kind = type(loader).__name__
        raise DataError(f"{where} is a {kind}: expected a Dataset with len() and [index], or a DataLoader")
    pairs: list[tuple[Any, Any]] = []
    for index, batch in enumerate(loader):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            kind = type(batch).__name__
            raise DataError(f"{where}, mini-batch {index}, is a {kind}: expected a pair (samples, targets)")
        samples, targets = batch
        if not (hasattr(samples, "__len__") and hasattr(targets, "__len__") and len(samples) == len(targets)):
            raise DataError(f"{where}, mini-batch {index}: expected as many targets as samples")
        pairs.extend(zip(samples, targets, strict=True))
    return pairs


def _pair(samples: MapStyle, index: int, where: str) -> tuple[Array, Array]:
    """Sample and target at an index; errors of the data set itself pass unchanged."""
    item = samples[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}[{index}] is a {type(item).__name__}: expected a pair (sample, target)")
    try:
        sample, target = (np.asarray(one) for one in item)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{where}[{index}]: no array ({reason}): expected tensors or arrays") from None
    # A PIL image has its channels last, a tensor first.
    return (
        sample.transpose(2, 0, 1) if hasattr(item[0], "getbands") and sample.ndim == 3 else sample
    ), target
