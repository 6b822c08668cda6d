"""What the recorder writes is what happened."""

import numpy as np
import pytest

import pcsim
from pcsim.errors import ConfigurationError, TraceError


def experiment(schedule, **changes):
    """Return a short experiment on the digits, with probes of everything."""
    quantities = ("activity", "error", "prediction", "weight")
    given = {
        "probes": (pcsim.Probe("all", quantities, samples=2, every=7, dtype="float64"),),
        "batch": 32,
        "record_every": 10,
    } | changes
    network = pcsim.Network.dense([64, 9, 8, 10], activation="tanh", dtype="float64", seed=2)
    return pcsim.Experiment(network, pcsim.load_dataset("digits"), pcsim.SGD(0.2), schedule, **given)


@pytest.mark.parametrize(
    ("order", "engine"),
    [
        *(
            (order, "fast")
            for order in ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")
        ),
        ("sequential", "event"),
        ("asynchronous", "event"),
    ],
)
def test_probes_and_summary_agree(tmp_path, order, engine):
    """Recorded arrays fit each other: e = ĥ − p at every iteration, and their norm is the summary's."""
    given = experiment(pcsim.Schedule(order, iterations=3, step_size=0.2), batch=2, record_every=7)
    path = tmp_path / "t.h5"
    pcsim.run(given, engine=engine, kernels=pcsim.make_kernels("reference"), trace=path)
    with pcsim.open_trace(path) as trace:
        probe, summary = trace.table("probes/all"), trace.table("summary")
        assert np.array_equal(probe.read("step"), summary.read("step"))
        half = summary.read("squared_error")
        for layer in (1, 2, 3):
            error = probe.read(f"error_{layer}")
            assert error.shape[1:] == (4, 2, [9, 8, 10][layer - 1])
            assert np.allclose(
                0.5 * (error**2).sum(axis=(2, 3)) / 2, half[:, :, layer - 1], rtol=1e-9, atol=1e-15
            )
            if layer < 3:
                shown = probe.read(f"activity_{layer}") - probe.read(f"prediction_{layer}")
                assert np.allclose(shown, error, atol=1e-12)
        assert probe.dims("weight_1") == ("step", "target_neuron_1", "source_neuron_1")
        assert not half[0, 0, :2].any()  # nothing but the clamp has happened at iteration 0
        assert half[0, 0, 2] > 0


def test_weights_are_those_after_learning(tmp_path):
    """The last recorded weight is the trained network's, where the last step is recorded."""
    given = experiment(pcsim.Schedule(), probes=(pcsim.Probe("w", ("weight",), every=1, dtype="float64"),))
    pcsim.run(given, trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        recorded = trace.table("probes/w").read("weight_1")[-1]
    assert np.array_equal(recorded, given.network.parameters[1][0])


def test_update_magnitude_is_the_mean_change(tmp_path):
    """Two recorded weights and biases differ by what the summary says they did."""
    given = experiment(pcsim.Schedule(), probes=(), record_every=1)
    before = [np.concatenate([w.ravel(), b]) for w, b in given.network.parameters]
    one = experiment(pcsim.Schedule(), probes=(), record_every=1, batch=1400)
    pcsim.run(one, trace=tmp_path / "t.h5")
    after = [np.concatenate([w.ravel(), b]) for w, b in one.network.parameters]
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        told = trace.table("summary").read("update_magnitude")[0]
    assert np.allclose(told, [np.abs(a - b).mean() for a, b in zip(after, before, strict=True)], rtol=1e-9)


def test_own_operations_have_their_names(tmp_path):
    """A user's own operation is named in the events, not lumped together."""

    def order(ops):
        yield from ops.forward_sweep()
        places = frozenset({pcsim.Place(1, "activity")})
        yield pcsim.Operation("look around", 1, 0, places, places, action=lambda unit: None)
        yield from ops.learning_phase()

    pcsim.run(experiment(pcsim.Schedule(order)), engine="event", trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        assert "look_around" in set(trace.table("events").decode("name"))


def test_float16_overflow_is_refused(tmp_path):
    """A narrow probe must not turn large activities into infinities without a word."""
    schedule = pcsim.Schedule(iterations=1, step_size=1e7)
    probes = (pcsim.Probe("narrow", ("activity",), dtype="float16"),)
    with pytest.raises(TraceError, match=r"narrow: activity_\d goes beyond float16"):
        pcsim.run(experiment(schedule, probes=probes), trace=tmp_path / "t.h5")


@pytest.mark.parametrize(
    "wrong", [{"record": ("eror",)}, {"record": "error"}, {"every": 0}, {"samples": 0}, {"dtype": "int8"}]
)
def test_wrong_probes(wrong):
    """A slip in a probe is told when it is made."""
    with pytest.raises(ConfigurationError, match="probe p"):
        pcsim.Probe(**({"name": "p", "record": ("error",)} | wrong))


def test_a_trace_says_what_made_it(tmp_path):
    """Without a model file too, the trace holds what decides its numbers: network, schedule, rule, seeds."""
    given = experiment(pcsim.Schedule("red-black", 2, 0.07, "none"), seed=5)
    pcsim.run(given, trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        told = trace.attributes["experiment"]
        assert trace.attributes["kernels"] == "CpuKernels"
    assert told["network"]["activation"] == ["identity", "tanh", "tanh", "tanh"]
    assert told["network"]["layers"] == [64, 9, 8, 10]
    assert told["network"]["dtype"] == "float64"
    expected = {"order": "red-black", "iterations": 2, "step_size": 0.07, "step_decay": "none"}
    assert told["schedule"] == expected
    assert told["learning"] == "SGD(rate=0.2)"
    assert told["training"]["seed"] == 5
