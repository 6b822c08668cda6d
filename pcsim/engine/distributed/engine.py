"""Runs a program in several processes that share no memory: layers exchange messages, and nothing else.

Groups of consecutive layers live in processes of their own (`Member`). This process, rank 0, has the group
of the input layer, the data, and whoever looks on; it knows the other layers by what they tell it (`Echo`).
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np

from pcsim.engine.distributed.echo import Echo
from pcsim.engine.distributed.learning import check_replicas
from pcsim.engine.distributed.member import Member, Seen
from pcsim.engine.distributed.plan import Distribution, Part, Share, Watch, part_of, stages_of
from pcsim.engine.distributed.team import Command, Team
from pcsim.engine.distributed.wire import Inlet, Lane, Outlet, Times
from pcsim.engine.distributed.worker import sums_of
from pcsim.engine.observer import Observer, Statistics, onlookers
from pcsim.engine.products import settle_products
from pcsim.engine.state import Facts, learnt, relearn
from pcsim.errors import ConfigurationError, NonFiniteError, misshapen
from pcsim.kernels import Array, Kernels
from pcsim.learning import LearningRule
from pcsim.network.layer import Layer
from pcsim.schedule.program import Program

BACKENDS = {"CpuKernels": "cpu", "CudaKernels": "cuda"}


def echoing(program: Program) -> Program:
    """Return the program as echoes run it: each operation hands out what its layer has sent."""
    return replace(program, operations=tuple(replace(one, action=_payload) for one in program.operations))


def _payload(unit: Layer) -> Array | None:
    assert isinstance(unit, Echo)
    return unit.payload


class DistributedEngine:
    """The engine as the training loop sees it; the layers are elsewhere.

    Args:
        team: the processes.
        program: what they run.
        rule: how connections learn.
        batch: samples a mini-batch, all replicas together.
        kernels: those of rank 0; the others make the same.
        statistics: gets the energies of all layers.
        watches: what is brought here besides: which arrays, of which layers, how often.

    Attributes:
        heard: the program as those hear it who look on; a recorder may tap it.
        observers: are told of each mini-batch, from what the layers have reported.

    Raises:
        ConfigurationError: more processes than layers; replicas that cannot be; kernels that have no name;
            an order whose actions cannot be sent to another process.
    """

    def __init__(
        self,
        team: Team,
        program: Program,
        rule: LearningRule,
        batch: int,
        kernels: Kernels,
        statistics: Statistics,
        watches: Sequence[Watch] = (),
    ) -> None:
        distribution = team.distribution
        assert distribution.processes is not None
        backend = _backend(kernels)
        check_replicas(rule, batch, distribution.replicas, backend)
        self._team, self._program, self._statistics = team, program, statistics
        self._stages = stages_of(program, distribution.processes)
        self._batch, self._share = batch, batch // distribution.replicas
        self.heard, self.observers = echoing(program), list[Observer]()
        self._watches = tuple(watches)
        settle_products(program.network, self._share, kernels)
        self._begin(rule, kernels, backend, distribution)
        network = program.network
        self._echoes = tuple(
            Echo(
                traits,
                network.connections[index] if index < network.top else None,
                kernels,
                batch,
                network.dtype,
                _Magnitude(self, index),
            )
            for index, traits in enumerate(network.traits)
        )
        self._step = 0
        self._magnitudes: Array = np.zeros(network.top)
        self._owed = False  # whether the magnitudes of the last mini-batch are still under way
        self._remembered = -1  # the step whose parameters the echoes hold
        self._begun: float | None = None

    def _begin(self, rule: LearningRule, kernels: Kernels, backend: str, distribution: Distribution) -> None:
        """Tell everybody their parts, and open the doors."""
        team, wire, stages = self._team, self._team.wire, self._stages
        world = range(wire.world)
        parts = [
            part_of(
                self._program,
                stages,
                rank % len(stages),
                rank // len(stages),
                distribution=distribution,
                rule=rule,
                batch=self._batch,
                backend=backend,
                threads=getattr(kernels, "threads", 1),
                watches=self._watches,
            )
            for rank in world
        ]
        self._parts = parts
        for rank, part in enumerate(parts):
            first, last = part.layers[0], part.layers[-1]
            wire.names[rank] = f"layer {first}" if first == last else f"layers {first} to {last}"
        _check_portable(parts)
        for rank in team.others:
            team.tell(rank, Command.PART)
            wire.send_object(parts[rank], rank)
        wire.allow_sums(sums_of(len(stages), distribution.replicas))
        self._member = Member(parts[0], wire)
        sizes = self._program.network.sizes
        self._inputs: dict[int, Outlet] = {}
        self._targets: dict[int, Outlet] = {}
        self._energies: dict[int, Inlet] = {}
        self._later: dict[int, Inlet] = {}
        for rank in team.others:
            part = parts[rank]
            if part.has_input:
                self._inputs[rank] = Outlet(wire, self._maker(sizes[0]), rank, Lane.INPUTS)
            if part.has_output:
                self._targets[rank] = Outlet(wire, self._maker(sizes[-1]), rank, Lane.TARGETS)
            reported = sum(task.energy for task in part.tasks)
            self._energies[rank] = Inlet(wire, _zeros(reported, 2), rank, Lane.ENERGIES)
            if part.connections:
                self._later[rank] = Inlet(wire, _zeros(1, len(part.connections)), rank, Lane.MAGNITUDES)
        for rank in team.others:
            wire.await_ready(rank)
        wire.times = Times()

    def _maker(self, width: int) -> Callable[[], Array]:
        """Return what makes a buffer for inputs or targets of one replica."""
        return lambda: np.zeros((self._share, width), self._program.network.dtype)

    @property
    def layers(self) -> Sequence[Layer]:
        """All layers, with weights, biases and the rules' state as they are now; copies."""
        self._remember()
        return self._echoes

    @property
    def echoes(self) -> Sequence[Layer]:
        """All layers as those see them who look on; nobody is asked for anything."""
        return self._echoes

    def step(self, inputs: Array, targets: Array) -> None:
        """Run one mini-batch.

        Args:
            inputs: x, (batch, n_0).
            targets: y, (batch, n_L).

        Raises:
            ShapeError: arrays of another shape.
            NonFiniteError: the update of the mini-batch before became infinite or NaN.
            PeerError: a process is lost.
        """
        self._check_shapes(inputs, targets)
        self._begun = self._begun or time.perf_counter()
        self._settle_magnitudes()
        self._statistics.begin_step(self._step)
        if self._wants_weights():
            self._remember()
        self._echoes[-1].target = targets
        for observer in self.observers:
            observer.begin_step(self._step)
        seen = self._act(inputs, targets)
        self._step += 1
        self._tell(seen)
        self._statistics.end_step()
        if self.observers and self._wants_weights(self._step - 1):
            self._remember()
        for observer in self.observers:
            observer.end_step()

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return what decides the mini-batches to come."""
        return learnt(self.layers), {"step": self._step}

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state, which may be of another number of processes.

        Raises:
            CheckpointError: arrays that are not this network's.
        """
        relearn(self.layers, arrays)  # on copies, which finds out whether they fit
        for rank in self._team.others:
            layers = self._parts[rank].layers
            own = {name: one for name, one in arrays.items() if int(name.rsplit("_", 1)[1]) in layers}
            self._team.tell(rank, Command.RESTORE)
            self._team.wire.send_object(own, rank)
        self._member.relearn(arrays)
        self._step, self._remembered = facts["step"], -1

    def shares(self) -> list[Share]:
        """Return what each process did with its time so far."""
        team, wire = self._team, self._team.wire
        total = time.perf_counter() - (self._begun or time.perf_counter())
        team.tell_all(Command.TIMES)
        times = [wire.times, *(wire.receive_object(rank) for rank in team.others)]
        return [self._share_of(rank, one, total) for rank, one in enumerate(times)]

    def finish(self) -> None:
        """Let all processes forget their layers; they are ready for another engine."""
        self._collect_magnitudes()
        self._team.tell_all(Command.FINISH)
        for outlet in (*self._inputs.values(), *self._targets.values()):
            outlet.send(0.0)
            outlet.flush()
        self._member.finish()
        for inlet in (*self._energies.values(), *self._later.values()):
            inlet.drain()

    def magnitude(self, layer: int) -> float:
        """Return the mean |Δ| of the latest update of a connection, when its process has made it."""
        self._settle_magnitudes()
        return float(self._magnitudes[layer])

    def _act(self, inputs: Array, targets: Array) -> list[Seen]:
        """Run the mini-batch here and elsewhere; return what is watched, by rank, and note the energies."""
        team, member = self._team, self._member
        parts = [slice(n * self._share, (n + 1) * self._share) for n in range(team.distribution.replicas)]
        for rank in team.others:
            team.tell(rank, Command.STEP, self._step)
            rows = parts[self._parts[rank].replica]
            for outlets, array in ((self._inputs, inputs), (self._targets, targets)):
                if rank in outlets:
                    outlets[rank].send(array[rows])
        top = targets[parts[0]] if self._parts[0].has_output else None
        seen = [member.step(self._step, inputs[parts[0]], top, lambda energies: None)]
        self._owed = True
        energies = [member.energies, *(self._energies[rank].take() for rank in team.others)]
        self._note(energies)
        if member.part.watching(self._step):
            seen += [team.wire.receive_object(rank) for rank in team.others]
        return seen

    def _note(self, energies: Sequence[Array]) -> None:
        """Note the energies of all layers; of replicas with equal shares of the mini-batch the mean."""
        stages = len(self._stages)
        for stage in range(stages):
            copies = energies[stage::stages]
            mean = copies[0] if len(copies) == 1 else np.mean(copies, axis=0)
            tasks = (task for task in self._parts[stage].tasks if task.energy)
            for task, (squared_error, free_energy) in zip(tasks, mean.tolist(), strict=True):
                one = task.operation
                self._statistics.note(one.iteration, one.layer, squared_error, free_energy)

    def _tell(self, seen: Sequence[Seen]) -> None:
        """Tell those who look on what has happened, operation by operation."""
        if not self.observers:
            return
        watched, stages = self._program.last_writes, len(self._stages)
        for index, operation in enumerate(self.heard.operations):
            stage = next(n for n, layers in enumerate(self._stages) if operation.layer in layers)
            echo = self._echoes[operation.layer]
            copies = [one[index] for one in seen[stage::stages] if index in one]
            if copies:
                echo.hear({name: np.concatenate([one[name] for one in copies]) for name in copies[0]})
                if "message" in copies[0]:
                    operation.action(echo)
            if index in watched:
                for observe in onlookers(operation, self.observers):
                    observe(operation, echo)

    def _settle_magnitudes(self) -> None:
        """Take the mean |Δ| of the last mini-batch, and look whether it is finite.

        Raises:
            NonFiniteError: one is not.
        """
        if not self._owed:
            return
        self._collect_magnitudes()
        for layer, magnitude in enumerate(self._magnitudes):
            if not math.isfinite(magnitude):
                raise NonFiniteError("weight update", self._step - 1, layer, self._program.iterations)

    def _collect_magnitudes(self) -> None:
        """Take what workers have sent when they had learnt, if it is still under way."""
        if not self._owed:
            return
        self._owed = False
        own = self._parts[0].layers[0]
        found = self._member.magnitudes()
        self._magnitudes[own : own + len(found)] = found
        for rank, inlet in self._later.items():
            row = inlet.take()[0]
            if self._parts[rank].replica == 0:
                first = self._parts[rank].layers[0]
                self._magnitudes[first : first + len(row)] = row

    def _wants_weights(self, step: int | None = None) -> bool:
        step = self._step if step is None else step
        return any("weight" in watch.quantities and watch.active(step) for watch in self._watches)

    def _remember(self) -> None:
        """Fetch weights, biases and the rules' state of all layers, unless they are at hand."""
        self._settle_magnitudes()
        if self._remembered == self._step:
            return
        arrays = self._member.learnt()
        for rank in self._team.others:
            if self._parts[rank].replica == 0:
                self._team.tell(rank, Command.FETCH)
                arrays |= self._team.wire.receive_object(rank)
        for echo in self._echoes[:-1]:
            echo.remember(arrays)
        self._remembered = self._step

    def _check_shapes(self, inputs: Array, targets: Array) -> None:
        sizes = self._program.network.sizes
        for name, array, width in (("inputs", inputs, sizes[0]), ("targets", targets, sizes[-1])):
            if getattr(array, "shape", None) != (self._batch, width):
                raise misshapen(name, array, str((self._batch, width)))

    def _share_of(self, rank: int, times: Times, total: float) -> Share:
        layers = self._parts[rank].layers
        work = sum(task.operation.multiplications for task in self._parts[rank].tasks)
        return Share(
            rank,
            (layers[0], layers[-1]),
            times.compute,
            times.communication,
            times.waiting,
            max(0.0, total - times.compute - times.communication - times.waiting),
            work * self._share,
        )


class _Magnitude:
    """The mean |Δ| of the last update of a connection, asked for when somebody looks."""

    def __init__(self, engine: DistributedEngine, layer: int) -> None:
        self._engine, self._layer = engine, layer

    def __float__(self) -> float:
        return self._engine.magnitude(self._layer)


def _backend(kernels: Kernels) -> str:
    """Return the name by which another process can make these kernels."""
    if isinstance(kernels, ModuleType):
        return "reference"
    name = type(kernels).__name__
    if name not in BACKENDS:
        raise ConfigurationError(f"engine distributed with {name}: expected kernels of pcsim.make_kernels")
    return BACKENDS[name]


def _check_portable(parts: Sequence[Part]) -> None:
    """Refuse what cannot be sent to another process, before anybody waits for it."""
    try:
        pickle.dumps([(part.tasks, part.rule) for part in parts])
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"order or rule cannot be sent to another process ({error}): expected functions and classes at "
            "the top of a module"
        ) from error


def _zeros(rows: int, columns: int) -> Callable[[], Array]:
    return lambda: np.zeros((rows, columns))
