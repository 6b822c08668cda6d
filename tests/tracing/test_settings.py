"""What a run was told of messages, states, faults and hardware is said of its trace, where it is unusual."""

import pytest
from typer.testing import CliRunner

import pcsim
from pcsim.cli import app
from pcsim.config import load_model
from pcsim.report.runs import read_run
from pcsim.report.tables import facts
from pcsim.tracing.reader import open_trace
from pcsim.tracing.settings import SECTIONS, machine_of, said_not_sent, unusual

SMALL = ["network.layers=[64, 6, 10]", "training.epochs=1", "training.batch=700", "trace.every=1000"]
SETTINGS = {
    "messages.threshold=0": {"[messages]": "threshold 0"},
    "messages.format=Q4.7": {"[messages]": "format Q4.7"},
    "messages.error_threshold=0.1": {"[messages]": "errors: threshold 0.1"},
    "states.format=bfloat16": {"[states]": "format bfloat16"},
    "faults.dead_layer=0": {"[faults]": "dead_layer 0"},
    "hardware.latency=2": {"[hardware]": "latency 2"},
    "hardware.model=parametric": {"[hardware]": "time_per_operation 0"},
    "hardware={model = 'sanafe-loihi', latency = 0.5}": {"[hardware]": "sanafe-loihi, latency 0.5"},
    "training.seed=1": {},
}


def trained(folder, override):
    """Return the trace of a short run with a setting."""
    experiment = pcsim.Experiment.from_model(load_model("digits", [*SMALL, override]))
    path = folder / "t.h5"
    pcsim.run(experiment, engine="event", trace=path, kernels=pcsim.make_kernels("reference"))
    return path


@pytest.mark.parametrize("override", SETTINGS)
def test_what_is_unusual_is_told(tmp_path, override):
    """`info` and the report's table name each setting that is not the default, and no other."""
    path, expected = trained(tmp_path, override), SETTINGS[override]
    with open_trace(path) as trace:
        assert unusual(trace.attributes) == expected
        rows = dict(facts([read_run(trace)]))
    assert {name: words for name, (words,) in rows.items() if name in SECTIONS} == expected
    shown = CliRunner().invoke(app, ["info", str(path)], env={"COLUMNS": "200"}).stdout
    for section in SECTIONS:
        assert (section in shown) == (section in expected)
        assert expected.get(section, "") in shown


def test_clocks_given_in_python():
    """A run without a model file has a clock too; a machine that it does not name stays unnamed."""
    times = {"hardware": {"time_per_operation": 1.0, "operation_times": {"0 predict": 3.0}, "links": {}}}
    assert unusual(times) == {"[hardware]": "times of single operations"}
    assert machine_of(times) is None
    assert machine_of({"configuration": {"hardware": {"model": "file", "path": "a/mine.toml"}}}) == "mine"


@pytest.mark.parametrize("strange", [{}, {"experiment": 3}, {"experiment": {"channels": [1]}, "hardware": 2}])
def test_strange_traces_say_nothing(strange):
    """Attributes come from a file that anybody may have written."""
    assert unusual(strange) == {}


@pytest.mark.parametrize(
    ("version", "channels", "warned"),
    [(3, {"faults": {"loss": 0.1}}, True), (4, {"faults": {"loss": 0.1}}, False), (3, {}, False)],
)
def test_old_probes_of_messages_are_cautioned_about(version, channels, warned):
    """Until format 4 they kept what senders had to say, which every number from them repeats."""
    told = said_not_sent({"schema_version": version, "experiment": {"channels": channels}})
    assert (told is not None) == warned
    assert not warned or told.startswith("This trace is of format 3")
    assert said_not_sent({"experiment": "garbage", "schema_version": version}) is None
