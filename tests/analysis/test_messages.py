"""What became of messages: by hand, against the engine's own totals, and in traces of older versions."""

import shutil

import h5py
import numpy as np
import pytest

import pcsim
from pcsim.analysis import message_counts, messages
from pcsim.analysis.stream import NotRecordedError
from pcsim.schedule.channel import Channels, Dead, Faults, Messages, Rounding
from pcsim.schedule.message import Fate
from pcsim.tracing import Column, TraceWriter, open_trace
from pcsim.tracing.recorder import EVENT_FATES, EVENT_FIELDS, EVENT_KINDS, EVENT_NAMES, ROUNDING_FIELDS

FAULTS = Faults(
    loss=0.1, duplication=0.2, delay=0.2, reorder=0.2, delay_time=3.0, dead=Dead(1, step=4), seed=3
)


def experiment(channels, order="sequential", **more):
    """Return a short experiment that keeps all events."""
    return pcsim.Experiment(
        network=pcsim.Network.dense([64, 8, 7, 10], seed=2),
        dataset=pcsim.load_dataset("digits"),
        rule=pcsim.SGD(1e-2),
        schedule=pcsim.Schedule(order, iterations=3, step_size=0.1),
        batch=256,
        epochs=2,
        record_every=1,
        channels=channels,
        **more,
    )


def written(path, events, rounds=True):
    """Write a trace of given events: dictionaries; what they do not say is 0."""
    columns = {
        "step": Column((), "int64", "training step"),
        "kind": Column((), "int8", "kind", flags=EVENT_KINDS),
        "name": Column((), "int8", "name", flags=EVENT_NAMES),
        "fate": Column((), "int8", "fate", flags=EVENT_FATES),
        **EVENT_FIELDS,
        **(ROUNDING_FIELDS if rounds else {}),
    }
    words = {"kind": EVENT_KINDS, "name": EVENT_NAMES, "fate": EVENT_FATES}
    with TraceWriter(path, {"layers": [2, 3, 2], "iterations": 1}, overwrite=True) as writer:
        table = writer.table("events", "event", columns)
        for event in events:
            coded = {name: words[name].index(event[name]) for name in words}
            table.append(**(dict.fromkeys(columns, 0) | {"target": -1} | event | coded))
    return path


def message(step, layer, target, fate="arrives", **amounts):
    """Return a message."""
    name = "prediction" if target > layer else "error"
    where = {"kind": "message", "name": name, "layer": layer, "target": target}
    return {"step": step, "fate": fate, **where, **amounts}


def test_the_words_are_the_simulators():
    """Analyses read words, which have to be those that the engine writes."""
    assert set(messages.FATES) == set(Fate)
    assert list(EVENT_FATES) == ["none", *Fate]


def test_counts_by_hand(tmp_path):
    """One link with each fate, another silenced by a dead core, in two iterations and two steps."""
    silent = {"step": 5, "kind": "operation", "fate": "unsent", "iteration": 1, "layer": 1}
    sizes = {"values": 4, "nonzero_values": 3, "bytes": 12}
    path = written(
        tmp_path / "t.h5",
        [
            message(0, 0, 1, **sizes),
            message(0, 0, 1, "lost", **sizes),
            message(0, 0, 1, "copy", **sizes),
            message(5, 0, 1, "delayed", iteration=1, **sizes),
            message(5, 0, 1, "reordered", iteration=1, **sizes),
            {"name": "compare", **silent},
            {"name": "predict", **silent},
            {"name": "predict", **silent, "fate": "none", "layer": 0},
        ],
    )
    found = message_counts(path)
    links = list(zip(found.source.values.tolist(), found.target.values.tolist()))
    assert links == [(0, 1), (1, 2), (1, 0)]
    fates = found.messages.sum("iteration").values
    #                       arrives delayed reordered copy lost unsent
    assert fates.tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]]
    assert found["values"].values.tolist() == [[12, 8], [0, 0], [0, 0]]
    assert found.moment.values.tolist() == [0, 5]
    assert found.moment_nonzero_values.values[0].tolist() == [9, 6]
    assert found.moment_messages.sel(fate="unsent").values.tolist() == [[0, 0], [0, 1], [0, 1]]
    assert found.attrs["recorded_steps"] == 2


def test_rounding_by_hand(tmp_path):
    """Two messages of 1 and 3 numbers: the mean square is weighted by their numbers, √((1·4 + 3·0)/4) = 1."""
    first = {"values": 1, "rounding_error": 2.0, "root_mean_square": 2.0, "largest": 2.5}
    second = {"values": 3, "rounding_error": 0.0, "root_mean_square": 2.0, "largest": 2.0}
    kept = {"step": 0, "kind": "operation", "name": "relax", "fate": "none", "layer": 1, "iteration": 1}
    path = written(
        tmp_path / "t.h5",
        [
            message(0, 0, 1, **first),
            message(0, 0, 1, **second),
            {**kept, "rounding_error": 0.25, "root_mean_square": 1.0, "largest": 1.5},
            {**kept, "name": "learn"},  # which rounds nothing
        ],
    )
    found = message_counts(path)
    assert found.rounding_error.values[0, 0] == pytest.approx(1.0)
    assert found.root_mean_square.values[0, 0] == pytest.approx(2.0)
    assert found.largest.values[0, 0] == 2.5
    assert np.isnan(found.rounding_error.values[0, 1])
    assert found.activity_rounding_error.values[1].tolist() == pytest.approx([np.nan, 0.25], nan_ok=True)
    assert found.activity_largest.values[1, 1] == 1.5


@pytest.mark.parametrize("order", ["sequential", "asynchronous"])
def test_counts_are_those_of_the_engine(tmp_path, order, monkeypatch):
    """Faults of every kind: the sums over all recorded steps are the engine's totals, in blocks of a row."""
    monkeypatch.setattr(messages, "BLOCK_BYTES", 1)
    given = experiment(Channels(faults=FAULTS), order)
    summary = pcsim.run(given, engine="event", trace=tmp_path / "t.h5")
    found = message_counts(tmp_path / "t.h5")
    fates = {fate: int(found.messages.sel(fate=fate).sum()) for fate in messages.FATES}
    assert all(fates.values()), fates
    assert sum(fates.values()) - fates["unsent"] == summary.messages
    assert fates["lost"] + fates["unsent"] == summary.lost
    assert int(found["values"].sum()) == int(found.moment_values.sum()) == summary.values
    assert int(found.nonzero_values.sum()) == summary.nonzero_values
    silent = found.sel(link=found.source == 1).moment_messages.sel(fate="unsent")
    assert int(silent.sum()) == fates["unsent"]
    assert not silent.sel(moment=silent.moment < 4).any()
    assert (silent.sel(moment=silent.moment >= 4) > 0).all()


def test_recorded_rounding_is_that_of_the_format(tmp_path):
    """Q3.3 rounds by half a step of 1/8 at most, and leaves less than the numbers themselves."""
    numbers = Rounding("Q3.3")
    given = experiment(Channels(Messages(numbers=numbers), Messages(numbers=numbers), states=numbers))
    pcsim.run(given, engine="event", trace=tmp_path / "t.h5")
    found = message_counts(tmp_path / "t.h5")
    for prefix in ("", "activity_"):
        error, size = found[f"{prefix}rounding_error"].values, found[f"{prefix}root_mean_square"].values
        there = np.isfinite(error)
        assert there.any()
        assert (error[there] <= 2**-4).all()
        assert (error[there] <= size[there]).all()
        assert (found[f"{prefix}largest"].values[there] >= size[there]).all()
    assert (found.rounding_error.values[np.isfinite(found.rounding_error.values)] > 0).any()


def test_long_trainings_are_divided(tmp_path):
    """More steps than moments: each moment has as many recorded steps, and nothing is left out."""
    steps = 2 * messages.MOST_MOMENTS
    path = written(tmp_path / "t.h5", [message(step, 0, 1, values=1) for step in range(steps)])
    found = message_counts(path)
    assert found.sizes["moment"] == messages.MOST_MOMENTS
    assert (found.moment_values.values == 2).all()
    assert found.moment.values.tolist() == list(range(0, steps, 2))


def test_older_traces_still_read(tmp_path):
    """A trace of version 2 has no such column: all its messages have arrived."""
    path = tmp_path / "t.h5"
    pcsim.run(experiment(Channels(Messages(0.0))), engine="event", trace=path)
    new = message_counts(path)
    old = shutil.copy(path, tmp_path / "old.h5")
    with h5py.File(old, "r+") as file:
        file.attrs["schema_version"] = 2
        del file["events/fate"]
    assert "fate" in open_trace(path).table("events").columns
    found = message_counts(old)
    assert found.messages.equals(new.messages)
    assert int(found.messages.sel(fate="arrives").sum()) == int(found.messages.sum()) > 0


def test_dense_runs_have_no_columns_about_rounding(tmp_path):
    """They would be zeros; without events there is nothing to count."""
    pcsim.run(experiment(Channels()), engine="event", trace=tmp_path / "t.h5")
    assert "rounding_error" not in message_counts(tmp_path / "t.h5")
    pcsim.run(experiment(Channels(Messages(0.0))), engine="fast", trace=tmp_path / "f.h5")
    with pytest.raises(NotRecordedError, match="no recorded events"):
        message_counts(tmp_path / "f.h5")
