"""What a run may overwrite: its own traces and checkpoints, and nothing that stands where they should."""

import os
import subprocess
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest

from pcsim.errors import CheckpointError, TraceError
from pcsim.experiments.checkpoint import FILE, Checkpoint
from pcsim.tracing import TraceWriter, open_trace

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
RUN = ["run", "digits", "--set", "training.epochs=1", "--threads", "1"]


def foreign(folder, kind):
    """Put something there that is no trace, and return what shows whether it was touched."""
    path = folder / "t.h5"
    victim = folder / "thesis.txt"
    victim.write_text("text")
    if kind == "link to a file":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 3))
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("no trace at all")
    return path, lambda: (
        path.lstat().st_mode,
        path.lstat().st_ino,
        victim.read_text(),
        sorted(os.listdir(folder)),
    )


@pytest.mark.parametrize("kind", ["link to a file", "dangling link", "folder", "device", "pipe", "text"])
def test_force_replaces_traces_only(tmp_path, kind):
    """`--force` says "this trace again", not "whatever is there"."""
    try:
        path, state = foreign(tmp_path, kind)
    except PermissionError:
        pytest.skip("only root may make a device")
    before = state()
    command = [*PCSIM, *RUN, "--trace", str(path), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line][-1].startswith(f"error: {path}")
    assert "Traceback" not in done.stderr
    assert state() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_put_there_during_a_run_is_not_followed(tmp_path, overwrite):
    """Between the look and the first flush anybody may put a link in the way: it is refused or replaced."""
    victim, path = tmp_path / "thesis.txt", tmp_path / "t.h5"
    victim.write_text("text")
    refused = nullcontext() if overwrite else pytest.raises(TraceError, match=r"t\.h5 exists; pass --force")
    with refused, TraceWriter(path, {}, overwrite=overwrite):
        path.symlink_to(victim)
    assert victim.read_text() == "text"
    assert path.is_symlink() != overwrite
    if overwrite:
        with open_trace(path) as trace:
            assert trace.state == "complete"


def test_checkpoints_follow_no_link(tmp_path):
    """A checkpoint that is a link is replaced by a file; what the link points to stays as it was."""
    victim = tmp_path / "thesis.txt"
    victim.write_text("text")
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / FILE).symlink_to(victim)
    Checkpoint({}, {"weight_0": np.ones(3)}).save(folder)
    assert victim.read_text() == "text"
    assert [file.name for file in folder.iterdir()] == [FILE]
    assert not (folder / FILE).is_symlink()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_reading_what_is_no_file(tmp_path, kind):
    """A pipe must not make a reader wait for ever."""
    try:
        path, _ = foreign(tmp_path, kind)
    except PermissionError:
        pytest.skip("only root may make a device")
    path.rename(tmp_path / FILE)
    refused = []

    def read():
        for reader in (open_trace, lambda path: Checkpoint.load(path.parent, {})):
            try:
                reader(tmp_path / FILE)
            except (TraceError, CheckpointError) as error:
                refused.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert len(refused) == 2
    assert not any("\n" in line for line in refused)
