"""Data sets: the arrays and batches that a run gets, and one clear line for whatever is damaged."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import idx, write_mnist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError, DataError, ShapeError
from pcsim.network.network import Network
from pcsim.training.data import DEBIAN_FOLDER, Dataset, batches, check_place, epoch_rows, load_dataset
from pcsim.training.datasets.idx import read_idx
from pcsim.training.datasets.registry import KNOWN, data_root
from pcsim.training.loop import check_fit

RNG = np.random.default_rng


# ------------------------------------------------------------------------------------------ batches


def small(samples: int = 10, **changes) -> Dataset:
    """A set in which every value tells its row."""
    inputs = np.arange(samples * 2, dtype=np.uint8).reshape(samples, 2)
    labels = np.arange(samples) % 3
    fields = {"scale": 1 / 255, "classes": 3, **changes}
    return Dataset("small", inputs, labels, inputs[:4] + 100, labels[:4], **fields)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_scaled_in_the_asked_dtype(dtype):
    """A float64 batch from a float32 scale (or the reverse) would break the golden comparison."""
    batch = small().inputs(np.array([3, 0]), dtype)
    assert batch.dtype == dtype
    np.testing.assert_allclose(batch, np.array([[6, 7], [0, 1]]) / 255, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_become_one_hot(dtype):
    """The output layer is clamped to these rows."""
    hot = small().targets(np.array([5, 0, 1]), dtype)
    assert hot.dtype == dtype
    np.testing.assert_array_equal(hot, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_autoencoder_targets_are_the_shrunk_inputs():
    """The published autoencoders learn x * 0.99 + 0.005; the inputs themselves must stay what they are."""
    data, rows = small(target="input", classes=0), np.array([2, 9])
    np.testing.assert_allclose(data.targets(rows, "float64"), data.inputs(rows, "float64") * 0.99 + 0.005)
    np.testing.assert_array_equal(data.train_inputs[2], [4, 5])
    assert (data.features, data.outputs) == (2, 2)


def test_values_pass_unchanged():
    """Regression targets are neither scaled nor encoded."""
    values = np.array([[0.5, -1.0, 7.0]] * 10)
    data = Dataset("r", np.zeros((10, 2)), values, np.zeros((4, 2)), values[:4], 1.0, 0)
    np.testing.assert_array_equal(data.targets(np.array([1]), "float32"), np.float32([[0.5, -1, 7]]))
    assert data.outputs == 3


def test_test_split_is_another_array():
    """Accuracy measured on the training rows would look splendid and mean nothing."""
    rows = np.array([1])
    np.testing.assert_array_equal(small().inputs(rows, "float64", "test") * 255, [[102, 103]])
    data = Dataset("s", np.zeros((2, 1)), np.array([0, 0]), np.zeros((2, 1)), np.array([1, 1]), 1.0, 2)
    np.testing.assert_array_equal(data.targets(rows, "float64", "test"), [[0, 1]])


@given(samples=st.integers(1, 60), batch=st.integers(1, 60), shuffle=st.booleans())
def test_an_epoch_takes_every_sample_at_most_once(samples, batch, shuffle):
    """No sample twice, only the last short batch dropped, and the file's order without shuffling."""
    if batch > samples:
        with pytest.raises(DataError, match=f"mini-batch of {batch} from {samples} training samples"):
            batches(small(samples), batch, RNG(0), shuffle, "float32")
        return
    rows = epoch_rows(small(samples), batch, RNG(0), shuffle)
    assert rows.shape == (samples // batch, batch)
    assert len(np.unique(rows)) == rows.size
    if not shuffle:
        np.testing.assert_array_equal(rows.ravel(), np.arange(rows.size))


def test_batches_pair_inputs_with_their_own_targets():
    """A shuffle that moves inputs and targets apart still trains, to chance."""
    data = small(9)
    pairs = list(batches(data, 4, RNG(1), True, "float64"))
    assert len(pairs) == 2
    for inputs, targets in pairs:
        rows = np.rint(inputs[:, 0] * 255 / 2).astype(int)
        np.testing.assert_array_equal(targets.argmax(axis=1), rows % 3)


def test_shuffling_follows_the_generator_alone():
    """Same seed, same epoch; the next epoch differs; what draws from the generator later changes nothing."""
    data = small(30)
    first, second = epoch_rows(data, 30, (rng := RNG(5)), True), epoch_rows(data, 30, rng, True)
    assert (first != second).any()
    rng = RNG(5)
    epoch = batches(data, 30, rng, True, "float64")
    rng.random(100)
    np.testing.assert_array_equal(next(epoch)[0], data.inputs(first[0], "float64"))


# ------------------------------------------------------------------------------------------- digits


def test_digits():
    """The demo's set: nothing lost or doubled by the split, in [0, 1], stratified."""
    data = load_dataset("digits")
    assert len(data.train_inputs) + len(data.test_inputs) == 1797
    assert (data.features, data.outputs, data.classes) == (64, 10, 10)
    assert data.train_targets.dtype == data.test_targets.dtype == np.int64
    whole = data.inputs(np.arange(len(data.train_inputs)), "float32")
    assert (whole.min(), whole.max()) == (0, 1)
    counts = np.bincount(np.concatenate([data.train_targets, data.test_targets]))
    np.testing.assert_allclose(np.bincount(data.test_targets) / counts, 0.2, atol=0.5 / counts.min())
    both = np.concatenate([data.train_inputs, data.test_inputs])
    assert len(np.unique(both, axis=0)) == 1797


def test_digits_keep_their_labels():
    """A split that parts images from labels would leave every other property intact, and no accuracy."""
    data = load_dataset("digits")
    images = data.inputs(np.arange(len(data.test_inputs)), "float64", "test")
    train = data.inputs(np.arange(len(data.train_inputs)), "float64")
    means = np.stack([train[data.train_targets == label].mean(axis=0) for label in range(10)])
    nearest = ((images[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == data.test_targets).mean() > 0.85


def test_digits_split_follows_the_seed():
    """Results of two machines are comparable only if the split is the same."""
    first, again, other = (load_dataset("digits", split_seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test_inputs, again.test_inputs)
    assert (first.test_targets != other.test_targets).any() or (first.test_inputs != other.test_inputs).any()


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_extreme_fraction_leaves_a_sample_of_each_class(fraction):
    """An empty half would fail much later, as a division by zero in the accuracy."""
    data = load_dataset("digits", test_fraction=fraction)
    assert set(data.train_targets) == set(data.test_targets) == set(range(10))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("digits", {"test_fraction": 1.0}, "test_fraction 1.0: expected a number between 0 and 1"),
        ("digits", {"target": "inputs"}, "target 'inputs': expected 'label' or 'input'"),
        ("npz", {}, "expected the .npz file; set data.path"),
    ],
)
def test_wrong_arguments(name, options, message):
    """Callers from Python do not pass through the model file's checks."""
    with pytest.raises(ConfigurationError, match=message):
        load_dataset(name, **options)


# ------------------------------------------------------------------------------------ Fashion-MNIST


@pytest.mark.parametrize("compressed", [True, False])
def test_fashion_mnist_files(tmp_path, compressed):
    """Debian ships gzip files, others unpack them; the pixels must come row by row."""
    data = load_dataset("fashion-mnist", path=write_mnist(tmp_path, compressed))
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((5, 784), (3, 784))
    np.testing.assert_array_equal(data.train_inputs[:, 0], np.arange(5))
    np.testing.assert_array_equal(data.test_targets, np.arange(3))
    assert data.train_targets.dtype == np.int64
    assert (data.classes, data.outputs) == (10, 10)
    assert data.inputs(np.array([0]), "float64")[0, 783] == 1


def test_fashion_mnist_as_autoencoder(tmp_path):
    """No classes, the output as wide as the image, targets within (0, 1)."""
    data = load_dataset("fashion-mnist", path=write_mnist(tmp_path), target="input")
    assert (data.classes, data.outputs) == (0, 784)
    targets = data.targets(np.array([0]), "float64")
    np.testing.assert_allclose([targets.min(), targets.max()], [0.005, 0.995])


def test_fashion_mnist_from_the_environment(tmp_path, monkeypatch):
    """PCSIM_DATA holds sets for machines where Debian's package cannot be installed."""
    write_mnist(tmp_path / "fashion-mnist")
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    assert len(load_dataset("fashion-mnist").train_inputs) == 5


def test_missing_fashion_mnist(tmp_path, monkeypatch):
    """The error says where it looked and how to get the files."""
    remedy = (
        "apt-get install dataset-fashion-mnist, pcsim data fetch fashion-mnist, or --set data.path=FOLDER"
    )
    set_here = dataclasses.replace(KNOWN["fashion-mnist"], package_folder=tmp_path / "debian")
    monkeypatch.setitem(KNOWN, "fashion-mnist", set_here)
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path / "mine"))
    message = refused(lambda: load_dataset("fashion-mnist"))
    assert f"{tmp_path}/mine/fashion-mnist or {tmp_path}/debian" in message
    assert remedy in message
    folder = write_mnist(tmp_path / "given")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    message = refused(lambda: load_dataset("fashion-mnist", path=folder))
    assert f"no file {folder}/t10k-labels-idx1-ubyte, nor with .gz" in message
    assert remedy in message
    assert f"no folder {tmp_path}/none" in refused(
        lambda: load_dataset("fashion-mnist", path=tmp_path / "none")
    )


def test_order_of_places(tmp_path, monkeypatch):
    """One order, the most specific first: path, directory, PCSIM_DATA, the home folder, the package's."""
    names = ("path", "option", "environment", "home", "package")
    for count, name in enumerate(names, 1):  # each place holds other images
        inner = {"path": "", "package": "", "home": ".cache/pcsim/data/fashion-mnist"}.get(
            name, "fashion-mnist"
        )
        folder = write_mnist(tmp_path / name / inner)
        (folder / "train-images-idx3-ubyte.gz").write_bytes(idx_gz(np.full((5, 28, 28), count, np.uint8)))
    package = dataclasses.replace(KNOWN["fashion-mnist"], package_folder=tmp_path / "package")
    monkeypatch.setitem(KNOWN, "fashion-mnist", package)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path / "environment"))

    def taken(**options) -> str:
        return names[int(load_dataset("fashion-mnist", **options).train_inputs[0, 0]) - 1]

    assert taken(path=tmp_path / "path", directory=tmp_path / "option") == "path"
    assert taken(directory=tmp_path / "option") == "option"
    assert taken() == "environment"
    monkeypatch.delenv("PCSIM_DATA")
    assert taken() == "home"
    shutil.rmtree(tmp_path / "home")
    assert taken() == "package"
    # A given path is meant: nothing else may quietly take its place.
    with pytest.raises(DataError, match=r"no folder .*/nowhere:"):
        load_dataset("fashion-mnist", path=tmp_path / "nowhere")


def idx_gz(array: np.ndarray) -> bytes:
    """A compressed IDX file."""
    return gzip.compress(idx(array))


def test_mnist_reads_the_same_format(tmp_path):
    """MNIST's files have the names of Fashion-MNIST's; only the name of the set differs."""
    data = load_dataset("mnist", directory=write_mnist(tmp_path / "mnist").parent)
    assert (data.name, data.shape, data.classes) == ("mnist", (1, 28, 28), 10)
    np.testing.assert_array_equal(data.train_targets, np.arange(5))
    assert "pcsim data fetch mnist, or" in refused(lambda: load_dataset("mnist", directory=tmp_path / "no"))


@pytest.mark.parametrize("name", ["mnist", "cifar-10", "npz"])
@pytest.mark.parametrize("path", ["a" * 5000, "/dev/null/x", "x/" * 3000, "/dev/zero", "/dev/null"])
def test_paths_that_cannot_be(name, path):
    """A name that is too long raises in every call of pathlib; a device must not be read for ever."""
    assert name in refused(lambda: load_dataset(name, path=path)) or name == "npz"


def test_shape_must_fit():
    """A convolution that reads images of another shape would learn from scrambled pixels."""
    assert small(shape=(1, 1, 2)).shape == (1, 1, 2)
    assert "expected 4 values" in refused(lambda: small(shape=(1, 2, 2)))


def refused(action, kind=DataError) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(kind) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


GOOD = idx(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "starts with nothing and has 0 bytes of header: expected 0x00000803"),
        (GOOD[:15], "has 15 bytes of header: expected 0x00000803 (IDX, bytes) and 16 bytes"),
        (idx(np.zeros(2, np.uint8)) + bytes(16), "starts with 0x00000801"),
        (b"\0\0\x0d\3" + GOOD[4:], "starts with 0x00000d03"),
        (
            idx(np.zeros((2, 14, 56), np.uint8)),
            "declares 2 items of shape (14, 56): expected 1 to 100 items of shape (28, 28)",
        ),
        (idx(np.zeros((0, 28, 28), np.uint8)), "declares 0 items"),
        (idx(np.zeros((101, 28, 28), np.uint8)), "declares 101 items"),
        (GOOD[:-1], "1567 bytes after the header: expected 1568 for 2 items"),
        (GOOD + b"\0", "more bytes after the header: expected 1568 for 2 items"),
    ],
)
def test_wrong_idx(tmp_path, content, expected, compressed):
    """Files of another set, cut or with something behind are named, with what was expected."""
    path = tmp_path / f"file{'.gz' if compressed else ''}"
    path.write_bytes(gzip.compress(content) if compressed else content)
    message = refused(lambda: read_idx(path, (28, 28), 100))
    assert message.startswith(f"{path}: ")
    assert expected in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" + data[1:],
        lambda data: data[:-8] + bytes(4) + data[-4:],
        lambda data: data[:12] + b"\xff\xff\xff" + data[15:],
    ],
    ids=["no trailer", "half", "no magic", "checksum", "stream"],
)
def test_damaged_gzip(tmp_path, damage):
    """An interrupted download is the usual damage; zlib's own exceptions name no file."""
    path = tmp_path / "file.gz"
    noise = RNG(0).integers(0, 256, (2, 28, 28), np.uint8)
    path.write_bytes(damage(gzip.compress(idx(noise))))
    message = refused(lambda: read_idx(path, (28, 28), 100))
    assert message.startswith(f"{path}: damaged or unreadable")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("lie", ["header", "body"])
def test_memory_follows_neither_header_nor_bomb(tmp_path, lie, compressed):
    """Neither a header that declares gigabytes nor gigabytes behind a modest header may cost memory."""
    path = tmp_path / f"file{'.gz' if compressed else ''}"
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 10**9 if lie == "header" else 1, 28, 28)
    content = header if lie == "header" else header + bytes(200_000_000)
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    del content
    tracemalloc.start()
    message = refused(lambda: read_idx(path, (28, 28), 10**9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert ("0 bytes" if lie == "header" else "more bytes") in message


@given(position=st.integers(0, 400), value=st.integers(0, 255), end=st.integers(0, 400))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_ends_in_a_traceback(tmp_path, position, value, end):
    """Whatever byte is wrong or missing: the same array as before, or one line."""
    array = RNG(0).integers(0, 256, (3, 9, 9), np.uint8)
    content = bytearray(gzip.compress(idx(array), mtime=0))
    content[position % len(content)] = value
    path = tmp_path / "file.gz"
    path.write_bytes(content[: max(len(content) - end // 2, 0)] if end % 2 else content)
    try:
        read = read_idx(path, (9, 9), 100)
    except DataError:
        return
    np.testing.assert_array_equal(read, array)


def test_labels_out_of_range_and_lengths(tmp_path):
    """A label file of another set (EMNIST has 47 classes) fits in every other respect."""
    folder = write_mnist(tmp_path)
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.array([0, 1, 9, 10, 46], np.uint8))))
    message = refused(lambda: load_dataset("fashion-mnist", path=folder))
    assert f"{labels}: label[3] = 10: expected a whole number from 0 to 9; " in message
    labels.write_bytes(gzip.compress(idx(np.zeros(4, np.uint8))))
    message = refused(lambda: load_dataset("fashion-mnist", path=folder))
    assert "train-images-idx3-ubyte.gz has 5 samples" in message
    assert f"{labels} 4" in message


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_installed_fashion_mnist(monkeypatch):
    """The real files: sizes, balance and the known first labels."""
    monkeypatch.delenv("PCSIM_DATA", raising=False)
    data = load_dataset("fashion-mnist")
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((60000, 784), (10000, 784))
    assert data.train_inputs.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(data.train_targets), [6000] * 10)
    np.testing.assert_array_equal(data.train_targets[:5], [9, 0, 0, 3, 0])
    np.testing.assert_array_equal(data.test_targets[:5], [9, 2, 1, 1, 6])
    assert abs(data.train_inputs.mean() / 255 - 0.2860) < 1e-4


# ---------------------------------------------------------------------------------------------- npz


def arrays(**changes) -> dict[str, np.ndarray]:
    """A good archive of 4 + 2 samples, with changes."""
    good = {
        "x_train": np.arange(24, dtype=np.uint8).reshape(4, 2, 3),
        "y_train": np.array([0, 2, 1, 0]),
        "x_test": np.zeros((2, 2, 3), np.uint8),
        "y_test": np.array([1, 2]),
    }
    return {key: array for key, array in {**good, **changes}.items() if array is not None}


@pytest.fixture
def archive(tmp_path):
    """Writes an archive and loads it again."""

    def load(**changes) -> Dataset:
        np.savez(tmp_path / "own.npz", **arrays(**changes))
        return load_dataset("npz", path=tmp_path / "own.npz")

    return load


def test_npz_with_bytes_and_labels(archive):
    """Images of any shape are flattened row by row and scaled; the classes are those seen in training."""
    data = archive()
    assert (data.name, data.features, data.classes, data.outputs) == ("own", 6, 3, 3)
    np.testing.assert_allclose(data.inputs(np.array([1]), "float64"), np.arange(6, 12)[None] / 255)
    assert data.shape == (1, 2, 3)
    np.testing.assert_array_equal(data.test_targets, [1, 2])
    assert data.train_targets.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_npz_with_floats(archive, dtype):
    """Floats are the user's own scaling; float targets of two dimensions are a regression."""
    inputs = np.array([[-2.0, 3.0]] * 4, dtype)
    targets = np.arange(12.0).reshape(4, 3).astype(dtype)
    data = archive(x_train=inputs, x_test=inputs[:2], y_train=targets, y_test=targets[:2])
    np.testing.assert_array_equal(data.inputs(np.array([0]), "float32"), np.float32([[-2, 3]]))
    np.testing.assert_array_equal(data.targets(np.array([1]), "float32"), np.float32([[3, 4, 5]]))
    assert (data.classes, data.outputs) == (0, 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "float16", "float64"])
def test_npz_labels_of_any_number_type(archive, dtype):
    """Labels written by other tools are often bytes, or floats that are whole."""
    data = archive(y_train=np.array([0, 2, 1, 0], dtype))
    np.testing.assert_array_equal(data.train_targets, [0, 2, 1, 0])
    assert data.train_targets.dtype == np.int64


FLOATS = {"x_train": np.ones((4, 6)), "x_test": np.ones((2, 6))}
VALUES = {"y_train": np.ones((4, 2)), "y_test": np.ones((2, 2))}


def with_entry(array: np.ndarray, place: object, value: object) -> np.ndarray:
    """A copy with one entry changed."""
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y_test": None}, "no array y_test: expected x_train, y_train, x_test, y_test; did you mean"),
        ({"x_train": np.array([[object()]] * 4)}, "x_train: cannot be read (Object arrays"),
        ({"x_train": np.zeros((4, 6), int)}, "x_train is int64: expected uint8 or float"),
        ({"x_train": np.zeros((4, 6), complex)}, "x_train is complex128: expected uint8 or float"),
        ({"x_train": np.array([["a"] * 6] * 4)}, "x_train is <U1: expected uint8 or float"),
        ({"x_train": np.zeros(4, np.uint8)}, "x_train has shape (4,): expected (samples, features, ...)"),
        ({"x_train": np.zeros((0, 6), np.uint8)}, "x_train has shape (0, 6)"),
        ({"x_test": np.zeros((2, 5), np.uint8)}, "x_test has 5 columns: expected 6, as for training"),
        ({"x_test": np.zeros((2, 6))}, "x_test is float64: expected uint8, as for training"),
        ({"y_train": np.array([0, 1, 2])}, "x_train has 4 samples and y_train 3: expected as many"),
        ({"y_test": np.zeros(3, int)}, "x_test has 2 samples and y_test 3: expected as many"),
        (
            {**FLOATS, "x_train": with_entry(np.ones((4, 6)), (2, 1), np.nan)},
            "x_train[2, 1] = nan: expected a finite",
        ),
        (
            {**FLOATS, "x_test": with_entry(np.ones((2, 6)), (1, 5), -np.inf)},
            "x_test[1, 5] = -inf: expected a finite",
        ),
        ({**FLOATS, "x_train": np.full((4, 6), np.inf, np.float16)}, "x_train[0, 0] = inf"),
        (
            {**FLOATS, "x_train": with_entry(np.ones((4, 6)), (3, 0), 1e39)},
            "x_train[3, 0] = 1e+39: expected a finite",
        ),
        ({"y_train": np.array([0, 1, -1, -2])}, "y_train[2] = -1: expected a whole number from 0"),
        ({"y_train": np.array([0, 1.5, 2, 0])}, "y_train[1] = 1.5: expected a whole number"),
        ({"y_train": np.array([0, 1, 2, np.nan])}, "y_train[3] = nan: expected a whole number"),
        ({"y_train": np.array([0, 1, 2, np.inf])}, "y_train[3] = inf: expected a whole number"),
        (
            {"y_train": np.array([0, 2**64 - 1, 2, 0], np.uint64)},
            "y_train[1] = 18446744073709551615: expected",
        ),
        ({"y_test": np.array([1, 3])}, "y_test[1] = 3: expected a whole number from 0 to 2"),
        ({"y_train": np.array([True, False, True, True])}, "y_train is bool (4,): expected integer labels"),
        ({"y_train": np.zeros((4, 2), int)}, "y_train is int64 (4, 2): expected floats (samples, outputs)"),
        (
            {"y_train": np.zeros((4, 2, 2))},
            "y_train is float64 (4, 2, 2): expected integer labels (samples,)",
        ),
        ({**VALUES, "y_test": np.array([1, 2])}, "y_test is int64 (2,): expected floats (samples, outputs)"),
        ({**VALUES, "y_test": np.ones((2, 3))}, "y_test has 3 columns: expected 2, as for training"),
        (
            {**VALUES, "y_train": with_entry(np.ones((4, 2)), (1, 1), np.nan)},
            "y_train[1, 1] = nan: expected a finite",
        ),
    ],
)
def test_unusable_npz(archive, changes, expected):
    """One line with the array, the first wrong entry and its value, in place of NaN losses an hour later."""
    message = refused(lambda: archive(**changes))
    assert "own.npz: " in message
    assert expected in message


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50), "npy"])
def test_files_that_are_no_archive(tmp_path, content):
    """NumPy takes anything unknown for a pickle and says so, which misleads."""
    path = tmp_path / "a.npz"
    if content == "npy":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    else:
        path.write_bytes(content)
    message = refused(lambda: load_dataset("npz", path=path))
    assert message.startswith(f"{path}: ")
    assert "expected plain numeric arrays in a .npz archive" in message
    assert "none.npz: no such file" in refused(lambda: load_dataset("npz", path=tmp_path / "none.npz"))


@pytest.mark.parametrize("name", ["npz", "cifar-10"])
def test_a_relative_place_says_what_it_counts_from(name, tmp_path, monkeypatch):
    """Model files name data relative to where pcsim runs, which is not where the model file lies."""
    monkeypatch.chdir(tmp_path)
    for look in (load_dataset, check_place):
        assert f"none (in {tmp_path})" in refused(lambda look=look: look(name, path="none"))


def test_labels_that_do_not_start_at_0(archive):
    """Labels 1 to 4 are five classes: what is wrong is not the size of the output."""
    data = archive(y_train=np.array([1, 2, 3, 4]), y_test=np.array([1, 4]))
    message = refused(lambda: check_fit(Network.dense([data.features, 4]), data, 1), ShapeError)
    assert message.endswith("change network.layers, or labels: they start at 1, expected at 0")


@pytest.mark.parametrize(
    ("features", "shape"),
    [((6,), None), ((2, 3), (1, 2, 3)), ((3, 2, 4), (3, 2, 4)), ((1, 1, 2, 3), None)],
)
def test_npz_knows_images(archive, features, shape):
    """Convolutions need to know; what is neither (height, width) nor (channels, ...) is no image."""
    inputs = np.zeros((4, *features), np.uint8)
    assert archive(x_train=inputs, x_test=inputs[:2]).shape == shape


def npy_header(shape: tuple, dtype: str = "|u1") -> bytes:
    """Header of an .npy member, which may lie."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((10**6, 10**6), "|u1"), ((1000,), "<U1000000"), ((10**30, 5), "|u1"), ((-4, -6), "<f8")],
)
def test_huge_shape_does_not_allocate(tmp_path, shape, dtype):
    """NumPy allocates what a header declares; the size of the member must agree first."""
    path = tmp_path / "a.npz"
    np.savez(path, **arrays(x_train=None))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_train.npy", npy_header(shape, dtype) + bytes(24))
    tracemalloc.start()
    message = refused(lambda: load_dataset("npz", path=path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert "x_train" in message


def test_size_that_lies_in_the_directory(tmp_path):
    """A directory entry that declares more than deflate could ever unpack is refused before reading."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays())
    content = bytearray(path.read_bytes())
    at = content.find(b"x_train.npy", content.find(b"PK\x01\x02")) - 46
    content[at + 24 : at + 28] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    assert "x_train declares 2147483648 bytes in" in refused(lambda: load_dataset("npz", path=path))


def test_larger_than_the_memory(tmp_path, monkeypatch):
    """An archive of zeros unpacks a thousandfold; what cannot fit is refused while it is still packed."""
    np.savez_compressed(tmp_path / "a.npz", **arrays(x_train=np.zeros((4, 2, 3), np.uint8)))
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    assert "expected less than this machine's 100" in refused(
        lambda: load_dataset("npz", path=tmp_path / "a.npz")
    )


def test_users_without_a_home(monkeypatch):
    """A number that no user has, as containers like to run under: data lie elsewhere, and ~ is named."""

    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("home", "expanduser"):
        monkeypatch.setattr(Path, name, homeless)
    for name in ("PCSIM_DATA", "PCSIM_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert data_root().name == "data"
    with pytest.raises(ConfigurationError, match=r"~/set\.npz: this user has no home"):
        load_dataset("npz", path="~/set.npz")
