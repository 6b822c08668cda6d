"""What a run does between its training steps."""

from __future__ import annotations

import pytest

import pcsim
from pcsim.engine.event import EventEngine
from pcsim.errors import NonFiniteError


def experiment(rule: object, every: int) -> pcsim.Experiment:
    """Return an epoch of 14 training steps."""
    network = pcsim.Network.dense([64, 9, 10], seed=2)
    return pcsim.Experiment(
        network, pcsim.load_dataset("digits"), rule, pcsim.Schedule(), batch=100, record_every=every
    )


@pytest.mark.parametrize("every", [1, 2, 1000])
def test_a_run_that_blows_up_has_one_last_row(tmp_path, every):
    """The row is the last thing there is to know; whoever counts rows must not see the step twice."""
    with pytest.raises(NonFiniteError) as caught:
        pcsim.run(experiment(pcsim.SGD(1e30), every), trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        steps = trace.table("summary").read("step").tolist()
    assert steps == sorted({*range(0, caught.value.step, every), caught.value.step})


def test_timelines_are_made_only_for_the_trace(tmp_path, monkeypatch):
    """To list all events takes a third of a small step; of most steps nobody asks for them."""
    made, timeline = [], EventEngine.timeline.fget
    monkeypatch.setattr(EventEngine, "timeline", property(lambda one: made.append(1) or timeline(one)))
    pcsim.run(experiment(pcsim.SGD(0.1), 5), engine="event", trace=tmp_path / "t.h5")
    assert len(made) == 3
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        assert set(trace.table("events").read("step").tolist()) == {0, 5, 10}
