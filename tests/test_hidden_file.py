"""Files appear whole or not at all; what kills leave beside one goes when it is next written, no more."""

import errno
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from pcsim import hidden_file
from pcsim.experiments.checkpoint import FILE, Bookmark, Checkpoint
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hidden_file import replacing
from pcsim.report.files import save_bytes
from pcsim.tracing.ordered_file import OrderedFile


def hidden(folder):
    """Return the names of the hidden files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def die_with_a_file(path):
    """Begin a trace's file and be killed before it appears."""
    OrderedFile(path).write(b"some bytes")
    os.kill(os.getpid(), signal.SIGKILL)


def die_within_a_checkpoint(folder):
    """Be killed while a checkpoint is being written."""
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    Checkpoint({}, {"weight": np.zeros(3)}).save(folder)


def killed(function, *arguments):
    """Run a function in a process of its own that does not survive it."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def save_mapping(path, number):
    """Write a mapping of so many neurons."""
    tiles = [Tile(0, first, first + 1, 0) for first in range(number)]
    Mapping("unit", Chip(1, 1), (number,), tiles, "row").save(path, overwrite=True)


def save_picture(path, number):
    """Write that byte, many times."""
    save_bytes(path, bytes([number]) * 100_000)


WRITERS = {"picture": save_picture, "mapping": save_mapping}


@pytest.mark.parametrize("kind", WRITERS)
def test_two_who_write_one_file_at_once(tmp_path, kind):
    """They shared one hidden name: the first to end took the other's file away, and it failed."""
    write, path, start, failed = WRITERS[kind], tmp_path / "out", threading.Barrier(2), []

    def often(number):
        start.wait()
        try:
            for _ in range(50):
                write(path, number)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=often, args=(number,)) for number in (40, 41)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    found, whole = path.read_bytes(), []
    for number in (40, 41):
        write(path, number)
        whole.append(path.read_bytes())
    assert found in whole


def test_a_file_that_is_replaced(tmp_path):
    """It is seen when it is whole, with the rights that any new file has; a failure leaves the one before."""
    path = tmp_path / "out"
    before = os.umask(0o027)
    try:
        with replacing(path) as file:
            file.write(b"first")
            assert not path.exists()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640

    def fail():
        with replacing(path) as file:
            file.write(b"second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def die_with_a_picture(path):
    """Be killed while a picture is being written."""
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    save_bytes(path, b"a picture")


def test_the_next_picture_removes_what_a_kill_left(tmp_path):
    """Hidden names are new each time, so nobody else would."""
    path = tmp_path / "picture.svg"
    killed(die_with_a_picture, path)
    assert len(hidden(tmp_path)) == 1
    save_bytes(path, b"another")
    assert [one.name for one in tmp_path.iterdir()] == ["picture.svg"]


def test_the_next_writer_of_a_trace_removes_what_a_kill_left(tmp_path):
    """A long run that is killed often must not fill its folder with copies of its trace."""
    path = tmp_path / "run.h5"
    killed(die_with_a_file, path)
    assert len(hidden(tmp_path)) == 1
    other = OrderedFile(tmp_path / "other.h5")  # of another file: not its business
    assert len(hidden(tmp_path)) == 2
    other.close()
    file = OrderedFile(path)
    assert len(hidden(tmp_path)) == 1
    file.commit()
    file.close()
    assert [one.name for one in tmp_path.iterdir()] == ["run.h5"]


def test_the_next_run_removes_what_a_kill_left_of_a_checkpoint(tmp_path):
    """Likewise for checkpoints, also where there is none yet to go on from."""
    killed(die_within_a_checkpoint, tmp_path)
    assert len(hidden(tmp_path)) == 1
    assert Bookmark.open(tmp_path, True, {}).found is None
    assert hidden(tmp_path) == []


def test_an_interrupted_checkpoint_leaves_nothing(tmp_path, monkeypatch):
    """Ctrl-C while a checkpoint is written: the one before stays, and nothing beside it."""
    Checkpoint({}, {"weight": np.zeros(3)}).save(tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Checkpoint({}, {"weight": np.ones(3)}).save(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_bytes() == before


def test_what_is_in_use_or_not_ours_stays(tmp_path):
    """A second process that writes the same file, and files that only look alike, lose nothing."""
    path = tmp_path / "run.h5"
    first = OrderedFile(path)
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".run.h5.0123abcd.partial").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".run.h5.partial").touch()
    (tmp_path / ".runxh5.0123abcd.partial").touch()
    os.mkfifo(tmp_path / ".run.h5.89abcdef.partial")
    names = hidden(tmp_path)
    second = OrderedFile(path, replace=True)
    assert set(names) < set(hidden(tmp_path))
    assert (tmp_path / "elsewhere").read_text() == "precious"
    for file in (first, second):
        file.commit()
        file.close()
    assert len(hidden(tmp_path)) == len(names) - 1  # the first has appeared under its name


def test_a_file_that_is_taken_away_before_it_is_locked(tmp_path, monkeypatch):
    """Between its creation and its lock another writer may take it for abandoned: a new one is made."""
    real, taken = hidden_file.fcntl.flock, []

    def flock(descriptor, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        real(descriptor, operation)

    monkeypatch.setattr(hidden_file.fcntl, "flock", flock)
    made, descriptor = hidden_file.create(tmp_path / "run.h5")
    os.close(descriptor)
    assert made.exists()
    assert made != taken[0]


def test_a_file_that_is_just_being_taken_away(tmp_path, monkeypatch):
    """Another writer may have it locked already, and be about to remove it."""
    real, taken, others = hidden_file.fcntl.flock, [], []

    def flock(descriptor, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            others.append(os.open(taken[0], os.O_RDWR))
            real(others[0], operation)
        real(descriptor, operation)

    monkeypatch.setattr(hidden_file.fcntl, "flock", flock)
    made, descriptor = hidden_file.create(tmp_path / "run.h5")
    taken[0].unlink()
    os.close(others[0])
    os.close(descriptor)
    assert made.exists()


@pytest.fixture(params=["links", "no links"])
def links(request, monkeypatch):
    """File systems with hard links, and one without."""

    def refuse(*names):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def test_one_of_many_gets_a_new_name(tmp_path, links):
    """Two runs that were started together on one trace both ended well, and one trace was lost."""
    for number in range(20):
        path, start, got, lost = tmp_path / f"{number}.h5", threading.Barrier(4), [], []

        def place(name, path=path, start=start, got=got, lost=lost):
            file = OrderedFile(path)
            file.write(name)
            start.wait()
            try:
                file.commit()
                got.append(name)
            except FileExistsError:
                lost.append(name)
            file.close()

        threads = [threading.Thread(target=place, args=(bytes([one]),)) for one in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(got), len(lost)) == (1, 3)
        assert path.read_bytes() == got[0]
    assert hidden(tmp_path) == []


def test_a_file_that_gets_its_name_is_not_abandoned(tmp_path, monkeypatch):
    """It has to be unlocked for that, and another run that begins at this moment took it away."""
    real, path = os.link, tmp_path / "run.h5"
    other = threading.Thread(target=hidden_file.remove_abandoned, args=(path,))

    def link(*names, **options):
        other.start()
        other.join(0.05)
        real(*names, **options)

    monkeypatch.setattr(os, "link", link)
    file = OrderedFile(path)
    file.commit()
    file.close()
    other.join()
    assert [one.name for one in tmp_path.iterdir()] == ["run.h5"]


def die_with_two_names(path):
    """Be killed when the file has its name, but still the hidden one, too."""
    Path.unlink = lambda self, **options: os.kill(os.getpid(), signal.SIGKILL)
    file = OrderedFile(path)
    file.write(b"some bytes")
    file.commit()


def test_a_kill_between_two_names(tmp_path):
    """The file is whole under its own name, and the next writer removes the other one."""
    path = tmp_path / "run.h5"
    killed(die_with_two_names, path)
    assert path.read_bytes() == b"some bytes"
    assert len(hidden(tmp_path)) == 1
    OrderedFile(path, start_from=path, replace=True).close()
    assert [one.name for one in tmp_path.iterdir()] == ["run.h5"]
    assert path.read_bytes() == b"some bytes"


def test_a_folder_that_a_stranger_has_locked(tmp_path, monkeypatch):
    """Its lock only keeps our own writers out of each other's way: nobody waits for it for long."""
    monkeypatch.setattr(hidden_file, "PATIENCE", 0.01)
    stranger = os.open(tmp_path, os.O_RDONLY)
    hidden_file.fcntl.flock(stranger, hidden_file.fcntl.LOCK_EX)
    file = OrderedFile(tmp_path / "run.h5")
    file.commit()
    file.close()
    os.close(stranger)
    assert hidden(tmp_path) == []
