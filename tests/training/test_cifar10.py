"""CIFAR-10: the official layout is read right, and a pickle gets to do nothing."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from data_files import CIFAR_NAMES, cifar_batches, cifar_pickle, cifar_tar, tar, write_cifar

from pcsim.errors import DataError
from pcsim.training.data import load_dataset
from pcsim.training.datasets.pickled import read_pickle


def refused(action) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(DataError) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def load(place):
    """Read CIFAR-10 from a place."""
    return load_dataset("cifar-10", path=place)


def test_the_test_files_are_true():
    """The batches that these tests write by hand are what Python's own unpickler takes for official ones."""
    images, labels = cifar_batches()["data_batch_1"]
    batch = pickle.loads(cifar_pickle(images, labels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], images)
    assert batch[b"labels"] == labels
    assert list(batch) == [b"batch_label", b"labels", b"data", b"filenames"]


@pytest.mark.parametrize("place", ["root", "folder", "archive", "root with archive"])
def test_batches_in_order(tmp_path, place):
    """From the unpacked folder, its parent, or from the archive: the same rows, batch after batch."""
    batches, where = cifar_batches(), tmp_path
    if "archive" in place:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_tar())
        where = tmp_path / "cifar-10-python.tar.gz" if place == "archive" else tmp_path
    else:
        write_cifar(tmp_path)
        where = tmp_path / "cifar-10-batches-py" if place == "folder" else tmp_path
    data = load(where)
    np.testing.assert_array_equal(data.train_inputs, np.concatenate([batches[n][0] for n in CIFAR_NAMES[:5]]))
    np.testing.assert_array_equal(
        data.train_targets, np.concatenate([batches[n][1] for n in CIFAR_NAMES[:5]])
    )
    np.testing.assert_array_equal(data.test_inputs, batches["test_batch"][0])
    np.testing.assert_array_equal(data.test_targets, batches["test_batch"][1])
    assert (data.name, data.shape, data.classes, data.scale) == ("cifar-10", (3, 32, 32), 10, 1 / 255)
    assert data.train_inputs.dtype == np.uint8
    assert not (tmp_path / "cifar-10-batches-py").exists() or "archive" not in place  # nothing is unpacked


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("keys", [bytes, str], ids=["bytes", "latin1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rewritten_batches(tmp_path, protocol, keys, order):
    """People rewrite the batches with Python 3; keys are then bytes, or text after encoding="latin1"."""
    for name, (images, labels) in cifar_batches().items():
        images = np.asarray(images, order=order)
        batch = {"batch_label": name, "labels": labels, "data": images, "filenames": []}
        if keys is bytes:
            batch = {key.encode(): one for key, one in batch.items()} | {b"batch_label": name.encode()}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.test_inputs, cifar_batches()["test_batch"][0])
    np.testing.assert_array_equal(data.test_targets, cifar_batches()["test_batch"][1])


def test_missing_files(tmp_path):
    """An interrupted unpacking leaves some batches; the missing one is named, with how to get it."""
    assert "neither cifar-10-batches-py/data_batch_1 nor cifar-10-python.tar.gz" in refused(
        lambda: load(tmp_path)
    )
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    message = refused(lambda: load(tmp_path))
    assert "data_batch_4" in message
    assert "pcsim data fetch cifar-10, or --set data.path=FOLDER" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {b"data": np.zeros((4, 3071), np.uint8)},
            "shape (4, 3071) as 'data': expected uint8 (samples, 3072)",
        ),
        ({b"data": np.zeros(3072, np.uint8)}, "shape (3072,) as 'data'"),
        ({b"data": np.zeros((0, 3072), np.uint8)}, "0 images: expected 1 to 10000"),
        ({b"data": np.zeros((10001, 3072), np.uint8)}, "10001 images: expected 1 to 10000"),
        ({b"data": np.zeros((4, 3072), np.float32)}, "an array that is none of uint8"),
        ({b"data": None}, "no array as 'data'"),
        ({b"labels": [0, 1, 2]}, "3 'labels' for 4 images"),
        ({b"labels": (0, 1, 2, 3)}, "no list 'labels' for 4 images"),
        ({b"labels": [0, 1, 10, 3]}, "label[2] = 10: expected a whole number from 0 to 9"),
        ({b"labels": [0, 1, 2, -1]}, "label[3] = -1"),
        ({b"labels": [0, True, 2, 3]}, "label[1] = True"),
        ({b"labels": [0, 1, 2, b"3"]}, "label[3] = a bytes"),
        ({b"labels": [0, 1, 2, 10**500]}, "label[3] = 1000"),
        ({b"fine_labels": 1.5}, "opcode BINFLOAT"),
        ({1: 2}, "a key that is no text"),
    ],
)
def test_wrong_batch(tmp_path, change, expected):
    """A batch of CIFAR-100 or a half-written one is named, with what was expected."""
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3], **change}
    path.write_bytes(pickle.dumps(batch, protocol=3))
    message = refused(lambda: load(tmp_path))
    assert message.startswith(f"cifar-10: {path}: ")
    assert expected in message


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02.", b"\x80\x02]q\x00.", b"text\n", bytes(300)])
def test_no_batch_at_all(tmp_path, content):
    """Truncated at the start, or something else altogether."""
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(content)
    assert refused(lambda: load(tmp_path)).startswith(f"cifar-10: {path}: ")


def test_truncated_batch(tmp_path):
    """What an interrupted copy leaves."""
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_5"
    for length in (100, 5000, len(path.read_bytes()) - 1):
        path.write_bytes(cifar_pickle(*cifar_batches()["data_batch_5"])[:length])
        assert "damaged or no pickle" in refused(lambda: load(tmp_path))


# -------------------------------------------------------------------------------------- hostile pickles


class Writes:
    """Unpickling this creates a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_malicious_pickle_does_nothing(tmp_path, protocol):
    """The reason for all this: pickle.load would run the command; here the name is refused."""
    victim = tmp_path / "created"
    attack = pickle.dumps({b"data": Writes(victim), b"labels": [1]}, protocol=protocol)
    message = refused(lambda: read_pickle(attack, "batch"))
    assert not victim.exists()
    if protocol >= 2:
        assert "the name 'posix.system'" in message
    pickle.loads(attack)  # the attack is a real one
    assert victim.exists()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        # other functions of NumPy unpickle or write
        (b"cnumpy\nload\n(U\x04a.py\x88\x85tR.", "the name 'numpy.load'"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "the name 'numpy.core.multiarray.fromfile'"),
        (b"cbuiltins\neval\n(U\x011tR.", "the name 'builtins.eval'"),
        (b"cnumpy\ndtype.__class__\n.", "the name 'numpy.dtype.__class__'"),
        (b"\x8c\x02os\x8c\x06system\x93(U\x02idtR.", "the name 'os.system'"),
        (b"(U\x02idios\nsystem\n.", "opcode INST"),
        (b"(cnumpy\ndtype\nU\x02u1o.", "opcode OBJ"),
        (b"cnumpy\ndtype\nU\x02u1\x85\x81.", "opcode NEWOBJ"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"U\x02idQ.", "opcode BINPERSID"),
        (
            b"c_codecs\nencode\nX\x02\x00\x00\x00idX\x03\x00\x00\x00hex\x86R.",
            "a call of what is no NumPy array",
        ),
        # BUILD with what is no tuple, and BUILD that sets attributes
        (b"cnumpy\ndtype\n(U\x02u1tRU\x01xb.", "an array that is none of uint8"),
        (b"c_codecs\nencode\n}U\x01xU\x01ysb.", "an array that is none of uint8"),
    ],
)
def test_nothing_else_is_called(attack, reason):
    """No other name, no other way to call, no attribute that is set: each is refused for that very reason."""
    assert f"pickle with {reason}: " in refused(lambda: read_pickle(b"\x80\x02" + attack, "batch"))


def array_state(shape: bytes, raw: bytes) -> bytes:
    """A pickle of one uint8 array whose shape is given as opcodes."""
    good = cifar_pickle(np.zeros((1, 3072), np.uint8), [0])
    old = b"(K\x01J\x01\x00\x00\x00M\x00\x0c\x86"
    assert good.count(old) == 1
    body = good.replace(old, b"(K\x01" + shape)
    return body.replace(b"T\x00\x0c\x00\x00" + bytes(3072), b"T" + struct.pack("<I", len(raw)) + raw)


def measured(action) -> int:
    """Most bytes that were allocated at once."""
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "shape",
    [
        b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86",
        b"J\xff\xff\xff\xffJ\x00\xf4\xff\xff\x86",
        b"U\x01a\x85",
        b"(" + b"K\x01" * 70 + b"t",
    ],
    ids=["huge", "negative", "text", "many dimensions"],
)
def test_shape_that_lies(shape):
    """An array's shape must agree with its bytes."""
    attack = array_state(shape, bytes(3072))
    assert "an array of shape (" in refused(lambda: read_pickle(attack, "batch"))
    assert measured(lambda: refused(lambda: read_pickle(attack, "batch"))) < 1_000_000


@pytest.mark.parametrize(
    "attack",
    [
        b"\x80\x02T\xff\xff\xff\x7f",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00",
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # unpicklers in C make a memo of that length
        # one text of 1 MB, encoded a thousand times
        b"\x80\x02X"
        + struct.pack("<I", 10**6)
        + b"a" * 10**6
        + b"q\x00]"
        + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86Ra" * 1000
        + b".",
    ],
    ids=["string", "bytes", "memo", "texts"],
)
def test_memory_follows_the_file(attack):
    """A few bytes cannot claim gigabytes."""
    assert measured(lambda: refused(lambda: read_pickle(attack, "batch"))) < 12_000_000


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (b"]" * 10**6, "more than 200000 opcodes"),
        (b"(" * 150_000 + b"N" + b"t" * 150_000, "more than 200000 opcodes"),
        (b"\x80\x02}N\x85" + b"\x85" * 150_000 + b"Ns.", "a key that is no text"),
    ],
    ids=["lists", "marks", "tuples"],
)
def test_depth_and_length_end_in_one_line(attack, reason):
    """Deeply nested tuples overflow the stack of whoever hashes or prints them."""
    assert f"pickle with {reason}: " in refused(lambda: read_pickle(attack, "batch"))


# ---------------------------------------------------------------------------------------------- archive


def test_members_that_escape(tmp_path):
    """Nothing is unpacked: members with other paths are not even read, links neither."""
    members = {f"cifar-10-batches-py/{name}": cifar_pickle(*one) for name, one in cifar_batches().items()}
    escaping = {"../escaped": b"x", "/tmp/pcsim-escaped": b"x", "cifar-10-batches-py/../../escaped": b"x"}
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "cifar-10-python.tar.gz").write_bytes(tar({**escaping, **members}))
    assert len(load(inside).train_inputs) == 20
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a", "b", "cifar-10-python.tar.gz"]
    assert not os.path.exists("/tmp/pcsim-escaped")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (inside / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    assert "no cifar-10-batches-py/data_batch_1" in refused(lambda: load(inside))


def test_damaged_archive(tmp_path):
    """An interrupted download, and one with a flipped byte, which only the checksum at the end shows."""
    path, good = tmp_path / "cifar-10-python.tar.gz", cifar_tar()
    for content in (b"", b"text", good[: len(good) // 2], good[:-9], good[:-6] + b"\0" + good[-5:]):
        path.write_bytes(content)
        assert "cifar-10-python.tar.gz" in refused(lambda: load(path))


def test_archive_that_unpacks_for_ever(tmp_path, monkeypatch):
    """A gzip bomb ends in one line and not in a full memory; so does a member that is too large."""
    monkeypatch.setattr("pcsim.training.datasets.cifar10.LARGEST_FILE", 1 << 20)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 25), 1) * 3)  # zeros are skipped as the archive's end
    assert "unpacks to more than expected" in refused(lambda: load(path))
    assert measured(lambda: refused(lambda: load(path))) < 20_000_000
    path.write_bytes(tar({"cifar-10-batches-py/data_batch_1": bytes((1 << 20) + 1)}))
    assert "has 1048577 bytes: expected at most 1048576" in refused(lambda: load(path))
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(bytes((1 << 20) + 1))
    assert "more than 1048576 bytes" in refused(lambda: load(tmp_path))
