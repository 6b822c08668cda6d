"""The file that a trace's bytes go to, where the system does not do all that Linux can."""

import errno
import os

import pytest

from pcsim.tracing.ordered_file import OrderedFile

CONTENT = os.urandom(300_000)


def refusing(number, after=0):
    """Return a copy_file_range that copies so many bytes and then raises an error, or stops."""

    def copy_file_range(source, target, count, offset_src, offset_dst):
        if offset_src < after:
            return os.pwrite(target, os.pread(source, after - offset_src, offset_src), offset_dst)
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    return copy_file_range


def copied(path):
    """Return what a file that begins with another's bytes has, and shows in the end."""
    file = OrderedFile(path.with_name("b.h5"), start_from=path)
    assert file.seek(0, os.SEEK_END) == len(CONTENT)
    file.write(b"more")
    file.commit()
    file.close()
    return path.with_name("b.h5").read_bytes()


@pytest.mark.parametrize("after", [0, 1000])
@pytest.mark.parametrize("name", ["", "ENOSYS", "EXDEV", "EOPNOTSUPP", "EINVAL", "EPERM"])
def test_file_systems_that_do_not_copy(tmp_path, monkeypatch, name, after):
    """Resuming a trace failed on some in a network; others copy nothing, or not all, and do not say so."""
    (tmp_path / "a.h5").write_bytes(CONTENT)
    monkeypatch.setattr(os, "copy_file_range", refusing(getattr(errno, name, 0), after))
    assert copied(tmp_path / "a.h5") == CONTENT + b"more"


def test_systems_that_cannot_be_asked_to(tmp_path, monkeypatch):
    """Nor is there such a call on macOS."""
    (tmp_path / "a.h5").write_bytes(CONTENT)
    monkeypatch.delattr(os, "copy_file_range")
    assert copied(tmp_path / "a.h5") == CONTENT + b"more"


def test_a_full_disk_is_no_reason_to_copy_again(tmp_path, monkeypatch):
    """What has nothing to do with sharing blocks is said, and nothing stays behind."""
    (tmp_path / "a.h5").write_bytes(CONTENT)
    monkeypatch.setattr(os, "copy_file_range", refusing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        OrderedFile(tmp_path / "b.h5", start_from=tmp_path / "a.h5")
    assert [one.name for one in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("taken", [True, False], ids=["replaced", "removed"])
def test_a_file_that_has_lost_its_name(tmp_path, taken):
    """A run whose trace somebody else had replaced with --force went on and reported success."""
    path = tmp_path / "t.h5"
    ours = OrderedFile(path)
    ours.write(b"ours")
    ours.commit()
    ours.commit()
    path.unlink()
    if taken:
        path.write_bytes(b"theirs")
    ours.write(b"more")
    with pytest.raises(OSError, match="somebody else has replaced or removed it"):
        ours.commit()
    ours.close()
    assert not taken or path.read_bytes() == b"theirs"
