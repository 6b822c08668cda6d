"""Map-style torch Datasets: real tensors and images, and pcsim without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pcsim import Dataset
from pcsim.errors import DataError


class Pairs:
    """A map-style Dataset without torch: NumPy arrays and whole numbers."""

    def __init__(self, pairs) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def images(count: int, label=lambda index: index % 3, dtype=np.uint8) -> Pairs:
    """Images (2, 4, 5) whose pixels all tell their sample and channel."""
    base = np.arange(2)[:, None, None] + np.zeros((2, 4, 5))
    return Pairs(((base + 10 * index).astype(dtype), label(index)) for index in range(count))


def refused(train, test=None) -> str:
    """The one line with which data sets are refused."""
    with pytest.raises(DataError) as caught:
        Dataset.from_torch(train, images(3) if test is None else test)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_bytes_stay_bytes():
    """uint8 keeps its memory and is scaled a batch at a time."""
    data = Dataset.from_torch(images(6), images(3), name="mine")
    assert (data.name, data.shape, data.classes, data.scale) == ("mine", (2, 4, 5), 3, 1 / 255)
    assert data.train_inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.train_inputs[2], np.repeat([20, 21], 20))
    np.testing.assert_array_equal(data.train_targets, [0, 1, 2, 0, 1, 2])


def test_real_tensors():
    """Torch's TensorDataset with float images, and with values as targets."""
    torch = pytest.importorskip("torch")
    inputs = torch.rand(7, 1, 3, 3)
    train = torch.utils.data.TensorDataset(inputs, torch.tensor([0, 1, 2, 3, 0, 1, 2]))
    data = Dataset.from_torch(train, torch.utils.data.Subset(train, [1, 3]))
    assert (data.shape, data.classes, data.scale) == ((1, 3, 3), 4, 1.0)
    np.testing.assert_array_equal(data.test_inputs, inputs[[1, 3]].reshape(2, 9).numpy())
    values = torch.utils.data.TensorDataset(inputs.reshape(7, 9), torch.rand(7, 2))
    data = Dataset.from_torch(values, values)
    assert (data.shape, data.classes, data.outputs) == (None, 0, 2)
    moved = torch.utils.data.TensorDataset(inputs.clone().requires_grad_(), torch.zeros(7, dtype=torch.int64))
    with pytest.raises(DataError, match="no array"):
        Dataset.from_torch(moved, moved)


def test_data_loaders():
    """A DataLoader gives what its Dataset gives: in any mini-batches, shuffled, the last one short."""
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    train = TensorDataset(torch.rand(7, 1, 3, 3), torch.tensor([0, 1, 2, 3, 0, 1, 2]))
    wanted = Dataset.from_torch(train, train)
    data = Dataset.from_torch(DataLoader(train, batch_size=3), DataLoader(train, batch_size=2, shuffle=True))
    assert (data.shape, data.classes, data.scale) == (wanted.shape, wanted.classes, wanted.scale)
    np.testing.assert_array_equal(data.train_inputs, wanted.train_inputs)
    np.testing.assert_array_equal(data.train_targets, wanted.train_targets)
    rows = sorted(zip(data.test_inputs.tolist(), data.test_targets.tolist()))
    assert rows == sorted(zip(wanted.train_inputs.tolist(), wanted.train_targets.tolist()))

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(np.full((1, 2, 2), index, np.float32), index % 2) for index in range(5)])

    streamed = Dataset.from_torch(DataLoader(Stream(), batch_size=2), DataLoader(Stream(), batch_size=4))
    np.testing.assert_array_equal(streamed.train_inputs[:, 0], range(5))
    np.testing.assert_array_equal(streamed.test_targets, [0, 1, 0, 1, 0])
    unlabelled = DataLoader(TensorDataset(torch.rand(4, 2), torch.zeros(4), torch.zeros(4)), batch_size=2)
    assert "train, mini-batch 0, is a list: expected a pair (samples, targets)" in refused(unlabelled)


def test_pillow_images():
    """Torchvision gives PIL images: (height, width, channel) in memory, channel first in ours."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    pairs = Pairs([(image.fromarray(pixels), 0), (image.fromarray(pixels[::-1].copy()), 1)])
    data = Dataset.from_torch(pairs, pairs)
    assert data.shape == (3, 4, 5)
    np.testing.assert_array_equal(data.train_inputs[0].reshape(3, 4, 5), pixels.transpose(2, 0, 1))
    grey = Pairs([(image.fromarray(pixels[..., 0]), 0)])
    assert Dataset.from_torch(grey, grey).shape == (1, 4, 5)


def test_autoencoder():
    """The samples themselves as targets."""
    data = Dataset.from_torch(images(4), images(3), target="input")
    assert (data.classes, data.outputs) == (0, 40)


def test_unusable_data_sets():
    """One line with the first sample that does not fit."""
    assert "train is a list_iterator: expected a Dataset with len()" in refused(iter([1]))
    assert "train is empty" in refused(Pairs([]))
    assert "train[0] is a int: expected a pair" in refused(Pairs([1]))
    odd = Pairs([*images(2).pairs, (np.zeros((2, 4, 4), np.uint8), 1)])
    assert "train[2]: sample is uint8 (2, 4, 4): expected uint8 (2, 4, 5), as in torch: train[0]" in refused(
        odd
    )
    assert "target is float64 (): expected int64 ()" in refused(images(2, lambda index: [0, 0.5][index]))
    assert "train samples is int64: expected uint8 or float" in refused(images(2, dtype=np.int64))
    assert "train label[1] = -1: expected a whole number" in refused(images(2, lambda index: -index))
    assert "test label[2] = 2: expected a whole number from 0 to 1" in refused(images(2))
    assert "test samples differ in type" in refused(images(3), images(3, dtype=np.float32))
    assert "expected floats (samples, outputs)" in refused(images(2, lambda index: np.zeros(2, int)))
    nan = Pairs([(np.full(3, np.nan), 0)])
    assert "train samples[0, 0] = nan: expected a finite" in refused(nan)
    assert "test samples has 3 columns: expected 40" in refused(
        images(3), Pairs([(np.zeros(3, np.uint8), 0)])
    )


def test_errors_of_the_data_set_pass():
    """A mistake in the user's own class must keep its traceback."""

    class Broken(Pairs):
        def __getitem__(self, index):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Dataset.from_torch(Broken([1]), images(3))


def test_pcsim_stays_free_of_torch():
    """Reading data must not cost the seconds that importing torch takes."""
    code = "import sys; from pcsim.training import data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
