"""A data set as plain arrays.

Samples stay as they were read (uint8 or floats); a batch is scaled to [0, 1] when it is taken, so that a set
costs the memory of its file and not eight times as much.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pcsim.errors import DataError
from pcsim.training.datasets.torch_dataset import Loader, MapStyle, stack
from pcsim.training.datasets.values import LARGEST_LABEL, labels, same_width

Array = NDArray[Any]
Rows = NDArray[np.intp]
Split = Literal["train", "validation", "test"]
Target = Literal["label", "input"]
Shape = tuple[int, int, int]


def _nothing() -> Array:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set, and a validation set where one was held out of the training set.

    Attributes:
        name: name of the set, for messages.
        train_inputs: (samples, features), uint8 or float; images in the order channel, row, column.
        train_targets: labels (samples,) int64, or values (samples, outputs) float.
        test_inputs: as train_inputs.
        test_targets: as train_targets.
        scale: what a batch of inputs is multiplied by, to lie in [0, 1].
        classes: number of classes; 0 where the targets are values or the inputs themselves.
        target: "label" to learn the targets; "input" for an autoencoder, which leaves them unused.
        shape: (channels, height, width) of a sample, or None if samples are no images.
        validation_inputs: as train_inputs; no samples where nothing is held out.
        validation_targets: as train_targets.

    Raises:
        DataError: the shape has another number of values than a sample, or labels are no whole numbers.
    """

    name: str
    train_inputs: Array
    train_targets: Array
    test_inputs: Array
    test_targets: Array
    scale: float
    classes: int
    target: Target = "label"
    shape: Shape | None = None
    validation_inputs: Array = field(default_factory=_nothing)
    validation_targets: Array = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        if self.shape is not None and math.prod(self.shape) != self.features:
            raise DataError(
                f"{self.name}: shape {self.shape} of samples with {self.features} values: "
                f"expected {math.prod(self.shape)} values"
            )

        if self.classes and self.target == "label":
            for name, (_, targets) in self.splits.items():
                if not np.issubdtype(targets.dtype, np.integer):
                    raise DataError(
                        f"{self.name}: {name} labels of type {targets.dtype}: expected whole numbers, as "
                        "from targets.astype(np.int64); classes = 0 learns values"
                    )

    def __repr__(self) -> str:
        """Say how many samples of what, but show none."""
        sets = ", ".join(f"{len(inputs)} {name}" for name, (inputs, _) in self.splits.items())
        return f"Dataset({self.name}; {sets}; {self.features} features, {self.outputs} outputs)"

    @property
    def features(self) -> int:
        """Size that the input layer needs."""
        return int(self.train_inputs.shape[1])

    @property
    def outputs(self) -> int:
        """Size that the output layer needs: classes, values, or, for an autoencoder, features."""
        if self.target == "input":
            return self.features
        return self.classes or int(self.train_targets.shape[1])

    @property
    def splits(self) -> dict[Split, tuple[Array, Array]]:
        """Inputs and targets of the sets that there are."""
        sets: dict[Split, tuple[Array, Array]] = {
            "train": (self.train_inputs, self.train_targets),
            "validation": (self.validation_inputs, self.validation_targets),
            "test": (self.test_inputs, self.test_targets),
        }
        return {name: pair for name, pair in sets.items() if name != "validation" or len(pair[0])}

    def digest(self) -> str:
        """Return a fingerprint of all samples, their split and what is made of them."""
        digest = hashlib.sha256(repr((self.scale, self.classes, self.target, self.shape)).encode())
        for name, pair in self.splits.items():
            for array in pair:
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def target_range(self) -> tuple[float, float]:
        """Smallest and largest value that any target has."""
        if self.target == "input":
            inputs = self.train_inputs
            low, high = (float(end) * self.scale * 0.99 + 0.005 for end in (inputs.min(), inputs.max()))
            return low, high
        if self.classes:
            return 0.0, 1.0
        return float(self.train_targets.min()), float(self.train_targets.max())

    def inputs(self, rows: Rows, dtype: DTypeLike, split: Split = "train") -> Array:
        """Scaled inputs (len(rows), features) of the given rows."""
        return np.multiply(self._part(split)[0][rows], self.scale, dtype=dtype, casting="same_kind")

    def targets(self, rows: Rows, dtype: DTypeLike, split: Split = "train") -> Array:
        """Targets (len(rows), outputs): one-hot classes, values, or x * 0.99 + 0.005 for an autoencoder."""
        if self.target == "input":
            # Off the ends of [0, 1], where the sigmoid's cross-entropy is infinite.
            images = self.inputs(rows, dtype, split)
            images *= 0.99
            images += 0.005
            return images
        source = self._part(split)[1][rows]
        if not self.classes:
            return source.astype(dtype)
        hot = np.zeros((len(rows), self.classes), dtype)
        hot[np.arange(len(rows)), source] = 1
        return hot

    def _part(self, split: Split) -> tuple[Array, Array]:
        """Return the samples of a set that there is.

        Raises:
            DataError: there is none of that name.
        """
        if split not in self.splits:
            raise DataError(f"{self.name}: no {split} samples: known: {', '.join(self.splits)}")
        return self.splits[split]

    @classmethod
    def from_torch(
        cls,
        train: MapStyle | Loader,
        test: MapStyle | Loader,
        *,
        name: str = "torch",
        target: Target = "label",
    ) -> Dataset:
        """Read torch Datasets, or DataLoaders, into memory, each sample once; pcsim itself imports no torch.

        Mini-batches and their order are the experiment's business, whatever a DataLoader makes of them.

        Args:
            train: a DataLoader, or a map-style Dataset: has len() and gives pairs (sample, label) or
                (sample, values) by index. A sample is a PIL image, or a tensor or array of uint8 or floats,
                images as (channels, height, width). uint8 stays uint8 and is scaled by 1/255; floats, such
                as ToTensor's, are taken as they are.
            test: as train.
            name: for messages.
            target: "label", or "input" for an autoencoder.

        Raises:
            DataError: neither of them, or samples that differ in shape or hold unusable values.
        """
        x_train, y_train, shape = stack(train, f"{name}: train")
        x_test, y_test, _ = stack(test, f"{name}: test")
        same_width(f"{name}: test samples", x_train, x_test)
        if x_train.dtype != x_test.dtype or y_train.ndim != y_test.ndim:
            raise DataError(f"{name}: test samples differ in type from training samples: expected the same")
        classes = 0
        if y_train.ndim == 1:
            y_train = labels(f"{name}: train label", y_train, LARGEST_LABEL)
            classes = int(y_train.max()) + 1
            y_test = labels(f"{name}: test label", y_test, classes)
        else:
            same_width(f"{name}: test targets", y_train, y_test)
        scale = 1 / 255 if x_train.dtype == np.uint8 else 1.0
        arrays = x_train, y_train, x_test, y_test
        return cls(name, *arrays, scale, classes if target == "label" else 0, target, shape)
