"""scikit-learn's 8x8 digits: 1797 images of 64 pixels from 0 to 16, which come with the library."""

from __future__ import annotations

import numpy as np

from pcsim.errors import ConfigurationError
from pcsim.training.dataset import Dataset
from pcsim.training.datasets.split import stratified_split


def read_digits(test_fraction: float, split_seed: int) -> Dataset:
    """Split the digits into a training and a test set, class by class.

    Args:
        test_fraction: share of each class kept for testing, between 0 and 1.
        split_seed: seed of the split.

    Raises:
        ConfigurationError: a test_fraction outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ConfigurationError(f"test_fraction {test_fraction}: expected a number between 0 and 1")
    # Imported here: scikit-learn takes a second, and only this set needs it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = stratified_split(labels, test_fraction, np.random.default_rng(split_seed))
    inputs, classes = images.astype(np.uint8), labels.astype(np.int64)
    (x_train, y_train), (x_test, y_test) = ((inputs[part], classes[part]) for part in rows)
    return Dataset("digits", x_train, y_train, x_test, y_test, 1 / 16, 10, shape=(1, 8, 8))
