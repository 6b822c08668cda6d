"""Mutated files of every format: a data set that passed all checks, or one line; never anything else.

PCSIM_FUZZ sets how many examples each format gets; `PCSIM_FUZZ=10000` is the long run.
"""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from data_files import cifar_pickle, cifar_tar, idx, jpeg, svhn_mat, tiny_files, tiny_zip, write_tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pcsim.errors import DataError
from pcsim.training.datasets.cifar10 import _batch, read_cifar10
from pcsim.training.datasets.idx import read_idx
from pcsim.training.datasets.matlab import read_matlab
from pcsim.training.datasets.npz import read_npz
from pcsim.training.datasets.pickled import read_pickle
from pcsim.training.datasets.svhn import _half
from pcsim.training.datasets.tiny_imagenet import _pixels, read_tiny_imagenet

EXAMPLES = int(os.environ.get("PCSIM_FUZZ", "200"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # a failing file is small anyway
    suppress_health_check=list(HealthCheck),
)


@st.composite
def mutated(draw, content: bytes, dense: int = 0) -> bytes:
    """A file with a few bytes changed, put in, taken out or doubled; `dense` favours its first bytes."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        last = len(data) - 1
        limit = min(dense, last) if dense and draw(st.booleans()) else last
        at = draw(st.integers(0, limit))
        match draw(st.integers(0, 5)):
            case 0 | 1:
                data[at] = draw(st.integers(0, 255))
            case 2:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 3:
                data[at:at] = draw(st.binary(min_size=1, max_size=9))
            case 4:
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                length = draw(st.integers(1, 40))
                other = draw(st.integers(0, last))
                data[at : at + length] = data[other : other + length]
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def good_or_one_line(action, whole):
    """Run a reader; what it gives must be whole, what it raises must be ours and one line.

    Returns what it gives, None if it refuses: a test shows that it does not only see refusals.
    """
    refusal = ""
    try:
        found = action()
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert len(refusal.splitlines()) == 1
        assert len(refusal) < 1500
        return None
    assert whole(found), found
    return found


def whole_set(found) -> bool:
    """Whether both halves of a data set have samples with a target each, of the sizes that it declares."""
    halves = ((found.train_inputs, found.train_targets), (found.test_inputs, found.test_targets))
    one = np.array([0])
    return (
        all(len(inputs) == len(targets) > 0 for inputs, targets in halves)
        and found.inputs(one, "float32").shape == (1, found.features)
        and found.targets(one, "float32").shape == (1, found.outputs)
    )


def whole_half(found) -> bool:
    """Whether these are images of 32 x 32 in colour, row by row, and one of ten classes for each."""
    images, labels = found
    good = images.dtype == np.uint8 and images.shape == (len(labels), 3072) and len(labels) > 0
    return good and labels.dtype == np.int64 and 0 <= labels.min() <= labels.max() <= 9


def whole_pickle(found) -> bool:
    """Whether this is a dictionary of what batches hold, and of nothing that pickles can bring to life."""
    return all(
        isinstance(name, str) and isinstance(one, np.ndarray | list | str | bytes | int | float | None)
        for name, one in found.items()
    )


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
OFFICIAL = cifar_pickle(IMAGES, [3, 9])
MATRIX, COMPRESSED_MATRIX = svhn_mat(2, compressed=False)[0], svhn_mat(2)[0]


def pickled(protocol: int) -> bytes:
    """A batch that Python 3 wrote."""
    import pickle

    batch = {b"labels": [3, 9], b"data": IMAGES[:, :20].copy(), b"filenames": [b"a", b"b"]}
    return pickle.dumps(batch, protocol=protocol)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # pickletools, on text
@pytest.mark.parametrize("content", [OFFICIAL, pickled(2), pickled(4)], ids=["official", "2", "4"])
def test_pickles(content):
    """Opcodes, lengths, names and memo entries that are wrong."""
    short = OFFICIAL.find(bytes(IMAGES[0, :8]))

    def read(data):
        found = good_or_one_line(lambda: read_pickle(data, "batch"), whole_pickle)
        return found, good_or_one_line(lambda: _batch(data, "batch"), whole_half)

    @given(mutated(content, dense=short if content is OFFICIAL else 0))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    found, batch = read(content)
    assert set(found) >= {"data", "labels"}
    assert (batch is not None) == (content is OFFICIAL)  # the others have narrow images
    run()


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_pickles_from_nothing():
    """Random opcodes that begin as a pickle does."""

    def read(data):
        return good_or_one_line(lambda: read_pickle(b"\x80\x02}" + data, "batch"), whole_pickle)

    @given(st.binary(max_size=200))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(b".") == {}
    run()


def test_archives_of_batches(tmp_path):
    """Gzip and tar headers."""
    path, content = tmp_path / "cifar-10-python.tar.gz", cifar_tar(1)
    import gzip

    plain = gzip.decompress(content)

    def read(data):
        path.write_bytes(data)
        return good_or_one_line(lambda: read_cifar10(path), whole_set)

    @given(st.one_of(mutated(content), mutated(plain, dense=600).map(lambda one: gzip.compress(one, 1))))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(content) is not None
    run()


@pytest.mark.parametrize("content", [MATRIX, COMPRESSED_MATRIX], ids=["plain", "compressed"])
def test_matlab_files(tmp_path, content):
    """Tags, sizes, classes and shapes."""
    path = tmp_path / "a.mat"

    def whole(found):
        return set(found) <= {"X", "y"} and all(array.dtype.kind in "iuf" for array in found.values())

    def read(data):
        path.write_bytes(data)
        found = good_or_one_line(lambda: read_matlab(path, ("X", "y"), 1 << 20), whole)
        return found, good_or_one_line(lambda: _half(path), whole_half)

    @given(mutated(content, dense=230))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert None not in read(content)
    run()


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_files(tmp_path, compressed):
    """Zip directories and the Python literals in .npy headers."""
    path, buffer = tmp_path / "a.npz", io.BytesIO()
    inputs, labels = IMAGES[:, :12].reshape(2, 3, 2, 2), np.array([0, 1])
    save = np.savez_compressed if compressed else np.savez
    save(buffer, x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)

    def read(data):
        path.write_bytes(data)
        return good_or_one_line(lambda: read_npz(path), whole_set)

    @given(mutated(buffer.getvalue()))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(buffer.getvalue()) is not None
    run()


def test_npy_members(tmp_path):
    """What lies behind a zip archive's checksums, which a mutated archive rarely passes."""
    import zipfile

    path, buffer = tmp_path / "a.npz", io.BytesIO()
    inputs, labels = IMAGES[:, :12].reshape(2, 3, 2, 2), np.array([0, 1])
    np.savez(tmp_path / "good.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    np.save(buffer, inputs)

    def read(data):
        with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(path, "w") as file:
            for name in good.namelist():
                file.writestr(name, data if name == "x_train.npy" else good.read(name))
        return good_or_one_line(lambda: read_npz(path), whole_set)

    @given(mutated(buffer.getvalue(), dense=80))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(buffer.getvalue()) is not None
    run()


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_idx_files(tmp_path, name):
    """Headers of IDX and gzip."""
    import gzip

    path, content = tmp_path / name, idx(IMAGES[:, :784].reshape(2, 28, 28))
    content = gzip.compress(content) if name.endswith("gz") else content

    def whole(found):
        return found.dtype == np.uint8 and found.shape[1:] == (28, 28) and 1 <= len(found) <= 100

    def read(data):
        path.write_bytes(data)
        return good_or_one_line(lambda: read_idx(path, (28, 28), 100), whole)

    @given(mutated(content, dense=20))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(content) is not None
    run()


def test_jpeg_files():
    """Pillow raises a dozen types on these."""
    content = jpeg((200, 30, 90))

    def whole(found):
        return found.dtype == np.uint8 and found.shape == (3, 64, 64)

    def read(data):
        return good_or_one_line(lambda: _pixels(data, "a.JPEG"), whole)

    @given(mutated(content, dense=640))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(content) is not None
    run()


def test_zip_of_images(tmp_path):
    """The directory and members of the archive."""
    path, content = tmp_path / "tiny-imagenet-200.zip", tiny_zip()

    def read(data):
        path.write_bytes(data)
        return good_or_one_line(lambda: read_tiny_imagenet(path), whole_set)

    @given(mutated(content))
    @SETTINGS
    def run(data: bytes) -> None:
        read(data)

    assert read(content) is not None
    run()


def test_lists_of_the_tree(tmp_path):
    """wnids.txt and the annotations are text that anybody may have edited."""
    files = tiny_files()
    folder = write_tiny(tmp_path, files)

    def read(name, data):
        (folder / name).write_bytes(data)
        found = good_or_one_line(lambda: read_tiny_imagenet(folder), whole_set)
        (folder / name).write_bytes(files[name])
        return found

    @given(st.sampled_from(["wnids.txt", "val/val_annotations.txt"]), st.data())
    @SETTINGS
    def run(name: str, data: st.DataObject) -> None:
        read(name, data.draw(mutated(files[name])))

    assert read("wnids.txt", files["wnids.txt"]) is not None
    run()
