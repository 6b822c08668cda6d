"""Check of locality: by what operations declare, and by what they do when everything else is disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import NoReturn

import numpy as np

from pcsim.architecture import Architecture, ConvLayer, DenseLayer
from pcsim.errors import LocalityError, nearest
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses
from pcsim.network.connection import Conv
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.learner import state_of
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place

State = dict[Place, list[Array]]
NAMES = {"activity", "error", "weight", "bias", "learner", "target", "memory", "norm_below"} | {
    f"inbox.{kind}" for kind in MessageKind
}
REHEARSALS = 3  # draws; a gate that one of them shuts another one opens
SMALL = 100_000  # parameters up to which stand-ins are as wide as the network


class _HebbianStandIn:
    """Learns at a fixed rate: enough to see what a learning operation touches."""

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        return kernels.sgd_step(weight, bias, error_above, activity, activation, 0.1)

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Nothing to move."""

    def state(self) -> dict[str, Array]:
        return {}


def is_small(network: Network) -> bool:
    """Return whether a network is small enough to be rehearsed as it is, again and again."""
    return sum(connection.parameters for connection in network.connections) <= SMALL


def stand_ins(network: Network, batch: int = 2) -> tuple[Layer, ...]:
    """Return units of a network alike; if it is large, with two or three neurons or channels a layer."""
    small = Network.build(
        _shape_of(network) if is_small(network) else _narrow(network),
        activation=_activation_of(network),
        output=network.traits[-1].output or "identity",
        proximal_step=100.0 if network.soft_clamp else float("inf"),
        precision=[traits.precision for traits in network.traits],
        activity_decay=[traits.activity_decay for traits in network.traits],
        dtype="float64",
        learn_output_from=network.learn_output_from,
    )
    return small.layers(batch, lambda weight, bias: _HebbianStandIn())


def _shape_of(network: Network) -> Architecture:
    """Return the shapes of a network."""
    layers = [one.layer if isinstance(one, Conv) else DenseLayer(one.outputs) for one in network.connections]
    return Architecture(network.shapes[0], tuple(layers))


def _narrow(network: Network) -> Architecture:
    """Return the shapes of a network with two or three neurons or channels a layer."""
    layers: list[ConvLayer | DenseLayer] = []
    below = 2
    for above, connection in enumerate(network.connections, 1):
        width = 2 + above % 2
        if isinstance(connection, Conv):
            _, height, across = connection.layer.image
            layers.append(replace(connection.layer, image=(below, height, across), channels=width))
        else:
            layers.append(DenseLayer(width))
        below = width
    return Architecture((2, *network.shapes[0][1:]), tuple(layers))


def _activation_of(network: Network) -> ActivationName:
    """Return f of the hidden layers or of the convolutions, of which there is one a network."""
    after = [one.after for one in network.connections if isinstance(one, Conv)]
    return after[0] if after else network.traits[1].activation


def check(operations: Sequence[Operation], layers: Sequence[Layer]) -> None:
    """Raise LocalityError for the first operation that is not local, declared or rehearsed."""
    for operation in operations:
        _check_declaration(operation, len(layers) - 1)
    # Operations of several iterations are alike if what they declare and what they do is the same.
    distinct = {(replace(operation, iteration=0), _deed(operation)): operation for operation in operations}
    with _borrowed(layers):
        rng = np.random.default_rng(0)
        for operation in distinct.values():
            for _ in range(REHEARSALS):
                _rehearse(operation, layers, rng)


def _deed(operation: Operation) -> object:
    """Return what operations that do the same share: their action, or which one it is if it has no hash."""
    try:
        hash(operation.action)
    except TypeError:
        return id(operation.action)
    return operation.action


def _check_declaration(operation: Operation, top: int) -> None:
    """Compare what an operation says with what its layer owns and receives."""
    if not 0 <= operation.layer <= top:
        raise LocalityError(f"{operation}: expected a layer from 0 to {top}")
    for verb, places in (("reads", operation.reads), ("writes", operation.writes)):
        for place in sorted(places):
            if place.name not in NAMES:
                raise LocalityError(f"{operation} {verb} {place}: {nearest(place.name, NAMES)}")
            if place.layer != operation.layer:
                _refuse(operation, f"{verb} {place}", top)
    for place in sorted(operation.writes):
        if place.name.startswith("inbox"):
            _refuse(operation, f"changes a received message, {place}", top)
    if operation.sends and not 0 <= operation.target <= top:
        _refuse(operation, f"sends its {operation.sends} to layer {operation.target}, which is none", top)


def _refuse(operation: Operation, deed: str, top: int) -> NoReturn:
    """Raise the error: who does what, and what would be allowed."""
    below, above = operation.layer - 1, operation.layer + 1
    senders = [str(layer) for layer in (below, above) if 0 <= layer <= top]
    holds = f"messages from layer{'s' if len(senders) > 1 else ''} {' and '.join(senders)} only"
    raise LocalityError(f"{operation} {deed}; layer {operation.layer}'s inbox holds {holds}")


@contextmanager
def _borrowed(layers: Sequence[Layer]) -> Iterator[None]:
    """Give the layers full inboxes and targets to rehearse with; leave them as they were."""
    held = [(layer.inbox, layer.target, layer.learner, layer.magnitude) for layer in layers]
    kept: State = {}
    try:
        for layer in layers:
            batch = len(layer.activity)
            layer.inbox = (
                {MessageKind.PREDICTION: np.zeros_like(layer.activity)} if layer.traits.index else {}
            )
            if layer.connection is not None:
                shape = (batch, layer.connection.outputs)
                layer.inbox[MessageKind.ERROR] = np.zeros(shape, layer.activity.dtype)
            layer.target = np.zeros_like(layer.activity)
        kept |= {place: [array.copy() for array in arrays] for place, arrays in _state(layers).items()}
        yield
    finally:
        _fill(layers, kept)
        for layer, (inbox, target, learner, magnitude) in zip(layers, held, strict=True):
            layer.inbox, layer.target, layer.learner = inbox, target, learner
            layer.magnitude = magnitude


def _state(layers: Sequence[Layer]) -> State:
    """Return the live arrays behind every place of every layer."""
    state: State = {}
    for layer in layers:
        index = layer.traits.index
        named = {"activity": [layer.activity], "error": [layer.error], "norm_below": [layer.norm_below]}
        if layer.connection is not None:
            named |= {"weight": [layer.weight], "bias": [layer.bias]}
            named |= {"outgoing": [layer.outgoing], "feedback": [layer.feedback]}
            if layer.memory:
                named["memory"] = list(layer.memory)
        if layer.target is not None:
            named["target"] = [layer.target]
        if layer.learner is not None:
            named["learner"] = list(state_of(layer.learner).values())
        state |= {Place(index, name): arrays for name, arrays in named.items()}
        state |= {Place.inbox(index, kind): [array] for kind, array in layer.inbox.items()}
    return state


def _fill(layers: Sequence[Layer], values: State) -> None:
    """Copy values into the live arrays."""
    for place, arrays in _state(layers).items():
        for array, value in zip(arrays, values[place], strict=True):
            array[...] = value


def _random(layers: Sequence[Layer], rng: np.random.Generator) -> State:
    """Draw values for every place, of either sign but for what a learner keeps and for norms."""

    def draw(place: Place, array: Array) -> Array:
        values = rng.uniform(-1.5, 1.5, array.shape)
        return np.abs(values) if place.name in ("learner", "norm_below") else values

    return {place: [draw(place, array) for array in arrays] for place, arrays in _state(layers).items()}


def _perform(operation: Operation, layers: Sequence[Layer], before: State) -> tuple[State, Array | None]:
    """Run one operation from a given state; return the state it leaves and its payload."""
    learners = [layer.learner for layer in layers]
    for layer, learner in zip(layers, learners, strict=True):
        layer.learner = deepcopy(learner)  # hidden counters must start alike in every rehearsal
    try:
        _fill(layers, before)
        live = _state(layers)
        payload = operation.action(layers[operation.layer])
        for place, arrays in _state(layers).items():
            if place.name != "learner" and place in live and arrays[0] is not live[place][0]:
                raise LocalityError(
                    f"{operation} puts another array in the place of {place}: "
                    "expected it to be changed in place, as in unit.weight[...] = value"
                )
        after = {place: [array.copy() for array in arrays] for place, arrays in _state(layers).items()}
        return after, None if payload is None else payload.copy()
    except LocalityError:
        raise
    except Exception as error:  # a user's action may raise anything
        raise LocalityError(
            f"{operation} cannot run on what layer {operation.layer} owns and receives: {error!r}"
        ) from error
    finally:
        for layer, learner in zip(layers, learners, strict=True):
            layer.learner = learner


def _rehearse(operation: Operation, layers: Sequence[Layer], rng: np.random.Generator) -> None:
    """Check that nothing undeclared is changed, and that nothing undeclared makes a difference."""
    top = len(layers) - 1
    base = _cast(_random(layers, rng), layers)
    result = _perform(operation, layers, base)
    if not _agree(operation, result, _perform(operation, layers, base)):
        _refuse(operation, "gives two results for one state, as if it drew random numbers", top)
    for place in sorted(base):
        sending = place == Place(operation.layer, "outgoing") and operation.sends is not None
        scratch = place == Place(operation.layer, "feedback")
        allowed = place in operation.writes or sending or scratch
        if not allowed and not _same(result[0][place], base[place]):
            received = place.name.startswith("inbox")
            _refuse(operation, f"changes a received message, {place}" if received else f"writes {place}", top)
    other = _cast(_random(layers, rng), layers)
    undeclared = sorted(place for place in base if place not in operation.reads)
    disturbed = base | {place: other[place] for place in undeclared}
    if _agree(operation, result, _perform(operation, layers, disturbed)):
        return
    for place in undeclared:
        if not _agree(operation, result, _perform(operation, layers, base | {place: other[place]})):
            _refuse(operation, f"reads {place} without declaring it", top)
    _refuse(operation, "depends on something other than what it declares", top)


def _cast(values: State, layers: Sequence[Layer]) -> State:
    """Round values to the types of the live arrays, so that copies compare equal."""
    live = _state(layers)
    return {
        place: [value.astype(array.dtype) for value, array in zip(values[place], live[place], strict=True)]
        for place in values
    }


def _agree(operation: Operation, one: tuple[State, Array | None], other: tuple[State, Array | None]) -> bool:
    """Return whether two rehearsals wrote and sent the same bits."""
    if not all(_same(one[0][place], other[0][place]) for place in operation.writes if place in one[0]):
        return False
    if operation.sends is None:
        return True
    return one[1] is not None and other[1] is not None and np.array_equal(one[1], other[1])


def _same(one: list[Array], other: list[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
