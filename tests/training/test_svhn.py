"""SVHN: MATLAB's format, held against SciPy, and files that lie about sizes."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
from data_files import svhn_mat, write_svhn

from pcsim.errors import DataError
from pcsim.training.data import load_dataset
from pcsim.training.datasets.matlab import read_matlab


def refused(action) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(DataError) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_pixels_and_labels(tmp_path, compressed):
    """Rows are channel, row, column; the file's label 10 is the digit 0."""
    images, labels = write_svhn(tmp_path / "svhn", compressed)
    data = load_dataset("svhn", directory=tmp_path)
    assert (data.shape, data.classes, data.train_inputs.dtype) == ((3, 32, 32), 10, np.uint8)
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((5, 3072), (3, 3072))
    for sample, channel, row, column in ((0, 0, 0, 1), (3, 1, 31, 2), (4, 2, 7, 30)):
        pixel = data.train_inputs.reshape(5, 3, 32, 32)[sample, channel, row, column]
        assert pixel == images[row, column, channel, sample]
    assert labels[:, 0].tolist() == [8, 9, 10, 1, 2]
    np.testing.assert_array_equal(data.train_targets, [8, 9, 0, 1, 2])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 3), (4, 3, 2), (0, 3)])
def test_reads_what_scipy_writes(tmp_path, compressed, dtype, shape):
    """SciPy is the independent writer: every number type, short elements and padding included."""
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    scipy.io.savemat(tmp_path / "a.mat", {"other": 1, "a": array}, do_compression=compressed)
    found = read_matlab(tmp_path / "a.mat", ("a",), 10**6)
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], array)


def test_numbers_stored_in_smaller_types(tmp_path):
    """MATLAB stores doubles that are small whole numbers as bytes; big-endian files exist too."""
    for order, mark in (("<", b"IM"), (">", b"MI")):
        parts = (
            (6, struct.pack(f"{order}II", 6, 0)),
            (5, struct.pack(f"{order}2i", 1, 5)),
            (1, b"y\0\0\0\0\0\0\0"[:8]),
            (2, bytes([3, 1, 4, 1, 5])),
        )
        body = b"".join(
            struct.pack(f"{order}II", kind, 1 if kind == 1 else len(content))
            + content
            + bytes(-len(content) % 8)
            for kind, content in parts
        )
        header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + mark
        path = tmp_path / "a.mat"
        path.write_bytes(header + struct.pack(f"{order}II", 14, len(body)) + body)
        np.testing.assert_array_equal(scipy.io.loadmat(path)["y"], [[3, 1, 4, 1, 5]])
        np.testing.assert_array_equal(read_matlab(path, ("y",), 10**6)["y"], [[3, 1, 4, 1, 5]])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "no variable y: expected X and y"),
        ({"y": np.ones((2, 1), np.uint8)}, "no variable X"),
        (
            {"X": np.zeros((32, 32, 2), np.uint8)},
            "X is uint8 (32, 32, 2): expected uint8 (32, 32, 3, samples)",
        ),
        ({"X": np.full((32, 32, 3, 2), 0.5)}, "X is float64"),
        ({"X": {"a": 1}}, "X is of MATLAB's class 2: expected real numbers"),
        ({"X": np.zeros((32, 32, 3, 2), complex)}, "expected real numbers"),
        ({"y": np.ones((3, 1), np.uint8)}, "y has shape (3, 1) for X (32, 32, 3, 2): expected (samples, 1)"),
        ({"y": np.array([[1], [0]], np.uint8)}, "y[1] = 0: expected 1 to 10"),
        ({"y": np.array([[1], [11]], np.uint8)}, "y[1] = 11: expected a whole number from 0 to 10"),
        ({"y": "ab"}, "y is of MATLAB's class 4"),
    ],
)
def test_wrong_variables(tmp_path, variables, expected):
    """The full-size images come in .mat files too; what they hold instead is named."""
    write_svhn(tmp_path)
    good = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}
    chosen = variables if "no variable" in expected else {**good, **variables}
    scipy.io.savemat(tmp_path / "test_32x32.mat", chosen, do_compression=True)
    message = refused(lambda: load_dataset("svhn", path=tmp_path))
    assert message.startswith(f"svhn: {tmp_path}/test_32x32.mat: ")
    assert expected in message
    assert "pcsim data fetch svhn" in message


def test_missing_and_foreign_files(tmp_path):
    """Missing, empty, of version 7.3 (which is HDF5), or cut."""
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    good = path.read_bytes()
    for content in (b"", good[:127], b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IN" + good):
        path.write_bytes(content)
        assert "no MATLAB file of version 5 to 7" in refused(lambda: load_dataset("svhn", path=tmp_path))
    for length in (130, 1000, len(good) - 1):
        path.write_bytes(good[:length])
        assert str(path) in refused(lambda: load_dataset("svhn", path=tmp_path))
    path.unlink()
    assert f"no file {path}" in refused(lambda: load_dataset("svhn", path=tmp_path))


@pytest.mark.parametrize("compressed", [True, False])
def test_sizes_that_lie(tmp_path, compressed):
    """SciPy allocates the 4 GB that four wrong bytes declare; here they are compared with the file first."""
    plain, images, _ = svhn_mat(5, compressed=False)
    at = plain.find(struct.pack("<II", 2, images.size)) + 4
    dims = plain.find(struct.pack("<4i", 32, 32, 3, 5)) + 12
    path = tmp_path / "a.mat"
    for place, value in ((at, 0xF0000000), (dims, 0x7FFFFFFF), (132, 0xF0000000)):
        lie = bytearray(plain)
        lie[place : place + 4] = struct.pack("<I", value)
        if compressed:  # the first variable packed, as official files have it
            packed = zlib.compress(lie[128 : 136 + struct.unpack_from("<I", plain, 132)[0]])
            lie = lie[:128] + struct.pack("<II", 15, len(packed)) + packed
        path.write_bytes(lie)
        tracemalloc.start()
        refused(lambda: read_matlab(path, ("X", "y"), 10**6))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3_000_000


@pytest.mark.parametrize("kind", [0, 8, 14, 18])
def test_types_that_are_no_numbers(tmp_path, kind):
    """A byte that is wrong where the type of the numbers stands: fuzzing found an array of nothing."""
    plain, images, _ = svhn_mat(5, compressed=False)
    at = plain.find(struct.pack("<II", 2, images.size))
    path = tmp_path / "a.mat"
    path.write_bytes(plain[:at] + struct.pack("<I", kind) + plain[at + 4 :])
    assert f"X is stored as type {kind}" in refused(lambda: read_matlab(path, ("X", "y"), 10**6))


def test_bomb(tmp_path):
    """A variable that unpacks a thousandfold stops at the limit."""
    packed = zlib.compress(struct.pack("<II", 14, 10**8) + bytes(10**8), 9)
    path = tmp_path / "a.mat"
    path.write_bytes(svhn_mat()[0][:128] + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    assert "more than 1000000 bytes" in refused(lambda: read_matlab(path, ("X",), 10**6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    path.write_bytes(svhn_mat()[0])
    assert "more than 1000 bytes" in refused(lambda: read_matlab(path, ("X",), 1000))


def test_scipy_agrees_with_the_written_file():
    """The test files themselves hold what SciPy reads from them."""
    data, images, labels = svhn_mat()
    found = scipy.io.loadmat(io.BytesIO(data))
    np.testing.assert_array_equal(found["X"], images)
    np.testing.assert_array_equal(found["y"], labels)
