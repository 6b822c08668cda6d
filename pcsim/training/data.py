"""Data sets by name, and the mini-batches of an epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from pcsim.errors import ConfigurationError, DataError, nearest
from pcsim.places import at_home
from pcsim.training.dataset import Array, Dataset, Rows, Split, Target
from pcsim.training.datasets.digits import read_digits
from pcsim.training.datasets.npz import check_npz, read_npz
from pcsim.training.datasets.registry import DEBIAN_FOLDER, KNOWN, NAMES, data_root
from pcsim.training.datasets.split import stratified_split

__all__ = [
    "DEBIAN_FOLDER",
    "NAMES",
    "Array",
    "Dataset",
    "Rows",
    "Split",
    "Target",
    "batches",
    "check_batch",
    "check_place",
    "epoch_rows",
    "hold_out",
    "load_dataset",
]


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
    directory: str | os.PathLike[str] | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    target: Target = "label",
    validation_fraction: float = 0.0,
) -> Dataset:
    """Read a data set and check every value that could spoil a run later.

    Where it looks: at `path`, if given, and nowhere else; otherwise in the folder NAME of `directory`, or of
    $PCSIM_DATA if that is not given either, or of ~/.cache/pcsim/data; at last where a system package puts
    the set.

    Args:
        name: "digits" (scikit-learn's 8x8 images), "fashion-mnist", "mnist", "cifar-10", "svhn",
            "tiny-imagenet", or "npz" (own arrays x_train, y_train, x_test, y_test; see `read_npz`).
        path: the set's own folder or archive, or the .npz file.
        directory: folder with a folder for each set.
        test_fraction: share of digits kept for testing, of each class; the other sets have their own split.
        split_seed: seed of that split, and of the validation set's.
        target: "label", or "input" for an autoencoder.
        validation_fraction: share of the training samples to hold out, of each class; see `hold_out`.

    Raises:
        ConfigurationError: no such name or target, a fraction outside (0, 1), or no path for "npz".
        DataError: files missing or damaged, or arrays with unusable shapes or values.
    """
    if target not in ("label", "input"):
        raise ConfigurationError(f"target {target!r}: expected 'label' or 'input'")
    try:
        dataset = _load(name, path, directory, test_fraction, split_seed)
    except OSError as error:
        raise DataError(f"data set {name}: {error}: expected files that can be read; set data.path") from None
    if validation_fraction:
        dataset = hold_out(dataset, validation_fraction, split_seed)
    return dataset if target == "label" else replace(dataset, target=target, classes=0)


def check_place(
    name: str, *, path: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] | None = None
) -> None:
    """Look whether a data set's files are there, without reading them.

    Args:
        name: as in `load_dataset`.
        path: as in `load_dataset`; given for "npz".
        directory: as in `load_dataset`.

    Raises:
        DataError: they are not, and how to get them.
    """
    if name in KNOWN:
        KNOWN[name].locate(path, data_root(directory))
    elif name == "npz" and path is not None:
        check_npz(at_home(path))


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Return a data set with a part of its training samples as a validation set.

    Of each class the same share; the test set stays as it is. The name says so, as a run on fewer samples
    is another run.

    Args:
        dataset: has no validation set yet.
        fraction: of the training samples, between 0 and 1.
        seed: of the choice, which is the same for all runs.

    Raises:
        ConfigurationError: a fraction outside (0, 1).
        DataError: too few samples for both sets.
    """
    if not 0 < fraction < 1:
        raise ConfigurationError(f"validation_fraction {fraction}: expected a number between 0 and 1")
    samples, rng = len(dataset.train_inputs), np.random.default_rng([seed, 1])  # not the test split's stream
    classes = dataset.train_targets if dataset.classes else np.zeros(samples)
    kept, held = stratified_split(classes, fraction, rng)
    if not len(held):
        raise DataError(f"{dataset.name} has one training sample a class: expected more to hold some out")
    return replace(
        dataset,
        name=f"{dataset.name}, {len(held)} training samples held out with seed {seed}",
        train_inputs=dataset.train_inputs[kept],
        train_targets=dataset.train_targets[kept],
        validation_inputs=dataset.train_inputs[held],
        validation_targets=dataset.train_targets[held],
    )


def _load(
    name: str,
    path: str | os.PathLike[str] | None,
    directory: str | os.PathLike[str] | None,
    test_fraction: float,
    split_seed: int,
) -> Dataset:
    if name == "digits":
        return read_digits(test_fraction, split_seed)
    if name in KNOWN:
        return KNOWN[name].load(path, data_root(directory))
    if name != "npz":
        raise ConfigurationError(f"data set '{name}': {nearest(name, NAMES)}")
    if path is None:
        raise ConfigurationError("data set 'npz' without a path: expected the .npz file; set data.path")
    return read_npz(at_home(path))
