"""Runs a schedule through an event queue: operations and messages take time, layers wait for each other."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from itertools import count

import numpy as np

from pcsim.engine import fusion
from pcsim.engine.channel import EXACT, ChannelSet, Letter, Mishap, Roundoff
from pcsim.engine.checks import check_parts, checked_payload, set_targets
from pcsim.engine.observer import Observer, Watching, listeners, onlookers
from pcsim.engine.process import InOrder, Process, Reacting, check_letters, write_agendas
from pcsim.engine.script import Script, lines_of
from pcsim.engine.state import Facts, learnt, relearn
from pcsim.engine.totals import Event, Totals
from pcsim.errors import ProgramError, ShapeError, check_kind, refuse_unless
from pcsim.hardware.clock import Hardware
from pcsim.kernels import Array
from pcsim.network.layer import Layer
from pcsim.schedule.channel import PLAIN, Channels
from pcsim.schedule.message import Fate, Message
from pcsim.schedule.operation import Action, Operation
from pcsim.schedule.program import Program, Reaction

_ARRIVES, _NO_MISHAP = Fate.ARRIVES, Mishap()  # by far the most frequent ones


class Turn(IntEnum):
    """What comes first among events at the same time: arrivals are seen before anybody acts on them."""

    FINISH = 0
    ARRIVE = 1
    ACT = 2


@dataclass
class _Queue:
    """Events to come, earliest first; ties go by turn, then by who was queued first."""

    heap: list[tuple[float, Turn, int, int, Message | None]] = field(default_factory=list)
    serial: count[int] = field(default_factory=count)

    def push(self, time: float, turn: Turn, layer: int, what: Message | None = None) -> None:
        heapq.heappush(self.heap, (time, turn, next(self.serial), layer, what))


class EventEngine:
    """Simulates one mini-batch after the other on a hardware model.

    A core does one thing at a time; a link carries one message at a time, in the order of sending; a
    message carries what its sender had when it sent. With units, the arithmetic is done; without, only
    time and traffic are simulated.

    `cores` says on which core each layer sits, by any whole numbers; every layer has one of its own if it
    is not given. Layers that share a core take turns: when one has acted, the next that can goes first,
    counted upwards and from the top to layer 0. Messages between them take as long as any others.

    Where nothing is left to chance the queue is needed for the first mini-batch only; see
    `pcsim.engine.script`.

    Attributes:
        totals: what has happened in all mini-batches.
    """

    def __init__(
        self,
        plan: Program | Reaction,
        units: Sequence[Layer] | None,
        hardware: Hardware,
        batch: int,
        observers: Sequence[Observer] = (),
        *,
        cores: Sequence[int] | None = None,
        channels: Channels = PLAIN,
    ) -> None:
        check_parts(plan, Program | Reaction, units)
        check_kind("hardware", hardware, Hardware)
        if units is not None and len(units[0].activity) != batch:
            raise ShapeError(f"units for mini-batches of {len(units[0].activity)}: expected {batch}")
        self._plan, self._units, self._hardware, self._batch = plan, units, hardware, batch
        self._itemsize = plan.network.dtype.itemsize
        self._observers = tuple(observers)
        self._watching = _watching(plan, self._observers)
        self._cores = tuple(cores) if cores is not None else tuple(range(len(plan.network.sizes)))
        self._turns = _turns(self._cores, len(plan.network.sizes))
        listed = plan.operations if isinstance(plan, Program) else plan.operations.learning_phase()
        self._agendas = write_agendas(listed)
        self._channels = ChannelSet(channels, plan.network, batch, units)
        self._channels.prepare_inboxes()
        self._hearers = listeners(observers) if self._channels.links else ()
        self._delay = channels.faults.delay_time
        self._fused: Mapping[int, Action] = {}
        if isinstance(plan, Program) and units is not None and not channels.active:
            self._fused = fusion.actions(plan, units)
        self._random = np.random.default_rng(hardware.links.seed)
        self._step = 0
        self._timeline: list[Event] = []
        self._acted: list[Operation] = []
        self._script: Script | None = None
        self.totals = Totals()

    @property
    def timeline(self) -> list[Event]:
        """The events of the latest mini-batch, by start."""
        return self._timeline if self._script is None else self._script.timeline()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The units that it runs; none in timing mode."""
        return tuple(self._units or ())

    def step(self, inputs: Array, targets: Array) -> None:
        """Run one mini-batch: inference phase, then learning phase.

        Args:
            inputs: x, (batch, n_0).
            targets: y, (batch, n_L).

        Raises:
            ShapeError: arrays of another shape.
            ProgramError: an operation sends nothing, or something of the wrong shape.
        """
        if self._units is None:
            raise ProgramError("this engine simulates time only: it was made without units")
        set_targets(self._units, inputs, targets)
        for observer in self._observers:
            observer.begin_step(self._step)
        self.simulate()
        for observer in self._observers:
            observer.end_step()

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return what decides the mini-batches to come, and what has been counted."""
        random = self._random.bit_generator.state
        arrays, channels = self._channels.state()
        facts = {"step": self._step, "totals": asdict(self.totals), "random": random, "channels": channels}
        return learnt(self.layers) | arrays, facts

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: arrays that are not this network's.
        """
        relearn(self.layers, arrays)
        self._step, self.totals = facts["step"], Totals(**facts["totals"])
        self._random.bit_generator.state = facts["random"]
        self._channels.prepare_inboxes()
        self._channels.restore(arrays, facts["channels"])

    def simulate(self) -> None:
        """Let one mini-batch pass, as `step` does, with whatever the units hold (or without units)."""
        if self._script is not None:
            self._script.follow(self.totals)
            self._step += 1
            return
        before = asdict(self.totals)
        self._timeline, self._acted = [], []
        self._queue = _Queue()
        self._busy = dict.fromkeys(self._cores, False)
        self._link_free: dict[tuple[int, int], float] = {}
        now = 0.0
        for process in self._phases():
            now = self._until_rest(process, now)
        self._timeline.sort(key=lambda event: event.start)
        self.totals.simulated_time += now
        self._step += 1
        if self._units is not None and self._always_the_same:
            once = {name: count - before[name] for name, count in asdict(self.totals).items()}
            once["simulated_time"] = now
            lines = lines_of(self._acted, self._agendas, self._units, self._watching or {}, self._fused)
            self._script = Script(lines, self._timeline, once)

    @property
    def _always_the_same(self) -> bool:
        """Whether every mini-batch takes the same way."""
        chance = self._hardware.links.jitter > 0 or self._channels.settings.active
        return isinstance(self._plan, Program) and not chance

    def _phases(self) -> Iterator[Process]:
        """Yield who decides what layers do, one phase after the other."""
        if isinstance(self._plan, Program):
            yield InOrder(self._agendas, self._units, self._hearers)
        else:
            yield Reacting(self._plan.order, self._plan.operations, self._units, self._hearers)
            self._check_learning()
            yield InOrder(self._agendas, self._units, self._hearers)

    def _check_learning(self) -> None:
        """Refuse to learn from errors that a reactive order has never sent."""
        if self._units is None:
            return
        for layer, agenda in self._agendas.items():
            for operation, needed in agenda:
                if not needed:  # of what is sent in the learning phase itself
                    check_letters(operation, self._units[layer])

    def _until_rest(self, process: Process, now: float) -> float:
        """Run until nobody acts and nothing is under way; return the time of the last event."""
        heap, push, cores, busy = self._queue.heap, self._queue.push, self._cores, self._busy
        for layer in range(len(cores)):
            push(now, Turn.ACT, layer)
        while heap:
            now, turn, _, layer, message = heapq.heappop(heap)
            if turn is Turn.ACT:  # the most frequent one
                if not busy[cores[layer]]:
                    self._act(process, layer, now)
            elif turn is Turn.ARRIVE:
                assert message is not None
                self.totals.count_end(message.fate)
                process.receive(message)
                push(now, Turn.ACT, layer)
            else:
                busy[cores[layer]] = False
                if message is not None:
                    self._send(message, now)
                for following in self._turns[layer]:
                    push(now, Turn.ACT, following)
        return now

    def _act(self, process: Process, layer: int, now: float) -> None:
        """Let a free layer begin its next operation, if it has one."""
        operation = process.next_operation(layer)
        if operation is None:
            return
        self._acted.append(operation)
        payload, roundoff = self._perform(operation)
        multiplications = operation.multiplications * self._batch
        end = now + self._hardware.operation_time(operation.name, layer, multiplications)
        event = Event("operation", operation.name, layer, -1, operation.iteration, now, end, multiplications)
        if self._channels.links or self._channels.states:
            event = replace(event, fate=self._fate_of(operation), roundoff=roundoff)
        self._note(event)
        self._busy[self._cores[layer]] = True
        message = None
        if operation.sends is not None:
            message = Message(operation.sends, layer, operation.target, operation.iteration, payload)
        self._queue.push(end, Turn.FINISH, layer, message)

    def _fate_of(self, operation: Operation) -> Fate:
        """Return whether a dead core keeps an operation from sending what it would."""
        channel = self._channels.links.get((operation.layer, operation.target))
        dead = operation.sends is not None and channel is not None and channel.dead_at(self._step)
        return Fate.UNSENT if dead else Fate.ARRIVES

    def _perform(self, operation: Operation) -> tuple[Array | None, Roundoff]:
        """Do the arithmetic of an operation; return a copy of the payload that nobody can change."""
        roundoff = EXACT
        if self._units is None:
            return None, roundoff
        unit = self._units[operation.layer]
        payload = self._fused.get(id(operation), operation.action)(unit)
        if self._channels.states and operation.moves_activity:
            roundoff = self._channels.keep_measured(unit)
        watching = self._watching
        for observe in (
            onlookers(operation, self._observers) if watching is None else watching.get(id(operation), ())
        ):
            observe(operation, unit)
        if operation.sends is None:
            return None, roundoff
        width = self._plan.network.sizes[max(operation.layer, operation.target)]
        return unit.kernels.snapshot(checked_payload(operation, payload, (self._batch, width))), roundoff

    def _send(self, message: Message, now: float) -> None:
        """Put what a layer has to say on its link, in the way of its channel if it has one."""
        link = message.source, message.target
        if link not in self._channels.links:
            values, payload = self._values(link), message.payload
            nonzero = values if payload is None else int(np.count_nonzero(np.asarray(payload)))
            letter = Letter(payload, None, values, nonzero, values * self._itemsize)
            self._transmit(message, now, letter, _NO_MISHAP)
            return
        channel = self._channels.links[link]
        letter = channel.send(message.payload, self._step)
        roundoff = channel.roundoff(message.payload, letter)
        message = replace(message, payload=letter.values, entries=letter.entries)
        if letter.unsent:
            end = now + self._hardware.message_time(*link, 0, 0, self._random)
            self._queue.push(end, Turn.ARRIVE, message.target, replace(message, fate=Fate.UNSENT))
            return
        mishap = channel.mishap()
        message = replace(message, fate=mishap.fate)
        if mishap.lost:
            message = replace(message, payload=None, entries=None)
        self._transmit(message, now, letter, mishap, roundoff)
        if mishap.copied and not mishap.lost:
            copy = replace(message, fate=Fate.COPY)
            self._transmit(copy, now, letter, _NO_MISHAP, roundoff)

    def _transmit(
        self,
        message: Message,
        now: float,
        letter: Letter,
        mishap: Mishap,
        roundoff: Roundoff = EXACT,
    ) -> None:
        """Let a message travel over its link, behind the one before it."""
        link = message.source, message.target
        start = max(now, self._link_free.get(link, now))
        end = start + self._hardware.message_time(*link, letter.sent, letter.bytes, self._random)
        if mishap.delayed:
            end += self._delay
        self._link_free[link] = end
        if mishap.stepped_aside:
            end += self._delay
        sizes = self._values(link), letter.numbers, letter.bytes
        what = (message.kind, *link, message.iteration, start, end, 0, *sizes)
        self._note(Event("message", *what, message.fate, roundoff))
        self._queue.push(end, Turn.ARRIVE, message.target, message)

    def _values(self, link: tuple[int, int]) -> int:
        """Return the numbers in a message, zeros included; predictions are about the layer above."""
        return self._batch * self._plan.network.sizes[max(link)]

    def _note(self, event: Event) -> None:
        self._timeline.append(event)
        self.totals.count(event)


def _watching(plan: Program | Reaction, observers: Sequence[Observer]) -> Mapping[int, Watching] | None:
    """Return who looks on at operations, by their identities; None if they are not known beforehand."""
    if isinstance(plan, Reaction):
        return None
    seen = (plan.operations[index] for index in plan.last_writes)
    return {id(operation): onlookers(operation, observers) for operation in seen}


def _turns(cores: Sequence[int], layers: int) -> tuple[tuple[int, ...], ...]:
    """Return for each layer who may act when it is done: the layers of its core, itself last.

    Raises:
        ConfigurationError: not one whole number a layer.
    """
    good = len(cores) == layers and all(isinstance(core, int | np.integer) for core in cores)
    refuse_unless(good, "cores", tuple(cores), f"{layers} whole numbers, the core of each layer")
    ahead = [[*range(layer + 1, layers), *range(layer + 1)] for layer in range(layers)]
    return tuple(
        tuple(other for other in ahead[layer] if cores[other] == cores[layer]) for layer in range(layers)
    )
