"""A short run of the fuzz; `python tests/hostile/fuzz.py --count 10000` is the long one."""

import os

import pytest
from hostile.fuzz import TESTS, fuzz
from hostile.targets import TARGETS

COUNT = int(os.environ.get("PCSIM_FUZZ", "300"))
SLOW_TO_MAKE = {"trace, structure": 4}  # so many times fewer: HDF5 writes each input


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_give_a_result_or_one_line(target):
    """No exception but ours, no dead process, no hang, no more memory than a few files need."""
    count = COUNT // SLOW_TO_MAKE.get(target, 1)
    tally = fuzz(target, count, seed=1)
    assert tally.bad == []
    assert tally.outcomes.keys() == {"good", "refused"}  # damage that never matters would prove nothing
    assert tally.done == count
    assert tally.peak < 600  # MiB, NumPy, h5py and pydantic included


@pytest.mark.parametrize(
    ("what", "outcome"), [("raise KeyError('x')", "bad"), ("seed >= 0 and os.abort()", "crashed")]
)
def test_the_fuzz_sees_what_it_looks_for(monkeypatch, tmp_path, what, outcome):
    """A harness that misses tracebacks or dead processes would praise anything."""
    sabotage = tmp_path / "worker.py"
    text = (TESTS / "hostile" / "worker.py").read_text()
    assert text.count("one.read(path)") == 1
    sabotage.write_text(
        f"import os\n{text.replace('from __future__ import annotations', '')}".replace("one.read(path)", what)
    )
    monkeypatch.setattr("hostile.fuzz.WORKER", sabotage)
    tally = fuzz("mapping", 3)
    assert tally.outcomes == {outcome: 3}
    assert [number for number, _ in tally.bad] == [0, 1, 2]
