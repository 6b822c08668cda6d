"""A short turn of the fuzz that is led by coverage, where atheris is installed; guided.py is the long one."""

import pytest
from hostile import guided

pytest.importorskip("atheris")


@pytest.mark.parametrize("target", ["mapping", "model file"])
def test_files_that_reach_new_code_give_a_result_or_one_line(target):
    """Mutations that follow pcsim's branches find them, and nothing but results and our own errors."""
    found = guided.guided(target, 400)
    assert found.bad == ""
    assert found.inputs >= 400
    assert found.reached >= found.before > 0


def test_it_sees_what_it_looks_for(monkeypatch, tmp_path):
    """A harness that misses a traceback would praise anything; the bad file is kept."""
    sabotage = tmp_path / "worker.py"
    text = guided.WORKER.read_text()
    call = "        path.write_bytes(content)\n        try:\n            one.read(path)"
    assert text.count(call) == 1
    sabotage.write_text(text.replace(call, f"{call}\n            raise KeyError('x')"))
    monkeypatch.setattr(guided, "WORKER", sabotage)
    found = guided.guided("mapping", 10, keep=tmp_path / "kept")
    assert found.bad == "bad: KeyError: 'x'"
    assert [path.name.startswith("mapping-crash-") for path in (tmp_path / "kept").iterdir()] == [True]
