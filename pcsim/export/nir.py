"""Graph and recorded data in the Neuromorphic Intermediate Representation (https://neuroir.org).

With identity functions the circuit is exact: a leaky integrator τ dv/dt = v_leak − v + input with
τ = 1/(ε (γ_l + γ_l^decay)), in units of an inference iteration, fed by

    γ_l/(γ_l + γ_l^decay) p_l + γ_{l+1}/(γ_l + γ_l^decay) W_lᵀ e_{l+1},

is equation (2) of arXiv 2305.13562, and one Euler step an iteration is the simultaneous order. Where
functions are not the identity, NIR has no node for f' ⊙: they are refused, or on request replaced by their
tangents at a recorded state, ĥ ↦ f(ĥ*) + f'(ĥ*) ⊙ (ĥ − ĥ*), whose slope goes into a Scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcsim.analysis.convolution import Convolution, convolutions
from pcsim.errors import ConfigurationError, TraceError
from pcsim.export.arrivals import arrivals, begins_whole, brought
from pcsim.export.functions import ACTIVATIONS, output_tangent
from pcsim.export.options import Options, Outcome, Progress
from pcsim.export.recorded import Array, Model, Parameters, Recording
from pcsim.export.unrolled import unrolled
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.settings import said_not_sent

if TYPE_CHECKING:
    import nir

GRAPH, DATA = "graph.nir", "recording.nir"
WHOLE = (
    f"Messages bring some of their numbers only: the first ones in {DATA} are whole, with all that receivers "
    "had, as the training step before is not recorded (every = 1 records it)."
)


@dataclass(frozen=True)
class Tangent:
    """g ⊙ ĥ + c in place of f(ĥ), and J p + d in place of out(p)."""

    slope: Array
    offset: Array


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write `graph.nir` (`nir.read`) and, where states are recorded, `recording.nir` (`nir.read_data`).

    Raises:
        TraceError: weight or bias are not recorded, or not at the step asked for; a convolution that is too
            large as a matrix.
        ConfigurationError: the package nir is missing; the network has functions that NIR cannot say, and
            linearisation was not asked for; a layer without any leak.
    """
    library = _library()
    recording = Recording(trace)
    model = recording.model
    maps = convolutions(trace)
    _check_sayable(model, maps, options)
    needed = [f"{kind}_{layer}" for layer in range(model.top) for kind in ("weight", "bias")]
    if options.linearise is not None:
        needed += [f"activity_{layer}" for layer in range(model.top + 1)]
        if options.step not in (None, options.linearise):
            raise ConfigurationError("--linearise and --step name different training steps: expected one")
    asked = options.step if options.linearise is None else options.linearise
    step = recording.choose(needed, asked)
    parameters = [
        _connection(recording, layer, step, maps.get(layer), options.linearise is not None)
        for layer in range(model.top)
    ]
    tangents = _tangents(recording, parameters, step, options.linearise is not None)
    notes = [*_unsaid(model, maps, trace, step, parameters[0].when, options), *model.channels.notes()]
    notes += [caution] if (caution := said_not_sent(trace.attributes)) else []
    metadata = {
        "made_by": "pcsim export",
        "unsaid": json.dumps(notes),
        "experiment": json.dumps(trace.attributes.get("experiment")),
        "step": step,
        "time_unit": "inference iteration",
        "euler_steps": np.asarray(model.steps) / model.step_size,
        "weights": parameters[0].when,
    }
    graph = _graph(library, model, parameters, tangents, metadata)
    library.write(out / GRAPH, graph)
    progress(0.5)
    data, missing = _data(library, recording, step, notes)
    if data.nodes:
        data.check_nodes(graph)
        library.write_data(out / DATA, data)
    if missing:
        notes.append(f"Not recorded at training step {step}, so not in {DATA}: {', '.join(missing)}.")
    return Outcome(tuple(notes), {"graph": GRAPH, "step": step} | ({"data": DATA} if data.nodes else {}))


def _library() -> ModuleType:
    try:
        return import_module("nir")
    except ImportError as error:
        raise ConfigurationError("--to nir needs the package nir: pip install 'pcsim[export]'") from error


def _check_sayable(model: Model, maps: Mapping[int, Convolution], options: Options) -> None:
    """Refuse what would come out wrong.

    Raises:
        ConfigurationError: says which function or constant, and what to do.
    """
    for layer in range(1, model.top):
        if model.precision[layer] + model.decay[layer] == 0:
            raise ConfigurationError(
                f"layer {layer} has precision 0 and activity decay 0, an integrator without a leak: "
                "expected one above 0 for a NIR graph"
            )
    functions = _functions(model, maps)
    if functions and options.linearise is None:
        raise ConfigurationError(
            f"NIR has no node for the gate f' of {' and '.join(functions)}: expected a network of "
            "identity functions, or --linearise STEP to replace functions by tangents at a recorded state"
        )


def _tangents(
    recording: Recording, parameters: list[Parameters], step: int, linearise: bool
) -> tuple[list[Tangent], Tangent]:
    """Return the tangent of f at each layer but the output, and that of the output function.

    They touch at the state of the first recorded sample after the last iteration.
    """
    model = recording.model
    if not linearise:
        plain = [Tangent(np.ones(size), np.zeros(size)) for size in model.sizes]
        return plain[:-1], Tangent(np.eye(model.sizes[-1]), np.zeros(model.sizes[-1]))
    found = []
    states = recording.states([f"activity_{layer}" for layer in range(model.top)], step)
    for layer in range(model.top):
        at = states.arrays[f"activity_{layer}"][-1, 0]
        f = ACTIVATIONS[model.activation[layer]]
        found.append(Tangent(f.slope(at), f.value(at) - f.slope(at) * at))
    last = parameters[-1]
    prediction = last.weight @ ACTIVATIONS[model.activation[model.top - 1]].value(at) + last.bias
    value, jacobian = output_tangent(model.output, prediction)
    return found, Tangent(jacobian, value - jacobian @ prediction)


def _functions(model: Model, maps: Mapping[int, Convolution]) -> list[str]:
    """Return the names of what is not linear in a network."""
    names = {*model.activation[1 : model.top], model.output, *(one.after for one in maps.values())}
    pools = {"max pooling" for one in maps.values() if one.pool == "max"}
    return sorted((names | pools) - {"identity"})


def _connection(
    recording: Recording, layer: int, step: int, convolution: Convolution | None, linearise: bool
) -> Parameters:
    """Return a connection as a matrix and a bias; a convolution as its tangent at the recorded state."""
    own = recording.parameters(layer, step)
    if convolution is None:
        return own
    at = np.zeros(recording.model.sizes[layer])
    if linearise:
        at = recording.states([f"activity_{layer}"], step).arrays[f"activity_{layer}"][-1, 0]
    return unrolled(convolution, own, at)


class _Circuit:
    """Nodes and edges as they come; the name of a node says whose it is, its metadata what it stands for."""

    def __init__(self, library: ModuleType) -> None:
        self.library = library
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, name: str, node: nir.NIRNode, role: str, *sources: str) -> str:
        """Add a node and the edges that lead to it; return its name."""
        node.metadata = {"role": role}
        self.nodes[name] = node
        self.edges.extend((source, name) for source in sources)
        return name

    def scale(self, name: str, value: Array | float, size: int, role: str, *sources: str) -> str:
        """Add a node that multiplies each number by its factor."""
        factors = np.broadcast_to(np.asarray(value, float), (size,)).copy()
        return self.add(name, self.library.Scale(factors), role, *sources)

    def prediction(self, layer: int, connection: Parameters, below: Tangent) -> str:
        """Add p_l = W (g ⊙ ĥ_{l−1} + c) + b."""
        source = "input"
        if layer > 1:
            role, size = f"slope of the activation of layer {layer - 1}", len(below.slope)
            source = self.scale(f"gain_{layer - 1}", below.slope, size, role, f"activity_{layer - 1}")
        bias = connection.bias + connection.weight @ below.offset
        node = self.library.Affine(connection.weight, bias)
        return self.add(f"prediction_{layer}", node, f"prediction of layer {layer}", source)

    def error(self, layer: int, size: int, prediction: str) -> None:
        """Add e_l = ĥ_l − p_l."""
        negative = self.scale(f"minus_prediction_{layer}", -1.0, size, "its negative", prediction)
        self.scale(f"error_{layer}", 1.0, size, f"error of layer {layer}", f"activity_{layer}", negative)


def _graph(
    library: ModuleType,
    model: Model,
    parameters: list[Parameters],
    tangents: tuple[list[Tangent], Tangent],
    metadata: dict[str, Any],
) -> nir.NIRGraph:
    """Build the circuit of a network."""
    circuit, top, (slopes, output) = _Circuit(library), model.top, tangents
    clamped = library.Input({"input": np.array([model.sizes[0]])})
    circuit.add("input", clamped, "clamped activity of layer 0")
    for layer in range(1, top):
        prediction = circuit.prediction(layer, parameters[layer - 1], slopes[layer - 1])
        _add_hidden(circuit, model, layer, parameters[layer], slopes[layer], prediction)
        circuit.error(layer, model.sizes[layer], prediction)
    prediction = circuit.prediction(top, parameters[-1], slopes[-1])
    _add_output(circuit, model, output, prediction)
    circuit.edges.extend((f"error_{layer + 1}", f"feedback_{layer}") for layer in range(1, top))
    return library.NIRGraph(circuit.nodes, circuit.edges, metadata=metadata)


def _add_hidden(
    circuit: _Circuit, model: Model, layer: int, connection: Parameters, own: Tangent, prediction: str
) -> None:
    """Add ĥ_l: a leaky integrator of its prediction and of the error above through the transposed weight."""
    size, library = model.sizes[layer], circuit.library
    leak = model.precision[layer] + model.decay[layer] * own.slope**2
    gate = own.slope * model.precision[layer + 1] / leak
    rest = -model.decay[layer] * own.slope * own.offset / leak
    drive = circuit.scale(
        f"drive_{layer}", model.precision[layer] / leak, size, "share of the prediction", prediction
    )
    feedback = circuit.add(
        f"feedback_{layer}",
        library.Linear(connection.weight.T.copy()),
        f"error of layer {layer + 1} through the transposed weight",
    )
    gated = circuit.scale(f"gate_{layer}", gate, size, f"slope of the activation of layer {layer}", feedback)
    neurons = library.LI(tau=1 / (model.step_size * leak), r=np.ones(size), v_leak=rest)
    circuit.add(f"activity_{layer}", neurons, f"activity of layer {layer}", drive, gated)


def _add_output(circuit: _Circuit, model: Model, output: Tangent, prediction: str) -> None:
    """Add the clamped output: ĥ_L = (1 − m) y + m out(p_L) and e_L = ĥ_L − out(p_L)."""
    top, size, library = model.top, model.sizes[-1], circuit.library
    said = circuit.add(
        "output_function",
        library.Affine(output.slope, output.offset),
        "output function, or its tangent",
        prediction,
    )
    circuit.add("output", library.Output({"output": np.array([size])}), "what the network says", said)
    circuit.add("target", library.Input({"input": np.array([size])}), "target y")
    circuit.scale("clamp_target", 1 - model.mix, size, "share of the target", "target")
    circuit.scale("clamp_prediction", model.mix, size, "share of the prediction", said)
    role, sources = f"activity of layer {top}", ("clamp_target", "clamp_prediction")
    circuit.scale(f"activity_{top}", 1.0, size, role, *sources)
    circuit.error(top, size, said)


def _unsaid(
    model: Model,
    maps: Mapping[int, Convolution],
    trace: TraceReader,
    step: int,
    when: str,
    options: Options,
) -> list[str]:
    """Return what the graph does not say, a sentence each."""
    rule = (trace.attributes.get("experiment") or {}).get("learning", "?")
    notes = [
        f"Plasticity: NIR has no learning rule ({rule}); the weights are those {when}.",
        f"Order: the graph runs in continuous time; an Euler step an iteration is the simultaneous order, "
        f"this trace is {model.order}; all orders have the same fixed point.",
        f"Phases: neither the number of iterations (T = {model.iterations}) nor the initial state, "
        "ĥ_l = p_l after a forward sweep, can be said.",
    ]
    if model.order == "incremental":
        notes.append("Incremental order: its weights change in every iteration, those of the graph do not.")
    if model.step_decay == "harmonic":
        notes.append("Step decay: τ is that of ε; with Euler steps of 1/(1 + t) iterations, k = ε/(1 + t).")
    if maps:
        layers = ", ".join(str(layer) for layer in maps)
        notes.append(
            f"Convolutions (from layer {layers}): written as the matrices that they are, so the graph does "
            "not say that their weights are shared."
        )
    functions = _functions(model, maps)
    if functions and options.linearise is not None:
        notes.append(
            f"Linearised at training step {step}, first recorded sample, last iteration: "
            f"{', '.join(functions)} are tangents there, and the gate f' stays what it was there."
        )
    return notes


def _data(
    library: ModuleType, recording: Recording, step: int, notes: list[str]
) -> tuple[nir.NIRGraphData, list[str]]:
    """Return recorded states on a grid and messages as events, and the columns that are not recorded.

    Time counts inference iterations. Each number of a message that is not zero is an event; where messages
    bring some of their numbers only, each of these.
    """
    model = recording.model
    nodes: dict[str, dict[str, Any]] = {}
    missing = []
    inner = range(1, model.top + 1)
    states = {f"activity_{layer}": f"activity_{layer}" for layer in range(model.top + 1)}
    states |= {f"{kind}_{layer}": f"{kind}_{layer}" for kind in ("error", "prediction") for layer in inner}
    states["activity_0"] = "input"
    messages = {f"prediction_message_{layer}": f"prediction_{layer + 1}" for layer in range(model.top)}
    messages |= {f"error_message_{layer}": f"error_{layer}" for layer in inner}
    came, whole = arrivals(recording, step), False
    for column, node in (states | messages).items():
        if not recording.has(column, step):
            missing.append(column)
            continue
        array = recording.states([column], step).arrays[column].swapaxes(0, 1)
        observable = column.rpartition("_")[0]
        if column in messages:
            found = brought(recording, column, step, array, came)
            whole = whole or (bool(found.any()) and begins_whole(recording, column, step))
            nodes.setdefault(node, {})[observable] = _events(library, array, found)
        else:
            nodes.setdefault(node, {})[observable] = library.TimeGriddedData(array, 1.0)
    if not {f"activity_{model.top}", f"error_{model.top}"} & set(missing):
        nodes["target"] = {"target": library.TimeGriddedData(_target(recording, step), 1.0)}
    if whole:
        notes.append(WHOLE)
    made = {name: library.NIRNodeData(observables) for name, observables in nodes.items()}
    return library.NIRGraphData(made), missing


def _target(recording: Recording, step: int) -> Array:
    """Return y (samples, T + 1, n_L) from ĥ_L = (1 − m) y + m (ĥ_L − e_L)."""
    top, mix = recording.model.top, recording.model.mix
    states = recording.states([f"activity_{top}", f"error_{top}"], step).arrays
    activity, error = states[f"activity_{top}"], states[f"error_{top}"]
    if mix == 1:
        raise TraceError("the clamp leaves nothing of the target: expected a proximal step above 0")
    target = (activity[:1] - mix * (activity[:1] - error[:1])) / (1 - mix)
    return np.repeat(target, len(activity), axis=0).swapaxes(0, 1)


def _events(library: ModuleType, array: Array, found: npt.NDArray[np.bool_]) -> nir.ValuedEventData:
    """Return the numbers of messages (samples, T + 1, n) that came as events, padded with −1 and infinity."""
    samples, times, neurons = array.shape
    most = int(found.sum(axis=(1, 2)).max(initial=0))
    idx = np.full((samples, most), -1, dtype=np.int64)
    time, value = np.full((samples, most), np.inf), np.zeros((samples, most))
    for sample in range(samples):
        when, neuron = np.nonzero(found[sample])
        idx[sample, : len(when)], time[sample, : len(when)] = neuron, when
        value[sample, : len(when)] = array[sample, when, neuron]
    return library.ValuedEventData(idx=idx, time=time, value=value, n_neurons=neurons, t_max=float(times))
