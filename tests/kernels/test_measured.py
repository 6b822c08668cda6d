"""The file of self-tests: shared by processes and machines, and perhaps damaged."""

import json
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from pcsim.kernels import measured
from pcsim.kernels.measured import Measured, keep, load

HERE, THERE = {"processor": "one"}, {"processor": "another"}
NAMES = ("pcsim", "numpy")
LINE = Measured("predict", 64, 256, 128, "float32", "numpy", 12.5)
DAMAGES = [
    {"batch": "64"},
    {"batch": True},
    {"gflops": None},
    {"provider": "nobody"},
    {"provider": ["numpy"]},
    {"more": 1},
]


def line(provider, inputs=256):
    """Return a line of a prediction."""
    return Measured("predict", 64, inputs, 128, "float32", provider, 1.0)


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damaged_lines_are_left_out(tmp_path, damage):
    """A line that somebody has edited must not end a run, days later, when its product is wanted."""
    path = tmp_path / "products.json"
    path.write_text(json.dumps({"machine": HERE, "measured": [asdict(LINE) | damage, asdict(LINE), 7]}))
    assert load(path, HERE, NAMES) == [LINE]


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "7", '{"machine": {"processor": "one"}, "measured": {}, "others": 7}', "\xff"],
    ids=["deep", "a number", "of other types", "no text"],
)
def test_damaged_files_are_done_without(tmp_path, content):
    """So is a file that is none of ours; it is replaced by what is found."""
    path = tmp_path / "products.json"
    path.write_bytes(content.encode("latin1"))
    assert load(path, HERE, NAMES) == []
    assert keep(path, HERE, NAMES, [LINE]) == [LINE] == load(path, HERE, NAMES)


def test_who_was_first_decides(tmp_path):
    """Two processes that measure the same at once must multiply alike, now and in later runs."""
    path = tmp_path / "products.json"
    assert keep(path, HERE, NAMES, [line("numpy")]) == [line("numpy")]
    assert keep(path, HERE, NAMES, [line("pcsim")]) == [line("numpy")] == load(path, HERE, NAMES)


def test_no_line_gets_lost(tmp_path):
    """Whoever wrote last replaced what others had found since it had read."""
    path, count, returned = tmp_path / "products.json", 12, []

    def work(number):
        returned.append(keep(path, HERE, NAMES, [line("pcsim", number), line(NAMES[number % 2])]))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    kept = load(path, HERE, NAMES)
    assert {one.inputs for one in kept} == {*range(count), 256}
    (shared,) = (one for one in kept if one.inputs == 256)
    assert all(shared in lines for lines in returned)


def test_machines_share_a_file(tmp_path):
    """Where several machines have one home, each replaced the others' lines, and they measured anew."""
    path = tmp_path / "products.json"
    for machine, provider in ((HERE, "numpy"), (THERE, "pcsim"), (HERE, "pcsim")):
        keep(path, machine, NAMES, [line(provider)])
    assert load(path, HERE, NAMES) == [line("numpy")]
    assert load(path, THERE, NAMES) == [line("pcsim")]


def test_a_file_that_cannot_be_written(tmp_path, monkeypatch):
    """A run goes on with what it has found, whatever the file system says, and leaves nothing behind."""
    (tmp_path / "file").touch()
    assert keep(tmp_path / "file" / "products.json", HERE, NAMES, [LINE]) == [LINE]

    def refuse(*_, **__):
        raise PermissionError

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    assert keep(tmp_path / "products.json", HERE, NAMES, [LINE]) == [LINE]


def test_nobody_is_waited_for_for_long(tmp_path, monkeypatch):
    """A process that was stopped while it wrote must not stop all others; they read, and do not write."""
    path = tmp_path / "products.json"
    keep(path, HERE, NAMES, [LINE])
    monkeypatch.setattr(measured, "PATIENCE", 0.02)
    with measured._alone(path) as mine:
        assert mine
        assert keep(path, HERE, NAMES, [line("pcsim"), line("pcsim", 1)]) == [LINE, line("pcsim", 1)]
    assert load(path, HERE, NAMES) == [LINE]
