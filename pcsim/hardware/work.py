"""What an operation has to do, counted without doing it: products, element-wise work, memory, messages.

Counts come from what the operation declares (`Operation.reads`, `writes`, `sends`), the shapes of the
network and the equations of `pcsim.kernels.reference`. Each operation reads and writes once each place that
it declares: operands are taken to stay in registers while it lasts, so memory traffic is the least possible.
A scalar a matrix, such as MQ's running mean, is not counted, nor is what is done with one number a sample,
such as 1/N_l of refreshed precisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from types import MappingProxyType

from pcsim.hardware.arithmetic import ACTIVATE, DERIVATIVE, Arithmetic, added, scaled
from pcsim.hardware.machine import Machine
from pcsim.hardware.prices import Term
from pcsim.hardware.tiling import misfit
from pcsim.hardware.ways import ONE_HOP, Way, Ways
from pcsim.network.connection import Connection, Conv
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place

Counts = Mapping[Term, float]


@dataclass(frozen=True)
class UpdateWork:
    """What a learning rule does with the gradient of one weight or bias.

    Attributes:
        arithmetic: multiplications, additions and functions, the change itself included.
        state: numbers of the weight's type that it keeps a parameter.
        sums: the reduction that it needs: over all parameters' gradients, over the inputs, or none.
        always: whether it changes a parameter whose gradient is 0.
    """

    arithmetic: Arithmetic
    state: int = 0
    sums: str = "none"
    always: bool = False


UPDATES: Mapping[str, UpdateWork] = MappingProxyType(
    {
        "sgd": UpdateWork((1, 1, 0)),
        "mq": UpdateWork((1, 1, 0), sums="parameters"),
        # moments 1 + 2 and 2 + 2, their corrections 2, root and quotient, ε, and the change 1 + 1
        "adam": UpdateWork((6, 6, 2), state=2, always=True),
        "nlms": UpdateWork((1, 1, 0), sums="inputs"),
    }
)


@dataclass(frozen=True)
class Setting:
    """What decides the work of a mini-batch besides the program.

    Attributes:
        network: shapes and functions.
        batch: samples in a mini-batch.
        update: what the learning rule does.
        machine: near memory, packets and wires.
        ways: of messages between two layers; one hop along a row where there is no entry.
    """

    network: Network
    batch: int
    update: UpdateWork
    machine: Machine
    ways: Ways = field(default_factory=dict)

    @cached_property
    def parameter_bytes(self) -> int:
        """Bytes of all weights and biases and of what the learning rule keeps of each."""
        parameters = sum(connection.parameters for connection in self.network.connections)
        return parameters * (1 + self.update.state) * self.network.dtype.itemsize

    @cached_property
    def weights_are_far(self) -> bool:
        """Whether the parameters do not all fit near the arithmetic; then all of them are far."""
        capacity = self.machine.near_capacity
        return capacity is not None and self.parameter_bytes > capacity

    @cached_property
    def misfit(self) -> str | None:
        """By how much the network does not fit the machine's cores; None if it does, or there are none."""
        chip = self.machine.chip
        return None if chip is None else misfit(self.network, chip, self.batch, self.update.state)

    def way(self, operation: Operation) -> Way:
        """Return the way of the message that an operation sends."""
        return self.ways.get((operation.layer, operation.target), ONE_HOP)


@dataclass(frozen=True)
class Used:
    """How much of an operation's work is about numbers that are not zero, in one mini-batch.

    Attributes:
        products: multiplications with weights, or of outer products, whose factors are not zero.
        weights: weights that at least one of them reads or changes.
        values: in the message.
        bytes: of the message, where it is in another format than the network's numbers.
    """

    products: float
    weights: float
    values: float
    bytes: float | None = None

    @classmethod
    def all_of(cls, operation: Operation, network: Network, batch: int) -> Used:
        """Return what a machine does that does not look at the numbers."""
        weights = 0
        if operation.multiplications:
            weights = prod(network.connections[operation.layer].weight_shape)
        return cls(batch * operation.multiplications, weights, batch * operation.values)


@dataclass(frozen=True)
class Work:
    """Counts of one operation with a mini-batch.

    Attributes:
        counts: by whole piece of work (see `WHOLE`), then by term: the piece itself and its parts.
        journey: what decides how long its message is under way: packets one after the other (a last one that
            is not full takes its share), the bytes that arrive, and the hops of the first.
    """

    counts: Mapping[Term, Counts]
    journey: Counts = field(default_factory=dict)

    def __getitem__(self, term: Term) -> float:
        """Return the count of a term in all pieces of work together."""
        return sum(parts.get(term, 0) for parts in self.counts.values())


def work_of(operation: Operation, setting: Setting, used: Used | None = None) -> Work:
    """Count what an operation does with a mini-batch.

    Args:
        operation: of a program for `setting.network`.
        setting: what decides the work besides.
        used: what of it is about numbers that are not zero; all of it if not given.
    """
    used = used or Used.all_of(operation, setting.network, setting.batch)
    counts: dict[Term, Counts] = {Term.OPERATION: {Term.OPERATION: 1}}
    if operation.multiplications:
        counts[Term.SYNAPTIC_OPERATION] = _products(operation, setting, used)
    if _steps_neurons(operation):
        counts[Term.NEURON_UPDATE] = _neurons(operation, setting)
    if _writes(operation, "weight"):
        counts[Term.WEIGHT_UPDATE] = _update(operation, setting, used)
    reduced = _reduced(operation, setting)
    if reduced:
        counts[Term.REDUCTION] = reduced
    if operation.sends is None:
        return Work(counts)
    counts[Term.MESSAGE] = _message(operation, setting, used)
    return Work(counts, _journey(operation, setting, used))


def _products(operation: Operation, setting: Setting, used: Used) -> Counts:
    """Count products with weights, what prepares their factors, and the memory that they read."""
    connection = setting.network.connections[operation.layer]
    extra = scaled(_operands(operation, setting), setting.batch)
    counts = _arithmetic(extra)
    for term in (Term.SYNAPTIC_OPERATION, Term.MULTIPLICATION, Term.ADDITION):
        counts[term] = counts.get(term, 0) + used.products
    _add_bytes(counts, _state(operation, setting, Term.SYNAPTIC_OPERATION), (Term.NEAR_READ, Term.NEAR_WRITE))
    if not _writes(operation, "weight"):
        numbers = used.weights if _reads(operation, "weight") else 0
        numbers += connection.weight_shape[0] if _reads(operation, "bias") else 0
        level = Term.FAR_READ if setting.weights_are_far else Term.NEAR_READ
        counts[level] = counts.get(level, 0) + numbers * setting.network.dtype.itemsize
    return counts


def _operands(operation: Operation, setting: Setting) -> Arithmetic:
    """Count the element-wise work around a product, one sample: f, biases, gates, pools."""
    connection, layer = setting.network.connections[operation.layer], operation.layer
    if _writes(operation, "weight"):
        summed = (0, _before_pool(connection), 0)  # the errors, for the biases
        return added(_rates(connection), _gate(connection), summed)
    if _reads(operation, "inbox.error"):
        weighed = setting.network.traits[layer].precision_above != 1 or _refreshed(operation)
        return added(_gate(connection), (connection.outputs if weighed else 0, 0, 0))
    return added(_rates(connection), (0, _before_pool(connection), 0), _after(connection))


def _rates(connection: Connection) -> Arithmetic:
    """Count f(ĥ_l) on the way into a dense connection; a convolution reads activities as they are."""
    return scaled(ACTIVATE[connection.activation], connection.inputs)


def _before_pool(connection: Connection) -> int:
    return connection.weight_shape[0] * connection.positions


def _after(connection: Connection) -> Arithmetic:
    """Count f and the pool behind a convolution."""
    if not isinstance(connection, Conv):
        return 0, 0, 0
    rates = scaled(ACTIVATE[connection.after], _before_pool(connection))
    if connection.layer.pool == "none":
        return rates
    window = connection.layer.pool_size**2
    average = connection.layer.pool == "average"
    return added(rates, scaled((1 if average else 0, window - 1, 0), connection.outputs))


def _gate(connection: Connection) -> Arithmetic:
    """Count δ = f'(z) ⊙ e at a convolution; behind a dense one the gate belongs to the relaxing neurons."""
    if not isinstance(connection, Conv):
        return 0, 0, 0
    return scaled(added(DERIVATIVE[connection.after], (1, 0, 0)), _before_pool(connection))


def _neurons(operation: Operation, setting: Setting) -> Counts:
    """Count element-wise work on a layer's neurons and the state that it reads and writes."""
    neurons = setting.batch * setting.network.sizes[operation.layer]
    counts = _arithmetic(scaled(_of_a_neuron(operation, setting.network), neurons))
    counts[Term.NEURON_UPDATE] = neurons
    _add_bytes(counts, _state(operation, setting, Term.NEURON_UPDATE), (Term.NEAR_READ, Term.NEAR_WRITE))
    return counts


def _of_a_neuron(operation: Operation, network: Network) -> Arithmetic:
    """Count the arithmetic of one neuron: equations (2) and (3), and e_l = ĥ_l − p_l."""
    traits = network.traits[operation.layer]
    output = (0, 0, 1) if _forms_output(operation, network) and traits.output == "sigmoid" else (0, 0, 0)
    match operation.name:
        case "compare" | "compare_target":
            return added(output, (0, 1, 0))
        case "clamp" if _reads(operation, "inbox.prediction"):
            return added(output, (2, 1, 0))  # (1 − m) y + m out(p)
        case "relax":
            name = network.connections[operation.layer].activation
            gate = added(DERIVATIVE[name], (0 if name == "identity" else 1, 0, 0))
            refreshed = _refreshed(operation)
            weighed = (1 if refreshed or traits.precision != 1 else 0, 0, 0)
            decays = refreshed or traits.activity_decay
            decayed = added(ACTIVATE[name], (1, 1, 0)) if decays else (0, 0, 0)
            return added(gate, weighed, decayed, (1, 2, 0))  # minus the error, times the step, added
        case _:
            return output


def _update(operation: Operation, setting: Setting, used: Used) -> Counts:
    """Count changes of weights and biases; biases are few and all change."""
    connection, update = setting.network.connections[operation.layer], setting.update
    parameters = connection.parameters if update.always else used.weights + connection.weight_shape[0]
    counts = _arithmetic(scaled(update.arithmetic, parameters))
    counts[Term.WEIGHT_UPDATE] = parameters
    size = parameters * (1 + update.state) * setting.network.dtype.itemsize
    far = setting.weights_are_far
    _add_bytes(
        counts, (size, size), (Term.FAR_READ, Term.FAR_WRITE) if far else (Term.NEAR_READ, Term.NEAR_WRITE)
    )
    return counts


def _reduced(operation: Operation, setting: Setting) -> Counts:
    """Count values in sums over a layer or a matrix, which are local to a layer and not to a synapse."""
    network, layer = setting.network, operation.layer
    values = setting.batch * network.sizes[layer]
    if _forms_output(operation, network) and network.traits[layer].output == "softmax":
        arithmetic = scaled((1, 1, 1), values)  # exponential, sum, quotient
    elif _writes(operation, "weight") and setting.update.sums == "parameters":
        values = network.connections[layer].parameters
        arithmetic = scaled((0, 1, 0), values)
    elif _writes(operation, "weight") and setting.update.sums == "inputs":
        arithmetic = scaled((1, 1, 0), values)
    elif operation.name == "tell_norm":  # ‖f(ĥ_l)‖² + 1
        rates = scaled(_rates(network.connections[layer]), setting.batch)
        arithmetic = added(rates, scaled((1, 1, 0), values))
    elif operation.name == "relax" and _refreshed(operation):  # ‖f(ĥ_l)‖² + 1 and ‖e_{l+1}‖²
        values += setting.batch * network.sizes[layer + 1]
        arithmetic = scaled((1, 1, 0), values)
    else:
        return {}
    counts = {Term.REDUCTION: float(values), **_arithmetic(arithmetic)}
    _add_bytes(counts, _state(operation, setting, Term.REDUCTION), (Term.NEAR_READ, Term.NEAR_WRITE))
    return counts


def _message(operation: Operation, setting: Setting, used: Used) -> Counts:
    """Count packets, hops, wires, the bytes that arrive in inboxes, and additions of part sums."""
    machine, size = setting.machine, _size(setting, used)
    packets = used.values if machine.packet_bytes is None else ceil(size / machine.packet_bytes)
    way = setting.way(operation)
    counts: dict[Term, float] = {
        Term.MESSAGE: packets * way.sent,
        Term.NEAR_WRITE: size * way.arrived,
        Term.HOP_HORIZONTAL: packets * way.across,
        Term.HOP_VERTICAL: packets * way.down,
    }
    if way.added:
        counts[Term.ADDITION] = used.values * way.added
    if machine.hop_mm is not None:
        counts[Term.LINK_BIT_MM] = 8 * size * (way.across + way.down) * machine.hop_mm
    return counts


def _size(setting: Setting, used: Used) -> float:
    """Return the bytes of a message."""
    return used.values * setting.network.dtype.itemsize if used.bytes is None else used.bytes


def _journey(operation: Operation, setting: Setting, used: Used) -> Counts:
    """Count what takes a message its time."""
    size = _size(setting, used)
    width = setting.machine.passed_bytes
    across, down = setting.way(operation).first
    return {
        Term.MESSAGE: used.values if width is None else size / width,
        Term.NEAR_WRITE: size,
        Term.HOP_HORIZONTAL: across,
        Term.HOP_VERTICAL: down,
    }


def _state(operation: Operation, setting: Setting, whole: Term) -> tuple[int, int]:
    """Return bytes of state read and written for one piece of an operation's work."""
    sizes = [0, 0]
    for side, places in enumerate((operation.reads, operation.writes)):
        for place in places:
            if _piece(operation, place) is whole:
                sizes[side] += setting.batch * _width(place, setting.network) * setting.network.dtype.itemsize
    return sizes[0], sizes[1]


def _piece(operation: Operation, place: Place) -> Term | None:
    """Say for which piece of an operation's work a place of state is read or written."""
    match place.name:
        case "weight" | "bias" | "learner":
            return None  # counted by what is used of them
        case "memory" | "inbox.error":
            return Term.SYNAPTIC_OPERATION
        case "activity" if not _steps_neurons(operation):
            return Term.SYNAPTIC_OPERATION if operation.multiplications else Term.REDUCTION
        case _:
            return Term.NEURON_UPDATE


def _width(place: Place, network: Network) -> int:
    """Return the numbers in a place, one sample."""
    if place.name == "inbox.error":
        return network.sizes[place.layer + 1]
    if place.name == "memory":
        return _before_pool(network.connections[place.layer])
    if place.name == "norm_below":
        return 1
    return network.sizes[place.layer]


def _steps_neurons(operation: Operation) -> bool:
    return _writes(operation, "activity") or operation.forms_error or operation.name == "compare_target"


def _refreshed(operation: Operation) -> bool:
    """Whether its precisions follow from norms of this moment."""
    return _reads(operation, "norm_below")


def _forms_output(operation: Operation, network: Network) -> bool:
    """Whether it applies the output function to the prediction in the inbox."""
    return operation.layer == network.top and _reads(operation, "inbox.prediction")


def _reads(operation: Operation, name: str) -> bool:
    return Place(operation.layer, name) in operation.reads


def _writes(operation: Operation, name: str) -> bool:
    return Place(operation.layer, name) in operation.writes


def _arithmetic(numbers: Arithmetic) -> dict[Term, float]:
    terms = (Term.MULTIPLICATION, Term.ADDITION, Term.FUNCTION)
    return {term: number for term, number in zip(terms, numbers, strict=True) if number}


def _add_bytes(counts: dict[Term, float], sizes: tuple[float, float], terms: tuple[Term, Term]) -> None:
    for term, size in zip(terms, sizes, strict=True):
        if size:
            counts[term] = counts.get(term, 0) + size
