"""Runs a program in list order, in place, without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise

from pcsim.engine import fusion
from pcsim.engine.channel import Carried, ChannelSet, put_into
from pcsim.engine.checks import check_parts, checked_payload, set_targets
from pcsim.engine.observer import Observer, Onlooker, listeners, onlookers
from pcsim.engine.recording import Recording
from pcsim.engine.state import Facts, learnt, relearn
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.channel import PLAIN, Channels
from pcsim.schedule.message import Message
from pcsim.schedule.operation import Action, Operation
from pcsim.schedule.program import Program

Letterbox = Callable[["Array | None"], None]
Instruction = tuple[Action, Layer, Letterbox | None, tuple[tuple[Onlooker, Operation], ...]]
Wires = list[tuple[dict[MessageKind, Array], MessageKind, Array]]  # an inbox, and what lies in it


class FastEngine:
    """The shortest way through a program: buffers are wired once, then operations only fill them.

    A prediction is formed right in the inbox that it is sent to, and so is an error, unless the layer below
    may read one that its layer no longer holds: then sending it is one copy. Where messages go through
    channels, receivers keep copies of their own. A GPU is told once what to do; see `Recording`.

    Attributes:
        layers: the units that it runs.
        carried: what went through the channels; all 0 without any.

    Raises:
        ConfigurationError: no program or no layers; channels with faults that only a clock can tell, or that
            the network cannot have.
    """

    def __init__(
        self,
        program: Program,
        layers: Sequence[Layer],
        observers: Sequence[Observer] = (),
        *,
        channels: Channels = PLAIN,
    ) -> None:
        check_parts(program, Program, layers)
        self.layers = tuple(layers)
        self._observers = tuple(observers)
        self._step = 0
        channels.faults.check_timeless()
        self._channels = ChannelSet(channels, program.network, len(layers[0].activity), layers)
        self.carried = Carried()
        self._wires = self._own_copies() if channels.carry else self._shared_buffers(program)
        self._connect()
        self._instructions = tuple(self._write_instructions(program))
        self._recording = None if channels.active else Recording.of(program, layers, observers)

    def step(self, inputs: Array, targets: Array) -> None:
        """Run one mini-batch: inference phase, then learning phase.

        Args:
            inputs: x, (batch, n_0).
            targets: y, (batch, n_L).

        Raises:
            ShapeError: arrays of another shape.
            ProgramError: an operation sends nothing, or something of the wrong shape.
        """
        set_targets(self.layers, inputs, targets)
        self._connect()
        if self._recording is None or not self._recording.replay(self._step, self._act):
            for observer in self._observers:
                observer.begin_step(self._step)
            self._act()
        self._step += 1
        for observer in self._observers:
            observer.end_step()

    def _act(self) -> None:
        """Do all operations."""
        for action, unit, deliver, watching in self._instructions:
            payload = action(unit)
            if deliver is not None:
                deliver(payload)
            for observe, operation in watching:
                observe(operation, unit)

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return what decides the mini-batches to come, and what has been counted."""
        arrays, facts = self._channels.state()
        facts = {"channels": facts, "carried": asdict(self.carried)} if self._channels.settings.active else {}
        return learnt(self.layers) | arrays, {"step": self._step} | facts

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: arrays that are not this network's.
        """
        relearn(self.layers, arrays)
        self._step = facts["step"]
        if self._channels.settings.active:
            self._channels.restore(arrays, facts["channels"])
            self.carried = Carried(**facts["carried"])

    def _shared_buffers(self, program: Program) -> Wires:
        """Return the buffers that senders form predictions in and receivers read, and those of errors."""
        wires: Wires = []
        for below, above in pairwise(self.layers):
            wires.append((above.inbox, MessageKind.PREDICTION, below.outgoing))
            same = above.traits.index in program.tells_what_it_keeps
            error = above.error if same else above.kernels.mini_batch(above.error.shape, above.error.dtype)
            wires.append((below.inbox, MessageKind.ERROR, error))
        return wires

    def _own_copies(self) -> Wires:
        """Return buffers that belong to the receivers alone."""
        self._channels.prepare_inboxes()
        return [(unit.inbox, kind, buffer) for unit in self.layers for kind, buffer in unit.inbox.items()]

    def _connect(self) -> None:
        """Put the buffers into the inboxes, where another engine may have left messages of its own."""
        for inbox, kind, buffer in self._wires:
            inbox[kind] = buffer

    def _letter_box(self, operation: Operation) -> Letterbox | None:
        """Return what puts a payload into the receiver's inbox, unless it was formed there."""
        if operation.sends is None:
            return None
        inbox = self.layers[operation.target].inbox[operation.sends]
        if self._channels.links:
            return self._through_channel(operation, inbox)

        def deliver(payload: Array | None) -> None:
            if payload is not inbox:
                inbox[...] = checked_payload(operation, payload, inbox.shape)

        return deliver

    def _through_channel(self, operation: Operation, inbox: Array) -> Callable[[Array | None], None]:
        """Return what puts into the receiver's inbox what of a payload arrives."""
        link = operation.layer, operation.target
        channel, hearers = self._channels.links[link], listeners(self._observers)
        assert operation.sends is not None
        told = Message(operation.sends, *link, operation.iteration, inbox)

        def deliver(payload: Array | None) -> None:
            letter = channel.send(checked_payload(operation, payload, inbox.shape), self._step)
            lost = not letter.unsent and channel.mishap().lost
            self.carried.count(letter, inbox.size, lost)
            if letter.values is not None and not lost:
                put_into(letter.values, letter.entries, inbox)
            for hear in hearers:
                hear(told)

        return deliver

    def _write_instructions(self, program: Program) -> Iterator[Instruction]:
        """List what is done; an operation that is taken along by one before it is done there."""
        fused = {} if self._channels.settings.active else fusion.all_pairs(program, self.layers)
        taken_along = {other for other, _ in fused.values()}
        for index, operation in enumerate(program.operations):
            if index in taken_along:
                continue
            last, action = fused.get(index, (index, self._action(operation)))
            ends = (index, last) if last != index else (index,)
            watching = [
                (observe, program.operations[end])
                for end in ends
                if end in program.last_writes
                for observe in onlookers(program.operations[end], self._observers)
            ]
            deliver = self._letter_box(program.operations[last])
            yield action, self.layers[operation.layer], deliver, tuple(watching)

    def _action(self, operation: Operation) -> Action:
        """Return what an operation does; a layer may keep a number format, too."""
        if not (self._channels.states and operation.moves_activity):
            return operation.action

        def act(unit: Layer) -> Array | None:
            payload = operation.action(unit)
            self._channels.keep(unit)
            return payload

        return act
