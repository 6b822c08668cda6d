"""NIR graphs are read by `nir`, simulated from its semantics alone and by Nengo, and do what was recorded."""

from __future__ import annotations

import json

import nir
import numpy as np
import pytest
import torch
from wires import wired

import pcsim
from pcsim.errors import ConfigurationError, TraceError
from pcsim.export import Options, export
from pcsim.schedule.channel import Dead

LINEAR = {"activation": "identity", "output": "identity"}
CONSTANTS = {
    "plain": LINEAR,
    "hard clamp": LINEAR | {"proximal_step": float("inf")},
    "precisions and decay": LINEAR
    | {"precision": (1.0, 0.7, 1.9, 1.3, 0.4), "activity_decay": (0.0, 0.2, 0.0, 0.5, 0.0)},
}


def simulate(graph, inputs, initial, steps):
    """Integrate a graph by Euler steps from NIR's definitions of its nodes, knowing nothing of pcsim.

    Args:
        graph: as `nir.read` gives it.
        inputs: constant values of the Input nodes.
        initial: v of the LI nodes, τ dv/dt = (v_leak − v) + r · input.
        steps: lengths of the steps.

    Returns:
        The output of each node, (steps + 1, n), by name.
    """
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    integrators = {name for name, node in graph.nodes.items() if isinstance(node, nir.LI)}
    voltages, history = dict(initial), {name: [] for name in graph.nodes}

    def outputs():
        known = dict(inputs) | voltages

        def value(name):
            if name not in known:
                total, node = sum(value(source) for source in sources[name]), graph.nodes[name]
                match node:
                    case nir.Affine():
                        known[name] = node.weight @ total + node.bias
                    case nir.Linear():
                        known[name] = node.weight @ total
                    case nir.Scale():
                        known[name] = node.scale * total
                    case nir.Output():
                        known[name] = total
            return known[name]

        for name in graph.nodes:
            history[name].append(value(name))
        return known

    for step in steps:
        known = outputs()
        for name in integrators:
            node = graph.nodes[name]
            current = sum(known[source] for source in sources[name])
            change = (node.v_leak - voltages[name] + node.r * current) / node.tau
            voltages[name] = voltages[name] + step * change
    outputs()
    return {name: np.array(values) for name, values in history.items()}


def exported(path, out, **options):
    """Export; return the graph and the data as `nir` reads them."""
    made = export(path, "nir", out, Options(**options))
    graph, data = nir.read(out / "graph.nir"), nir.read_data(out / "recording.nir")
    data.check_nodes(graph)
    return made, graph, data


def recorded(data, sample):
    """Return recorded states of one sample on the time grid, (T + 1, n), by node."""
    return {
        name: observable.data[sample]
        for name, node in data.nodes.items()
        for key, observable in node.observables.items()
        if isinstance(observable, nir.TimeGriddedData)
        and key in ("activity", "error", "prediction", "target")
    }


def replayed(graph, states, steps):
    """Simulate a read graph from the recorded initial activity with the recorded input and target."""
    initial = {name: states[name][0] for name, node in graph.nodes.items() if isinstance(node, nir.LI)}
    inputs = {name: states[name][0] for name in graph.inputs}
    return simulate(graph, inputs, initial, steps)


@pytest.mark.parametrize("decay", ["none", "harmonic"])
@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_the_read_graph_does_what_was_recorded(trace_of, tmp_path, constants, decay, engine):
    """Euler steps of the graph are the simultaneous order: all states agree in each iteration."""
    path = trace_of("simultaneous", engine, network=CONSTANTS[constants], step_decay=decay, iterations=6)
    _, graph, data = exported(path, tmp_path / "g")
    assert np.allclose(graph.metadata["euler_steps"], 1 / np.arange(1, 7) if decay == "harmonic" else 1.0)
    for sample in (0, 1):
        states = recorded(data, sample)
        told = replayed(graph, states, graph.metadata["euler_steps"])
        assert {f"activity_{layer}" for layer in (1, 2, 3, 4)} <= states.keys()
        for name in states.keys() - {"input", "target"}:
            assert np.allclose(told[name], states[name], rtol=0, atol=1e-12), name
        assert np.abs(states["activity_1"][-1] - states["activity_1"][0]).max() > 1e-6


@pytest.mark.parametrize("order", ["sequential", "bottom-up", "red-black", "asynchronous"])
def test_other_orders_reach_the_same_fixed_point(trace_of, tmp_path, order):
    """What NIR cannot say, the order, does not matter in the end: both rest at the same point."""
    engine = "event" if order == "asynchronous" else "fast"
    path = trace_of(
        order,
        engine,
        network=LINEAR,
        step_decay="none",
        iterations=150,
        step_size=0.3,
        batch=700,
        record_every=9,
    )
    _, graph, data = exported(path, tmp_path / "g", step=0)
    states = recorded(data, 0)
    told = replayed(graph, states, np.ones(300))
    for layer in (1, 2, 3):
        assert np.allclose(told[f"activity_{layer}"][-1], states[f"activity_{layer}"][-1], atol=1e-9)


def test_nengo_reaches_the_recorded_fixed_point(trace_of, tmp_path):
    """A consumer of NIR that we did not write comes to rest at the recorded activities."""
    nengo = pytest.importorskip("nengo", reason="nengo is not installed")
    path = trace_of(
        "simultaneous", "fast", network=LINEAR, step_decay="none", iterations=150, step_size=0.3, batch=700
    )
    _, graph, data = exported(path, tmp_path / "g", step=0)
    states = recorded(data, 0)
    with nengo.Network() as network:
        nodes, probes = {}, {}
        for name, node in graph.nodes.items():
            if isinstance(node, nir.Input):
                nodes[name] = nengo.Node(states[name][0])
            elif isinstance(node, nir.Affine | nir.Linear):
                nodes[name] = nengo.Node(size_in=node.weight.shape[0])
                if isinstance(node, nir.Affine):
                    nengo.Connection(nengo.Node(node.bias), nodes[name], synapse=None)
            else:
                nodes[name] = nengo.Node(size_in=int(np.prod(node.input_type["input"])))
        for source, target in graph.edges:
            node, synapse, transform = graph.nodes[target], None, 1.0
            if isinstance(node, nir.LI):
                assert not node.v_leak.any()
                assert len(set(node.tau)) == 1
                synapse = nengo.Lowpass(node.tau[0])
            elif isinstance(node, nir.Affine | nir.Linear):
                transform = node.weight
            elif isinstance(node, nir.Scale):
                transform = np.diag(node.scale)
            nengo.Connection(nodes[source], nodes[target], synapse=synapse, transform=transform)
        probes = {layer: nengo.Probe(nodes[f"activity_{layer}"]) for layer in (1, 2, 3)}
    with nengo.Simulator(network, dt=1.0, progress_bar=False) as simulator:
        simulator.run_steps(150)
        for layer, probe in probes.items():
            assert np.allclose(simulator.data[probe][-1], states[f"activity_{layer}"][-1], atol=1e-9)


def test_functions_are_refused_unless_linearised(trace_of, tmp_path):
    """NIR has no gate f': nothing wrong is written without a word."""
    with pytest.raises(ConfigurationError, match="no node for the gate f' of softmax and tanh"):
        export(trace_of("sequential"), "nir", tmp_path / "g")
    assert not (tmp_path / "g").exists()
    linear = trace_of("sequential", network=LINEAR | {"precision": (1.0, 0.0, 1.0, 1.0, 1.0)})
    with pytest.raises(ConfigurationError, match="layer 1 has precision 0"):
        export(linear, "nir", tmp_path / "g")


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "leaky_relu", "relu"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_linearised_graphs_touch_the_network(trace_of, tmp_path, activation, output):
    """Where it was linearised the graph moves exactly as equation (2) does, and says the output."""
    network = {"activation": activation, "output": output, "activity_decay": (0.0, 0.3, 0.0, 0.1, 0.0)}
    path = trace_of("simultaneous", "fast", network=network)
    made, graph, data = exported(path, tmp_path / "g", linearise=6)
    assert any("Linearised at training step 6" in note for note in made.notes)
    states = {name: values[-1:] for name, values in recorded(data, 0).items()}
    k = 0.01
    told = replayed(graph, states, [k])
    with pcsim.open_trace(path) as trace:
        probe, epsilon = trace.table("probes/all"), 0.1
        row = probe.read("step").tolist().index(6)
        used = {
            layer: probe.column(f"weight_{layer}")[row] - probe.column(f"update_{layer}")[row]
            for layer in range(4)
        }
    for layer in (1, 2, 3):
        at = probe_state(states, layer)
        f, slope = by_hand(activation, at)
        error, above = states[f"error_{layer}"][0], states[f"error_{layer + 1}"][0]
        move = slope * (used[layer].T @ above) - error - network["activity_decay"][layer] * slope * f
        assert np.allclose(told[f"activity_{layer}"][0], at)
        assert np.allclose(told[f"activity_{layer}"][1], at + k * epsilon * move, rtol=0, atol=1e-13)
    said = states["activity_4"][0] - states["error_4"][0]
    assert np.allclose(told["output"][0], said, atol=1e-12)


def probe_state(states, layer):
    return states[f"activity_{layer}"][0]


def by_hand(activation, x):
    """Return f and f' from the definition, the derivative by central differences."""
    from math import erf

    f = {
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "gelu": lambda x: x * 0.5 * (1 + np.array([erf(one / 2**0.5) for one in x])),
        "relu": lambda x: np.maximum(x, 0),
        "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    }[activation]
    return f(x), (f(x + 1e-6) - f(x - 1e-6)) / 2e-6


def test_linearised_relu_replays_where_no_neuron_switches(trace_of, tmp_path):
    """A rectifier is its own tangent while its signs stay: the graph repeats the whole inference phase."""
    path = trace_of(
        "simultaneous", "fast", network={"activation": "relu", "output": "identity"}, step_size=0.02
    )
    _, graph, data = exported(path, tmp_path / "g", linearise=3)
    states = recorded(data, 0)
    for layer in (1, 2, 3):
        signs = states[f"activity_{layer}"] > 0
        assert (signs == signs[0]).all()
    told = replayed(graph, states, graph.metadata["euler_steps"])
    for name in states.keys() - {"input", "target"}:
        assert np.allclose(told[name], states[name], rtol=0, atol=1e-12), name
    assert np.abs(states["activity_3"][-1] - states["activity_3"][0]).max() > 1e-5


def test_messages_are_valued_events(trace_of, tmp_path):
    """Put on the time grid, events are the messages that were sent, and nothing where none was."""
    path = trace_of("sequential", network=LINEAR)
    _, _, data = exported(path, tmp_path / "g", step=3)
    with pcsim.open_trace(path) as trace:
        probe = trace.table("probes/all")
        row = probe.read("step").tolist().index(3)
        columns = {
            name: probe.column(name)[row].swapaxes(0, 1) for name in probe.columns if "message" in name
        }
    assert len(columns) == 8
    for column, expected in columns.items():
        kind, layer = column.rsplit("_", 1)
        node = f"prediction_{int(layer) + 1}" if kind == "prediction_message" else f"error_{layer}"
        events = data.nodes[node].observables[kind]
        assert isinstance(events, nir.ValuedEventData)
        assert ((events.idx == -1) == np.isinf(events.time)).all()
        grid = events.to_time_gridded(1.0).data
        sent = np.ones(4, dtype=bool)
        sent[1:] = (expected[:, 1:] != expected[:, :-1]).any(axis=(0, 2))
        assert np.array_equal(grid, np.where(sent[None, :, None], expected, 0.0))
    sent_up = np.unique(data.nodes["prediction_1"].observables["prediction_message"].time)
    assert sent_up.tolist() == [0.0]  # the input's prediction is sent once


WIRES = {
    "formats": wired(prediction="Q4.7", error="Q0.11"),
    "threshold": wired(0.02),
    "threshold and format": wired(0.0, "Q4.7", "Q0.11"),
    "dead": wired(dead=Dead(2)),
    "dead later": wired(dead=Dead(2, step=2)),
    "dead lines": wired(dead=Dead(1, 0.5)),
}


@pytest.mark.parametrize("wire", WIRES)
def test_events_are_what_was_counted(trace_of, tmp_path, wire):
    """As many numbers as the timeline counts as sent: once there were all that the sender had formed.

    Of two messages in an iteration (the second is for learning) a probe keeps what has come of both.
    """
    how = {"network": LINEAR, "samples": 200, "every": 1, "record_every": 1, "channels": WIRES[wire]}
    path = trace_of("sequential", **how)
    made, _, data = exported(path, tmp_path / "g", step=3)
    assert any(note.startswith(("Number formats", "Thresholds", "Faults")) for note in made.notes)
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        now = (table.read("step") == 3) & (table.read("kind") == 1)
        names, layers = table.decode("name")[now], table.read("layer")[now]
        sent, iterations = table.read("nonzero_values")[now], table.read("iteration")[now]
    assert len(names)
    for layer in range(4):
        for kind, source in (("prediction", layer), ("error", layer + 1)):
            events = data.nodes[f"{kind}_{layer + 1}"].observables[f"{kind}_message"]
            for iteration in range(4):
                one = (names == kind) & (layers == source) & (iterations == iteration)
                counted, found = sent[one], (events.time == iteration).sum()
                assert counted[-1:].sum() <= found <= counted.sum()
                if "threshold" not in wire:
                    assert found == counted[-1:].sum()


def test_first_messages_that_are_whole_are_told(trace_of, tmp_path):
    """Where nobody knows what receivers had before, first messages are whole copies, and a note says so."""
    path = trace_of("sequential", "fast", network=LINEAR, channels=wired(0.02))
    assert any("are whole" in note for note in exported(path, tmp_path / "g", step=3)[0].notes)
    assert not any("are whole" in note for note in exported(path, tmp_path / "h", step=0)[0].notes)


def test_what_cannot_be_said_is_said_elsewhere(trace_of, tmp_path):
    """Metadata, manifest and notes name plasticity, order and initial state; the roles are there."""
    made, graph, _ = exported(trace_of("incremental", network=LINEAR), tmp_path / "g")
    told = json.loads(graph.metadata["unsaid"])
    assert told == list(made.notes)
    for word in ("Plasticity", "Order", "Phases", "Incremental", "Step decay"):
        assert any(note.startswith(word) for note in told)
    assert json.loads(graph.metadata["experiment"])["schedule"]["order"] == "incremental"
    assert graph.nodes["gate_2"].metadata["role"] == "slope of the activation of layer 2"
    assert json.loads((tmp_path / "g/manifest.json").read_text())["notes"] == told


def test_weights_are_those_of_the_inference_phase(trace_of, tmp_path):
    """The graph has the weights that the recorded activities came from, or says that it has not."""
    few = ("activity", "weight", "bias")
    for every, expected in ((1, "used in the inference phase"), (3, "left by the learning phase")):
        path = trace_of("simultaneous", "fast", network=LINEAR, record=few, every=every)
        made, graph, _ = exported(path, tmp_path / str(every))
        assert expected in graph.metadata["weights"]
        assert any("Not recorded" in note and "error_message_2" in note for note in made.notes)
        with pcsim.open_trace(path) as trace:
            weights = trace.table("probes/all").read("weight_1")
        assert np.array_equal(graph.nodes["prediction_2"].weight, weights[-2 if every == 1 else -1])


def test_without_weights_there_is_no_graph(trace_of, tmp_path):
    """The error names the quantity and how to record it."""
    path = trace_of("simultaneous", "fast", network=LINEAR, record=("activity",))
    with pytest.raises(TraceError, match=r'no probe with weight of layer 0.*record = \["weight"\]'):
        export(path, "nir", tmp_path / "g")
    with pytest.raises(TraceError, match="training step 5 is not in its probes: recorded are 0, 3, 6"):
        export(trace_of("sequential", network=LINEAR), "nir", tmp_path / "g", Options(step=5))


def test_a_network_without_hidden_layers(trace_of, tmp_path):
    """The smallest network has a graph too."""
    path = trace_of("simultaneous", "fast", network=LINEAR, sizes=(64, 10))
    _, graph, data = exported(path, tmp_path / "g")
    states = recorded(data, 0)
    told = replayed(graph, states, np.ones(3))
    assert np.allclose(told["error_1"], states["error_1"], atol=1e-13)


CONVOLUTIONS = ("1x8x8", "conv 3 3x3/1 average 2", "conv 4 2x2/1", "dense 10")


def test_linear_convolutions_do_what_was_recorded(trace_of, tmp_path):
    """Convolutions and average pools without other functions are exact, in every iteration."""
    path = trace_of("simultaneous", "fast", network=LINEAR, layers=CONVOLUTIONS, iterations=6)
    made, graph, data = exported(path, tmp_path / "g")
    assert any("Convolutions (from layer 0, 1)" in note for note in made.notes)
    for sample in (0, 1):
        states = recorded(data, sample)
        told = replayed(graph, states, graph.metadata["euler_steps"])
        for name in states.keys() - {"input", "target"}:
            assert np.allclose(told[name], states[name], rtol=0, atol=1e-12), name


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("pool", ["max 2", "average 2"])
def test_linearised_convolutions_touch_the_network(trace_of, tmp_path, activation, pool):
    """Where a convolution was linearised the graph moves as torch's autograd says, and predicts the same."""
    layers = ("1x8x8", "conv 3 3x3/1", f"conv 4 3x3/1 {pool}", "dense 10")
    network = {"activation": activation, "output": "softmax"}
    path = trace_of("simultaneous", "fast", network=network, layers=layers)
    _, graph, data = exported(path, tmp_path / "g", linearise=6)
    states = {name: values[-1:] for name, values in recorded(data, 0).items()}
    k, epsilon = 0.01, 0.1
    told = replayed(graph, states, [k])
    with pcsim.open_trace(path) as trace:
        probe = trace.table("probes/all")
        row = probe.read("step").tolist().index(6)
        weight, bias = (
            torch.tensor(probe.column(f"{kind}_1")[row] - probe.column(f"{change}_1")[row])
            for kind, change in (("weight", "update"), ("bias", "bias_update"))
        )
    at = torch.tensor(states["activity_1"][0], requires_grad=True)
    made = getattr(torch, activation)(torch.conv2d(at.reshape(1, 3, 6, 6), weight, bias))
    pooled = {"max 2": torch.max_pool2d, "average 2": torch.nn.functional.avg_pool2d}[pool](made, 2)
    pooled.flatten().backward(torch.tensor(states["error_2"][0]))
    move = at.grad.numpy() - states["error_1"][0]
    assert np.allclose(told["prediction_2"][0], pooled.detach().numpy().ravel(), rtol=0, atol=1e-12)
    assert np.allclose(
        told["activity_1"][1], states["activity_1"][0] + k * epsilon * move, rtol=0, atol=1e-13
    )


def test_convolutions_that_cannot_be_said(trace_of, tmp_path, monkeypatch):
    """Max pooling needs a tangent; a matrix that nobody could load is refused by its size."""
    path = trace_of(network=LINEAR, layers=("1x8x8", "conv 3 3x3/1 max 2", "dense 10"))
    with pytest.raises(ConfigurationError, match="no node for the gate f' of max pooling"):
        export(path, "nir", tmp_path / "g")
    path = trace_of(network=LINEAR, layers=CONVOLUTIONS)
    monkeypatch.setattr("pcsim.export.unrolled.MOST_ENTRIES", 1000)
    with pytest.raises(TraceError, match="from 64 to 27 neurons has 1,728 entries"):
        export(path, "nir", tmp_path / "g")


def test_refreshed_precisions_are_refused(tmp_path):
    """Equations are exported with constant precisions: with others they would not do what was recorded."""
    two = np.eye(2), np.array([0, 1])
    np.savez(tmp_path / "two.npz", x_train=two[0], y_train=two[1], x_test=two[0], y_test=two[1])
    data = pcsim.load_dataset("npz", path=str(tmp_path / "two.npz"))
    schedule = pcsim.Schedule("sequential", 1, precisions="theorem 1")
    network = pcsim.Network.dense([2, 3, 2], **LINEAR)
    recorded = pcsim.Experiment(network, data, pcsim.NLMS(), schedule, batch=1, epochs=1)
    pcsim.run(recorded, trace=tmp_path / "t.h5")
    with pytest.raises(TraceError, match=r"schedule\.precisions = 'theorem 1': expected constant"):
        export(tmp_path / "t.h5", "nir", tmp_path / "g")
