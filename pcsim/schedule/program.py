"""A schedule written out: the flat list of local operations that every engine runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np

from pcsim.errors import ConfigurationError, ProgramError, check_kind, nearest, real, refuse_unless, whole
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule import locality
from pcsim.schedule.channel import PLAIN, Channels
from pcsim.schedule.freshness import Freshness
from pcsim.schedule.operation import Operation, Operations, Place
from pcsim.schedule.orders import ORDERS, Order, Reactive, ReactiveOrder
from pcsim.schedule.precisions import CONSTANT, PRECISIONS, check_precisions

LASTING = frozenset({"weight", "bias", "learner", "target"})  # in place before a mini-batch begins
LIFE = 16  # operations and waits an iteration, for which a reactive layer is followed to learn names


@dataclass(frozen=True)
class Schedule:
    """Which order, how many iterations, how far each goes.

    Attributes:
        order: the name of an order, a function that writes one (see `pcsim.schedule.orders`), or
            `Reactive` with a function that says what one layer does when messages arrive.
        iterations: T, inference iterations a mini-batch.
        step_size: ε of the activity updates.
        step_decay: "harmonic", k = ε/(1 + t), or "none", k = ε.
        precisions: "constant", those of the network, or "theorem 1": refreshed from the state of one sample;
            see `pcsim.schedule.precisions`, which has the printed variants too.

    Raises:
        ConfigurationError: an unknown order, T below 0, a step size that is not above 0, unknown precisions,
            or refreshed ones for layers that react to messages.
    """

    order: str | Order | Reactive = "sequential"
    iterations: int = 3
    step_size: float = 0.05
    step_decay: Literal["harmonic", "none"] = "harmonic"
    precisions: str = CONSTANT

    def __post_init__(self) -> None:
        if not isinstance(self.order, str | Reactive) and not callable(self.order):
            raise ConfigurationError(
                f"schedule.order = {self.order!r}: expected a name or a function that yields operations"
            )
        if isinstance(self.order, str) and self.order not in ORDERS:
            raise ConfigurationError(f"schedule.order = '{self.order}': {nearest(self.order, ORDERS)}")
        iterations, step = self.iterations, self.step_size
        refuse_unless(whole(iterations, 0), "schedule.iterations", iterations, "a whole number from 0")
        refuse_unless(real(step, above=0), "schedule.step_size", step, "a value above 0")
        object.__setattr__(self, "iterations", int(iterations))  # JSON knows none of NumPy's
        object.__setattr__(self, "step_size", float(step))
        if self.step_decay not in ("harmonic", "none"):
            raise ConfigurationError(
                f"schedule.step_decay = '{self.step_decay}': expected 'harmonic' or 'none'"
            )
        if self.precisions not in PRECISIONS:
            raise ConfigurationError(
                f"schedule.precisions = '{self.precisions}': {nearest(self.precisions, PRECISIONS)}"
            )
        if self.precisions != CONSTANT and isinstance(self.written, Reactive):
            raise ConfigurationError(
                f"schedule.precisions = '{self.precisions}': expected an order with a fixed list, not "
                f"'{self.name}', so that each prediction can follow the norm it belongs to"
            )

    @property
    def name(self) -> str:
        """The order's name."""
        if isinstance(self.order, str):
            return self.order
        function = self.order.react if isinstance(self.order, Reactive) else self.order
        return getattr(function, "__name__", repr(function))

    @property
    def own(self) -> bool:
        """Whether the order is a user's own."""
        return not isinstance(self.order, str)

    @property
    def written(self) -> Order | Reactive:
        """The order itself."""
        return ORDERS[self.order] if isinstance(self.order, str) else self.order

    def operations(self, network: Network, channels: Channels = PLAIN) -> Operations:
        """Return the vocabulary for a network, with this schedule's step sizes."""
        decay = self.step_decay == "harmonic"
        steps = tuple(self.step_size / (1 + t) if decay else self.step_size for t in range(self.iterations))
        return Operations(network, steps, PRECISIONS[self.precisions], channels)

    def plan(self, network: Network, channels: Channels = PLAIN) -> Program | Reaction:
        """Write the order out for a network if it is a fixed list; else say how each layer reacts.

        Args:
            network: whose layers act.
            channels: what happens to their numbers.
        """
        order = self.written
        if isinstance(order, Reactive):
            return Reaction(network, self.operations(network, channels), order.react)
        return Program.build(network, self, channels)


@dataclass(frozen=True)
class Reaction:
    """An order without a list: what each layer does when messages arrive, then one learning phase.

    Attributes:
        network: whose layers act.
        operations: the vocabulary, with step sizes.
        order: yields one layer's operations, None to wait for a message.
    """

    network: Network
    operations: Operations
    order: ReactiveOrder

    @property
    def iterations(self) -> int:
        """T, the most often that a layer relaxes."""
        return len(self.operations.step_sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what layers do within 16 (T + 1) operations and waits each, if no wait is in vain."""
        lives = (self._life(layer) for layer in range(self.network.top + 1))
        return tuple(dict.fromkeys(operation.name for life in lives for operation in life))

    def _life(self, layer: int) -> Iterator[Operation]:
        """Yield what a layer does if there is always news; most lives have no end."""
        life = self.order(self.operations, layer)
        try:
            yield from filter(None, islice(life, LIFE * (self.iterations + 1)))
        except Exception:  # with so much news a user's own may go wrong where with less it does not
            return


@dataclass(frozen=True)
class Cost:
    """What a program does with one mini-batch, counted without doing it.

    Attributes:
        matrix_products: products with a weight matrix, and outer products.
        multiplications: scalar multiplications in them; element-wise work is not counted.
        messages: messages sent.
        values: numbers in them, zeros included.
    """

    matrix_products: int
    multiplications: int
    messages: int
    values: int


@dataclass(frozen=True)
class Program:
    """The operations of one mini-batch, in an order in which they may run one after the other.

    Attributes:
        network: whose layers act.
        operations: what is done; nothing redundant, no message that nobody reads.
        iterations: T.
    """

    network: Network
    operations: tuple[Operation, ...]
    iterations: int

    def __repr__(self) -> str:
        """Say how long the list is; `program.operations` is the list."""
        return f"Program({len(self.operations)} operations, T = {self.iterations}; {self.network!r})"

    @classmethod
    def build(cls, network: Network, schedule: Schedule, channels: Channels = PLAIN) -> Program:
        """Write the schedule out for a network.

        Args:
            network: whose layers act.
            schedule: when.
            channels: what happens to their numbers; the engine is given the same.

        Raises:
            ConfigurationError: no network or no schedule; the order depends on when messages arrive
                (asynchronous), or the network cannot have the schedule's precisions.
            ProgramError: an order that yields nothing, or something else than operations; an operation reads
                what nothing has written or sent before.
        """
        check_kind("network", network, Network)
        check_kind("schedule", schedule, Schedule)
        check_precisions(schedule.precisions, network)
        order = schedule.written
        if isinstance(order, Reactive):
            raise ConfigurationError(
                f"order '{schedule.name}' depends on when messages arrive and has no fixed list: "
                "use the event engine (--engine event)"
            )
        ops = schedule.operations(network, channels)
        yielded = order(ops)
        if not isinstance(yielded, Iterable):
            raise ProgramError(
                f"order '{schedule.name}' returns {yielded!r}: expected operations; "
                "write it as a generator, with `yield` or `yield from` before each"
            )
        listed = [_sized(operation, network, schedule) for operation in yielded]
        once = without_repetition(listed)
        if ops.refreshing:
            once = [_sized(operation, network, schedule) for operation in with_norms(once, ops)]
        _check_sources(once)
        needed = without_unread_messages(once)
        if not needed:
            raise ProgramError(
                f"order '{schedule.name}' yields nothing to do: expected operations, beginning with "
                "`yield from ops.forward_sweep()`"
            )
        return cls(network, tuple(needed), schedule.iterations)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its operations, each once."""
        return tuple(dict.fromkeys(operation.name for operation in self.operations))

    def cost(self, batch: int) -> Cost:
        """Count the work of one mini-batch of `batch` samples."""
        return Cost(
            sum(1 for operation in self.operations if operation.multiplications),
            batch * sum(operation.multiplications for operation in self.operations),
            sum(1 for operation in self.operations if operation.sends),
            batch * sum(operation.values for operation in self.operations),
        )

    @cached_property
    def dependencies(self) -> tuple[frozenset[int], ...]:
        """For each operation, the indices of those that must come first.

        It must follow whoever last changed what it reads or changes, and whoever still reads what it
        changes. Any order that respects this gives the same bits.
        """
        last_change: dict[Place, int] = {}
        readers: dict[Place, set[int]] = {}
        result = []
        for index, operation in enumerate(self.operations):
            before = {last_change[p] for p in operation.reads | operation.changes if p in last_change}
            before.update(*(readers.get(place, set()) for place in operation.changes))
            result.append(frozenset(before))
            for place in operation.reads:
                readers.setdefault(place, set()).add(index)
            for place in operation.changes:
                last_change[place], readers[place] = index, set()
        return tuple(result)

    def reordered(self, rng: np.random.Generator) -> Program:
        """Return the same program as a random linear extension of its dependency graph."""
        waiting = {index: set(before) for index, before in enumerate(self.dependencies)}
        chosen: list[int] = []
        while waiting:
            ready = [index for index, before in waiting.items() if not before]
            chosen.append(ready[rng.integers(len(ready))])
            del waiting[chosen[-1]]
            for before in waiting.values():
                before.discard(chosen[-1])
        return replace(self, operations=tuple(self.operations[index] for index in chosen))

    @cached_property
    def last_writes(self) -> frozenset[int]:
        """Indices of the operations that leave a layer's activity or error as an iteration ends."""
        last: dict[tuple[int, Place], int] = {}
        for index, operation in enumerate(self.operations):
            for place in operation.writes:
                if place.name in ("activity", "error"):
                    last[operation.iteration, place] = index
        return frozenset(last.values())

    @cached_property
    def tells_what_it_keeps(self) -> frozenset[int]:
        """Layers whose error, whenever the layer below reads it, is the one that they themselves hold.

        Then one array serves both: an error that is formed anew and not told is read by nobody below.
        """
        alike, untold = set(range(1, self.network.top + 1)), set[int]()
        for operation in self.operations * 2:  # the second time as the mini-batch after
            layer, told = operation.layer, operation.sends is MessageKind.ERROR
            if (operation.forms_error or told) and operation.action is not Layer.compare:
                alike.discard(layer)
            if operation.forms_error:
                (untold.discard if told else untold.add)(layer)
            if layer + 1 in untold and Place.inbox(layer, MessageKind.ERROR) in operation.reads:
                alike.discard(layer + 1)
        return frozenset(alike)

    def check_locality(self, layers: Sequence[Layer] | None = None) -> None:
        """Prove that every operation touches only its layer's own state and inbox.

        First what the operations declare, then what they do: each is rehearsed with everything that it
        does not declare changed at random, which must change nothing that it writes or sends.

        Args:
            layers: rehearse on these (they are left as they were); small stand-ins if not given.

        Raises:
            LocalityError: names the operation, the layer and the foreign thing.
        """
        told = any(operation.name == "tell_norm" for operation in self.operations)
        locality.check(self.operations, layers or locality.stand_ins(self.network, 1 if told else 2))


def with_norms(operations: Iterable[Operation], ops: Operations) -> list[Operation]:
    """Let each layer tell N_l ahead of a prediction if its activity has changed since it last did.

    The two share a link, so the layer above keeps the norm before the prediction comes.
    """
    told: set[int] = set()
    found = []
    for operation in operations:
        layer, iteration = operation.layer, operation.iteration
        if operation.sends is MessageKind.PREDICTION and layer not in told:
            found += [ops.tell_norm(layer, iteration), ops.take_norm(layer + 1, iteration)]
            told.add(layer)
        found.append(operation)
        if operation.moves_activity:
            told.discard(layer)
    return found


def without_repetition(operations: Iterable[Operation]) -> list[Operation]:
    """Leave out what would only repeat itself: a prediction is sent only when its source has changed."""
    freshness = Freshness()
    kept = []
    for operation in operations:
        if not freshness.is_stale(operation):
            freshness.note(operation)
            for place in operation.delivers:
                freshness.note_arrival(place)
            kept.append(operation)
    return kept


def without_unread_messages(operations: Sequence[Operation]) -> list[Operation]:
    """Leave out messages that the next one replaces unread, and operations that did nothing else.

    What a layer remembers of a prediction is replaced by the next prediction as a message is.
    """
    awaited: set[Place] = set()
    kept = []
    for operation in reversed(operations):
        if operation.sends and not operation.delivers <= awaited:
            operation = operation.silent()
        if any(not _replaceable(place) or place in awaited for place in operation.changes):
            awaited -= operation.changes
            awaited |= {place for place in operation.reads if _replaceable(place)}
            kept.append(operation)
    return kept[::-1]


def _replaceable(place: Place) -> bool:
    """Return whether what is written there is of no use once the next writing has replaced it unread."""
    return place.name.startswith("inbox") or place.name == "memory"


def _described(given: object) -> str:
    """Say what an order yields that is no operation, and what it should be."""
    if isinstance(given, Iterator | list | tuple):
        return "a list of operations: expected one after the other; write `yield from` before it"
    return f"{given!r}: expected operations"


def _sized(operation: Operation, network: Network, schedule: Schedule) -> Operation:
    """Check layer, target and iteration of an operation; a message has the width of the upper layer."""
    if not isinstance(operation, Operation):
        raise ProgramError(f"order '{schedule.name}' yields {_described(operation)}")
    ends = (operation.layer, operation.target) if operation.sends else (operation.layer,)
    if not all(0 <= layer <= network.top for layer in ends):
        raise ProgramError(f"{operation} acts on or sends to layer {max(ends)}: expected 0 to {network.top}")
    if not 0 <= operation.iteration <= schedule.iterations:
        raise ProgramError(
            f"{operation} is of iteration {operation.iteration}: expected 0 to {schedule.iterations}"
        )
    return replace(operation, values=network.sizes[max(ends)]) if operation.sends else operation


def _check_sources(operations: Sequence[Operation]) -> None:
    """Check that each operation finds what it reads."""
    known: set[Place] = set()
    for operation in operations:
        missing = {place for place in operation.reads - known if place.name not in LASTING}
        if missing:
            raise ProgramError(
                f"{operation} reads {min(missing)} before anything is there: "
                "begin the order with forward_sweep(), or send it first"
            )
        known |= operation.changes
