"""One process of a distributed run: its own layers, its part of the program, its doors to the neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from pcsim.engine.checks import checked_payload
from pcsim.engine.distributed.learning import SharedLearner
from pcsim.engine.distributed.plan import Part, Task
from pcsim.engine.distributed.wire import Inlet, Lane, Outlet, Wire
from pcsim.engine.state import learnt, relearn
from pcsim.kernels import Array
from pcsim.kernels.backends import make_kernels
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.learner import Learner
from pcsim.schedule.operation import Operation, Place

Seen = dict[int, dict[str, Array]]  # by operation: what it has left behind and sent
Deliver = Callable[[Array | None], None]


class Member:
    """Runs the operations of some neighbouring layers, which are all that it has.

    Messages between its own layers stay in memory, those at its ends go to and come from other processes.

    Args:
        part: what it is told.
        wire: to the others.

    Attributes:
        units: its layers by index.
    """

    def __init__(self, part: Part, wire: Wire) -> None:
        self.part, self._wire = part, wire
        if part.backend == "cuda":
            from pcsim.kernels.cuda_arrays import take_device

            take_device(wire.rank)
        kernels = make_kernels(part.backend, part.dtype, part.threads)
        self._dtype = np.dtype(part.dtype)
        below, above = wire.rank - 1, wire.rank + 1
        self.units: dict[int, Layer] = {}
        for place, (index, traits) in enumerate(zip(part.layers, part.traits, strict=True)):
            has_connection = place < len(part.connections)
            connection = part.connections[place] if has_connection else None
            parameters = part.parameters[place] if has_connection else None
            learner = None if parameters is None else self._learner(*parameters)
            self.units[index] = Layer(
                traits, part.batch, self._dtype, kernels, connection, parameters, learner
            )
        assert len(part.parameters) == sum(unit.connection is not None for unit in self.units.values())
        assert all(task.operation.layer in self.units for task in part.tasks)
        self._kernels = kernels
        low, high = self.units[part.layers[0]], self.units[part.layers[-1]]
        self._inlets: dict[MessageKind, tuple[Layer, Inlet]] = {}
        self._outlets: dict[MessageKind, Outlet] = {}
        if not part.has_input:
            buffer = self._maker(low.traits.size)
            self._inlets[MessageKind.PREDICTION] = low, Inlet(wire, buffer, below, Lane.UP)
            self._outlets[MessageKind.ERROR] = Outlet(wire, buffer, below, Lane.DOWN)
        if not part.has_output:
            buffer = self._maker(high.outgoing.shape[1])
            self._inlets[MessageKind.ERROR] = high, Inlet(wire, buffer, above, Lane.DOWN)
            self._outlets[MessageKind.PREDICTION] = Outlet(wire, buffer, above, Lane.UP)
        for lower, upper in pairwise(self.units.values()):
            upper.inbox[MessageKind.PREDICTION] = lower.outgoing
            lower.inbox[MessageKind.ERROR] = kernels.mini_batch(upper.error.shape, self._dtype)
        self._instructions = [(task, self.units[task.operation.layer], self._letter_box(task.operation),
                               _touches_weight(task.operation)) for task in part.tasks]  # fmt: skip
        self._last_energy = max((i for i, task in enumerate(part.tasks) if task.energy), default=-1)
        self.energies = np.zeros((sum(task.energy for task in part.tasks), 2))

    def step(
        self,
        number: int,
        inputs: Array | None,
        targets: Array | None,
        report: Callable[[Array], None],
    ) -> Seen:
        """Run this process's part of one mini-batch; return the arrays that are watched in this step.

        Args:
            number: training step.
            inputs: x (batch, n_0), where the input layer lives.
            targets: y (batch, n_L), where the output layer lives.
            report: gets ½‖e_l‖² and the free energy of the operations that are reported, as soon as known.
        """
        with self._wire.times.computing():
            return self._act(number, inputs, targets, report)

    def _act(
        self,
        number: int,
        inputs: Array | None,
        targets: Array | None,
        report: Callable[[Array], None],
    ) -> Seen:
        for index, array in ((0, inputs), (-1, targets)):
            if array is not None:
                unit = self.units[self.part.layers[index]]
                unit.target = self._kernels.load(array, unit.target)
        seen: Seen = {}
        watching = self.part.watching(number)
        received: Counter[MessageKind] = Counter()
        rows = iter(self.energies)
        for position, (task, unit, deliver, touches) in enumerate(self._instructions):
            for kind, count in task.awaits:
                while received[kind] < count:
                    receiver, inlet = self._inlets[kind]
                    receiver.inbox[kind] = inlet.take()
                    received[kind] += 1
            if touches and isinstance(unit.learner, SharedLearner):
                unit.learner.finish()
            payload = task.operation.action(unit)
            if deliver is not None:
                deliver(payload)
            if task.energy:
                squared_error = unit.squared_error()
                next(rows)[:] = squared_error, unit.free_energy(squared_error)
            if watching:
                self._show(seen, number, task, unit, payload)
            if position == self._last_energy:
                report(self.energies)
        if self._last_energy < 0:
            report(self.energies)
        return seen

    def magnitudes(self) -> Array:
        """Return the mean |Δ| of the latest update of each of its connections; ends what learning is due."""
        units = [unit for unit in self.units.values() if unit.connection is not None]
        with self._wire.times.computing():
            found = [
                float(unit.learner) if isinstance(unit.learner, SharedLearner) else unit.update_magnitude
                for unit in units
            ]
        return np.array(found, dtype=np.float64)

    def learnt(self) -> dict[str, Array]:
        """Return its weights, biases and the state of the rules, by name."""
        return learnt(self._all)

    def relearn(self, arrays: Mapping[str, Array]) -> None:
        """Put back what `learnt` has returned.

        Raises:
            CheckpointError: an array is missing or of another shape.
        """
        relearn(self._all, arrays)

    def finish(self) -> None:
        """Part from the neighbours: meet each receive that they have begun by a last, empty message."""
        for outlet in self._outlets.values():
            outlet.send(0.0)
        for _, inlet in self._inlets.values():
            inlet.drain()
        for outlet in self._outlets.values():
            outlet.flush()

    @property
    def _all(self) -> list[Layer]:
        """Its layers, the output or nothing at the end, as a whole network's list ends."""
        owners = [unit for unit in self.units.values() if unit.connection is not None]
        return [*owners, self.units[self.part.layers[-1]]]

    def _maker(self, width: int) -> Callable[[], Array]:
        """Return what makes a buffer for messages."""
        return lambda: self._kernels.mini_batch((self.part.batch, width), self._dtype)

    def _learner(self, weight: Array, bias: Array) -> Learner:
        """Return the learner of a connection; one of several replicas shares what it learns."""
        matrix = weight if weight.ndim == 2 else weight.reshape(len(weight), -1)
        rule = self.part.rule(matrix, bias)
        if self.part.replicas == 1:
            return rule
        ranks = tuple(replica * self.part.stages + self.part.stage for replica in range(self.part.replicas))
        return SharedLearner(rule, matrix, bias, self._wire, ranks)

    def _letter_box(self, operation: Operation) -> Deliver | None:
        """Return what puts a payload into the receiver's inbox or on its way to another process."""
        if operation.sends is None:
            return None
        kind = operation.sends
        if operation.target not in self.units:
            outlet = self._outlets[kind]
            shape = self._kernels_shape(operation)
            return lambda payload: outlet.send(checked_payload(operation, payload, shape))
        inbox = self.units[operation.target].inbox[kind]

        def deliver(payload: Array | None) -> None:
            if payload is not inbox:
                inbox[...] = checked_payload(operation, payload, inbox.shape)

        return deliver

    def _kernels_shape(self, operation: Operation) -> tuple[int, ...]:
        unit = self.units[operation.layer]
        up = operation.sends is MessageKind.PREDICTION
        return tuple(unit.outgoing.shape if up else unit.error.shape)

    def _show(self, seen: Seen, number: int, task: Task, unit: Layer, payload: Array | None) -> None:
        """Keep copies of what is watched of an operation."""
        shown: dict[str, Array] = {}
        written = {place.name for place in task.operation.writes}
        for watch in self.part.watches:
            if not watch.active(number) or task.operation.layer not in watch.layers:
                continue
            for name in watch.quantities & {"activity", "error", "prediction", "message"}:
                array = _quantity(name, unit, payload, written, task.operation.sends is not None)
                if array is not None and name not in shown:
                    shown[name] = np.array(array)
        if shown:
            seen[task.index] = shown


def _quantity(name: str, unit: Layer, payload: Array | None, written: set[str], sends: bool) -> Any:  # noqa: ANN401
    """Return an array that an operation has left behind or sent, None if it has not."""
    if name == "message":
        return payload if sends else None
    if name == "prediction":
        return unit.inbox.get(MessageKind.PREDICTION) if "error" in written else None
    return getattr(unit, name) if name in written else None


def _touches_weight(operation: Operation) -> bool:
    return Place(operation.layer, "weight") in operation.reads | operation.writes
