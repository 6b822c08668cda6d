"""Disks that are full or read-only, real ones: a small tmpfs in a mount namespace of the test's own."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("disk_child.py")


def on_a_disk(kind, tmp_path):
    """Run the child on a mounted disk; skip where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["unshare", "--mount", sys.executable, str(CHILD), kind, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()[-100:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_disk_that_fills_during_a_run(tmp_path):
    """One line, exit status 2, and every row that was flushed can be read."""
    status, message, rows, state = on_a_disk("full", tmp_path)
    assert status == "2"
    assert message == f"error: cannot write {tmp_path}/disk/t.h5: No space left on device"
    assert int(rows) > 0
    assert state == "running"  # as last written: there was no room to say more


def test_a_disk_that_fills_under_a_checkpoint(tmp_path):
    """The checkpoint before stays, and the run goes on from it once there is room."""
    status, message, kept, resumed, leftovers = on_a_disk("checkpoint", tmp_path)
    assert status == "2"
    assert message == f"error: cannot write a checkpoint to {tmp_path}/disk: No space left on device"
    assert int(kept) >= 1
    assert resumed == "0"
    assert leftovers == ".lock checkpoint.safetensors"


def test_a_read_only_disk(tmp_path):
    """Nothing can be written at all: said before the training."""
    (*messages,) = on_a_disk("read-only", tmp_path)
    assert messages == [
        f"2 error: cannot write {tmp_path}/disk/t.h5: Read-only file system",
        f"2 error: cannot write {tmp_path}/disk: Read-only file system",
    ]
