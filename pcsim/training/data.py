"""Data sets as plain arrays, and the mini-batches of an epoch.

Samples stay as they were read (uint8 or floats); a batch is scaled to [0, 1] when it is taken, so that a set
costs the memory of its file and not eight times as much.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pcsim.errors import ConfigurationError, DataError, nearest
from pcsim.training.idx import FASHION_REMEDY, read_idx

Array = NDArray[Any]
Rows = NDArray[np.intp]
Split = Literal["train", "test"]
Target = Literal["label", "input"]

NAMES = ("digits", "fashion-mnist", "npz")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES, FASHION_SIDE, FASHION_LIMIT = 10, 28, 70_000
# Anything above is an identifier and no class; it also keeps uint64 from wrapping when it becomes int64.
LARGEST_LABEL = 2**31 - 1
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set.

    Attributes:
        name: name of the set, for messages.
        train_inputs: (samples, features), uint8 or float.
        train_targets: labels (samples,) int64, or values (samples, outputs) float.
        test_inputs: as train_inputs.
        test_targets: as train_targets.
        scale: what a batch of inputs is multiplied by, to lie in [0, 1].
        classes: number of classes; 0 where the targets are values or the inputs themselves.
        target: "label" to learn the targets; "input" for an autoencoder, which leaves them unused.
    """

    name: str
    train_inputs: Array
    train_targets: Array
    test_inputs: Array
    test_targets: Array
    scale: float
    classes: int
    target: Target = "label"

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
        source = self.train_inputs if split == "train" else self.test_inputs
        return np.multiply(source[rows], self.scale, dtype=dtype, casting="same_kind")

    def targets(self, rows: Rows, dtype: DTypeLike, split: Split = "train") -> Array:
        """Targets (len(rows), outputs): one-hot classes, values, or x * 0.99 + 0.005 for an autoencoder."""
        if self.target == "input":
            # Off the ends of [0, 1], where the sigmoid's cross-entropy is infinite.
            images = self.inputs(rows, dtype, split)
            images *= 0.99
            images += 0.005
            return images
        source = (self.train_targets if split == "train" else self.test_targets)[rows]
        if not self.classes:
            return source.astype(dtype)
        hot = np.zeros((len(rows), self.classes), dtype)
        hot[np.arange(len(rows)), source] = 1
        return hot


def check_batch(dataset: Dataset, batch: int) -> None:
    """Refuse a mini-batch that the training set cannot fill.

    Raises:
        DataError: fewer training samples than one mini-batch.
    """
    samples = len(dataset.train_inputs)
    if not 1 <= batch <= samples:
        raise DataError(
            f"{dataset.name}: mini-batch of {batch} from {samples} training samples: "
            f"expected 1 to {samples}; change training.batch"
        )


def epoch_rows(dataset: Dataset, batch: int, rng: np.random.Generator, shuffle: bool) -> Rows:
    """Which training samples each mini-batch of an epoch takes: (batches, batch), a last short one dropped.

    Raises:
        DataError: fewer training samples than one mini-batch.
    """
    check_batch(dataset, batch)
    samples = len(dataset.train_inputs)
    order = rng.permutation(samples) if shuffle else np.arange(samples)
    return order[: samples - samples % batch].reshape(-1, batch)


def batches(
    dataset: Dataset, batch: int, rng: np.random.Generator, shuffle: bool, dtype: DTypeLike
) -> Iterator[tuple[Array, Array]]:
    """The mini-batches of one epoch: pairs of inputs (batch, features) and targets (batch, outputs).

    The order is drawn at the call, not while iterating: what else uses `rng` meanwhile cannot change it.

    Raises:
        DataError: fewer training samples than one mini-batch, at the call.
    """
    plan = epoch_rows(dataset, batch, rng, shuffle)
    return ((dataset.inputs(rows, dtype), dataset.targets(rows, dtype)) for rows in plan)


def load_dataset(
    name: str,
    *,
    path: str | os.PathLike[str] | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    target: Target = "label",
) -> Dataset:
    """Read a data set and check every value that could spoil a run later.

    Args:
        name: "digits" (scikit-learn's 8x8 images), "fashion-mnist" (IDX files) or "npz" (own arrays
            x_train, y_train, x_test, y_test; uint8 inputs are scaled by 1/255, floats are taken as they are).
        path: folder of the IDX files, or the .npz file.
        test_fraction: share of digits kept for testing, of each class; the other sets have their own split.
        split_seed: seed of that split.
        target: "label", or "input" for an autoencoder.

    Raises:
        ConfigurationError: no such name or target, a test_fraction outside (0, 1), or no path for "npz".
        DataError: files missing or damaged, or arrays with unusable shapes or values.
    """
    if target not in ("label", "input"):
        raise ConfigurationError(f"target {target!r}: expected 'label' or 'input'")
    if name == "digits":
        return _digits(test_fraction, split_seed, target)
    if name == "fashion-mnist":
        return _fashion_mnist(_fashion_folder(path), target)
    if name != "npz":
        raise ConfigurationError(f"data set '{name}': {nearest(name, NAMES)}")
    if path is None:
        raise ConfigurationError("data set 'npz' without a path: expected the .npz file; set data.path")
    return _npz(Path(path), target)


def _digits(test_fraction: float, split_seed: int, target: Target) -> Dataset:
    """The digits that come with scikit-learn: 1797 images of 64 pixels from 0 to 16."""
    if not 0 < test_fraction < 1:
        raise ConfigurationError(f"test_fraction {test_fraction}: expected a number between 0 and 1")
    # Imported here: scikit-learn takes a second, and only this set needs it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = _stratified_split(labels, test_fraction, np.random.default_rng(split_seed))
    inputs, classes = images.astype(np.uint8), labels.astype(np.int64)
    (x_train, y_train), (x_test, y_test) = ((inputs[part], classes[part]) for part in rows)
    return Dataset("digits", x_train, y_train, x_test, y_test, 1 / 16, *_classes(10, target))


def _classes(classes: int, target: Target) -> tuple[int, Target]:
    """The last two fields of a `Dataset`: an autoencoder has no classes."""
    return (classes if target == "label" else 0), target


def _stratified_split(labels: Array, test_fraction: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows for training and for testing, in rising order, with at least one of each class in both."""
    test = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[: min(max(round(test_fraction * len(members)), 1), len(members) - 1)])
    chosen = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _fashion_folder(path: str | os.PathLike[str] | None) -> Path:
    """The given folder, else the first that exists of $PCSIM_DATA/fashion-mnist and Debian's."""
    if path is not None:
        places = [Path(path)]
    elif root := os.environ.get("PCSIM_DATA"):
        places = [Path(root) / "fashion-mnist", DEBIAN_FOLDER]
    else:
        places = [DEBIAN_FOLDER]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(f"fashion-mnist: no folder {' or '.join(map(str, places))}: {FASHION_REMEDY}")


def _fashion_mnist(folder: Path, target: Target) -> Dataset:
    """Zalando's 28x28 images of clothes, ten classes, in the four IDX files of MNIST."""
    (x_train, y_train), (x_test, y_test) = (_fashion_part(folder, prefix) for prefix in ("train", "t10k"))
    classes = _classes(FASHION_CLASSES, target)
    return Dataset("fashion-mnist", x_train, y_train, x_test, y_test, 1 / 255, *classes)


def _fashion_part(folder: Path, prefix: str) -> tuple[Array, Array]:
    """Images (samples, 784) and labels (samples,) of one of the two halves."""
    image_file = _idx_file(folder, f"{prefix}-images-idx3-ubyte")
    label_file = _idx_file(folder, f"{prefix}-labels-idx1-ubyte")
    images = read_idx(image_file, (FASHION_SIDE, FASHION_SIDE), FASHION_LIMIT)
    labels = _labels(f"{label_file}: label", read_idx(label_file, (), FASHION_LIMIT), FASHION_CLASSES)
    _same_length(str(image_file), images, str(label_file), labels)
    return images.reshape(len(images), -1), labels


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"fashion-mnist: no file {folder / name}, nor with .gz: {FASHION_REMEDY}")


def _npz(path: Path, target: Target) -> Dataset:
    """A user's own arrays."""
    arrays = _archive(path)
    where = {key: f"{path}: {key}" for key in ARRAYS}
    x_train, x_test = (_inputs(where[key], arrays[key]) for key in ("x_train", "x_test"))
    _same_width(where["x_test"], x_train, x_test)
    if (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
        raise DataError(f"{where['x_test']} is {x_test.dtype}: expected {x_train.dtype}, as for training")
    if arrays["y_train"].ndim == 2:
        y_train, y_test = (_values(where[key], arrays[key]) for key in ("y_train", "y_test"))
        _same_width(where["y_test"], y_train, y_test)
        classes = 0
    else:
        y_train = _labels(where["y_train"], arrays["y_train"], LARGEST_LABEL)
        classes = int(y_train.max(initial=0)) + 1
        y_test = _labels(where["y_test"], arrays["y_test"], classes)
    _same_length(where["x_train"], x_train, "y_train", y_train)
    _same_length(where["x_test"], x_test, "y_test", y_test)
    scale = 1 / 255 if x_train.dtype == np.uint8 else 1.0
    return Dataset(path.stem, x_train, y_train, x_test, y_test, scale, *_classes(classes, target))


def _archive(path: Path) -> dict[str, Array]:
    """Read the four arrays of an .npz file, without ever unpickling anything."""
    if not path.is_file():
        raise DataError(f"{path}: no such file: expected a NumPy .npz archive; set data.path")
    key = "archive"
    arrays: dict[str, Array] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            known = list(archive.files)
            for key in ARRAYS:
                if key not in known:
                    raise DataError(
                        f"{path}: no array {key}: expected {', '.join(ARRAYS)}; {nearest(key, known)}"
                    )
                arrays[key] = np.asarray(archive[key])
    except DataError:
        raise
    # NumPy, zipfile and zlib raise a dozen unrelated types on what is damaged or hostile.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: {key}: cannot be read ({reason}): expected plain numeric arrays in a .npz archive"
        ) from None
    return arrays


def _inputs(where: str, array: Array) -> Array:
    """Inputs (samples, features): uint8, or floats that stay finite in float32."""
    if array.dtype != np.uint8 and not _is_float(array):
        raise DataError(f"{where} is {array.dtype}: expected uint8 or float")
    if array.ndim < 2 or 0 in array.shape:
        raise DataError(f"{where} has shape {array.shape}: expected (samples, features, ...), none of them 0")
    if array.dtype != np.uint8:
        _refuse_not_finite(where, array)
    return array.reshape(len(array), -1)


def _values(where: str, array: Array) -> Array:
    """Targets of a regression (samples, outputs)."""
    if not _is_float(array) or array.ndim != 2 or not array.shape[1]:
        raise DataError(f"{where} is {array.dtype} {array.shape}: expected floats (samples, outputs)")
    _refuse_not_finite(where, array)
    return array


def _labels(where: str, array: Array, classes: int) -> Array:
    """Labels (samples,) as int64; floats are accepted if every one is a whole number."""
    if array.dtype.kind not in "iuf" or array.ndim != 1:
        raise DataError(
            f"{where} is {array.dtype} {array.shape}: expected integer labels (samples,), "
            "or float targets (samples, outputs)"
        )
    # float16 cannot hold the limit; and written so that NaN fails too.
    labels = array.astype(np.float64) if array.dtype.kind == "f" else array
    good = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
    _refuse(where, array, ~good, f"a whole number from 0 to {classes - 1}")
    return array.astype(np.int64)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" and array.dtype.itemsize <= 8


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


def _same_length(where: str, inputs: Array, name: str, targets: Array) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"{where} has {len(inputs)} samples and {name} {len(targets)}: expected as many")


def _same_width(where: str, train: Array, test: Array) -> None:
    if test.shape[1] != train.shape[1]:
        raise DataError(f"{where} has {test.shape[1]} columns: expected {train.shape[1]}, as for training")
