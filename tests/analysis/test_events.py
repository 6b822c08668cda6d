"""Event counts against the engine's own totals and a plain loop over the rows."""

import shutil

import h5py
import numpy as np
import pytest

from pcsim import analysis
from pcsim.analysis import stream
from pcsim.errors import TraceError
from pcsim.tracing import open_trace

ORDERS = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental", "asynchronous")


@pytest.mark.parametrize("order", ORDERS)
def test_totals_are_those_of_the_run(make, order):
    """Where each step is recorded, sums over layers are what the engine has counted while running."""
    run = make(order, "event", every=1)
    found = analysis.event_counts(run.path)
    with open_trace(run.path) as trace:
        learning = trace.table("learning")
        total = {name: learning.read(name)[-1] for name in learning.columns}
        recorded = trace.table("summary").rows
    messages = found.where(found.kind == "message", drop=True)
    assert int(messages["count"].sum()) == total["messages"]
    assert int(found["values"].sum()) == total["values"]
    assert int(found.nonzero_values.sum()) == total["nonzero_values"]
    assert int(found.multiplications.sum()) == total["multiplications"]
    assert found.attrs["recorded_steps"] == recorded


@pytest.mark.parametrize("order", ORDERS)
def test_counts_are_those_of_a_plain_loop(make, order, monkeypatch):
    """Blocks of 16 rows and one row after the other in Python give the same table."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", 1024)
    run = make(order, "event")
    found = analysis.event_counts(run.path)
    with open_trace(run.path) as trace:
        events = trace.table("events")
        rows = {name: events.read(name) for name in events.columns if name not in ("kind", "name")}
        rows |= {name: events.decode(name) for name in ("kind", "name")}
    count = {}
    for row in range(len(rows["step"])):
        key = rows["name"][row], int(rows["layer"][row])
        link = int(rows["layer"][row]), int(rows["target"][row])
        amounts = [rows[name][row] for name in ("values", "nonzero_values", "bytes", "multiplications")]
        amounts += [1, rows["end"][row] - rows["start"][row]]
        count[key] = count.get(key, 0) + np.array(amounts)
        if rows["kind"][row] == "message":
            count[link] = count.get(link, 0) + np.array(amounts)
    for event in found.event.values:
        for layer in found.layer.values:
            cell = found.sel(event=event, layer=layer)
            expected = count.get((event, int(layer)), np.zeros(6))
            names = ("values", "nonzero_values", "bytes", "multiplications", "count", "time")
            assert [float(cell[name]) for name in names] == pytest.approx(expected)
            if expected[0]:
                assert float(cell.density) == expected[1] / expected[0]
    for source in found.source.values:
        for target in found.target.values:
            expected = count.get((int(source), int(target)), np.zeros(6))
            link = found.sel(source=source, target=target)
            names = ("link_values", "link_nonzero_values", "link_bytes", "link_messages")
            assert [int(link[name]) for name in names] == list(expected[[0, 1, 2, 4]])


def test_only_neighbours_talk(make):
    """The traffic matrix of a local network has nothing but its two diagonals."""
    links = analysis.event_counts(make("simultaneous", "event").path).link_messages.values
    far = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) != 1
    assert not links[far].any()
    assert links[~far].all()


def test_the_fast_engine_records_no_events(make):
    """The error says which engine does."""
    with pytest.raises(stream.NotRecordedError, match="--engine event"):
        analysis.event_counts(make("sequential", "fast").path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"name": (5, 77)}, "column 'name': 77, expected 0 to 8"),
        ({"kind": (5, -1)}, "column 'kind': -1, expected 0 to 1"),
        ({"layer": (3, -4), "target": (5, 9)}, "column 'layer': -4, expected 0 to 4"),
        ({"target": (5, 9)}, "column 'target': 9, expected -1 to 4"),
        ({"iteration": (5, 99)}, "column 'iteration': 99, expected 0 to 4"),
        ({"end": (5, np.nan)}, "column 'end': nan, expected a finite number from 0"),
        ({"bytes": (5, -8)}, "column 'bytes': -8, expected a finite number from 0"),
    ],
)
def test_damaged_events_are_refused(make, tmp_path, refused, damage, words):
    """What cannot be is not used as an index, nor as the size of an array: one line says where it is."""
    path = tmp_path / "damaged.h5"
    shutil.copy(make("sequential", "event").path, path)
    with h5py.File(path, "r+") as file:
        for column, (row, value) in damage.items():
            file[f"events/{column}"][row] = value
    with open_trace(path) as trace, pytest.raises(TraceError, match=r"damaged\.h5: table 'events', "):
        trace.verify()
    if not {"kind", "iteration"} & damage.keys():  # which counting does not read
        refused("analyze", path, saying=[f"table 'events', {words}"])
    with open_trace(path) as trace, pytest.raises(TraceError, match=f"{words}$"):
        trace.table("events").read(next(iter(damage)))


@pytest.mark.parametrize("order", ORDERS)
def test_whole_events_are_whole(make, order):
    """No order writes what the check refuses."""
    with open_trace(make(order, "event").path) as trace:
        assert trace.table("events").rows > 0
        trace.verify()


def test_backprop_sends_nothing(make, command):
    """A run of the baseline has no iterations and no messages: no advice that cannot help."""
    shown = command("analyze", make(engine="backprop", record=None).path)
    assert shown.returncode == 0, shown.stderr
    assert "backprop sends no messages" in shown.stdout
    assert "--engine event" not in shown.stdout
    assert "sparsity: not recorded; this trace has no probe with activities" in shown.stdout
    assert "add record" not in shown.stdout
    fast = command("analyze", make(record=None).path).stdout
    assert "and samples = 8 to a [probe.NAME] section" in fast
    assert "rises" not in shown.stdout.partition("Update")[0].replace("rises in", "")
