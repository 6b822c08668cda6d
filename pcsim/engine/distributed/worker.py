"""A worker process: joins the others, is told its part, and does what rank 0 says until it is to leave."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import numpy as np

from pcsim.engine.distributed.member import Member
from pcsim.engine.distributed.plan import TIMEOUT, Part
from pcsim.engine.distributed.pulse import die_with
from pcsim.engine.distributed.team import Command, header_inlet, join
from pcsim.engine.distributed.wire import Inlet, Lane, Outlet, Times, Wire
from pcsim.errors import PcsimError, PeerError
from pcsim.kernels import Array


class Worker:
    """Carries out the commands of rank 0 on the layers of this process."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._member: Member | None = None

    def run(self) -> None:
        """Do what rank 0 says until it says stop.

        Raises:
            PeerError: another process is lost.
        """
        commands = header_inlet(self._wire)
        while True:
            command, argument = (int(number) for number in commands.take_idly()[0])
            match Command(command):
                case Command.PART:
                    self._begin(self._wire.receive_object(0))
                case Command.STEP:
                    self._step(argument)
                case Command.FETCH:
                    self._wire.send_object(self.member.learnt(), 0)
                case Command.RESTORE:
                    self.member.relearn(self._wire.receive_object(0))
                case Command.TIMES:
                    self._wire.send_object(self._wire.times, 0)
                case Command.FINISH:
                    self._finish()
                case Command.STOP:
                    return

    @property
    def member(self) -> Member:
        """The layers that it has been given."""
        assert self._member is not None
        return self._member

    def _begin(self, part: Part) -> None:
        wire = self._wire
        wire.allow_sums(sums_of(part.stages, part.replicas))
        self._member = member = Member(part, wire)
        self._inputs = self._targets = None
        batch, dtype = part.batch, np.dtype(part.dtype)
        if part.has_input:
            width = member.units[part.layers[0]].traits.size
            self._inputs = Inlet(wire, lambda: np.zeros((batch, width), dtype), 0, Lane.INPUTS)
        if part.has_output:
            outputs = member.units[part.layers[-1]].traits.size
            self._targets = Inlet(wire, lambda: np.zeros((batch, outputs), dtype), 0, Lane.TARGETS)
        self._energies = Outlet(wire, lambda: np.zeros_like(member.energies), 0, Lane.ENERGIES)
        count = len(part.connections)
        self._magnitudes = Outlet(wire, lambda: np.zeros((1, count)), 0, Lane.MAGNITUDES) if count else None
        wire.say_ready()
        wire.times = Times()

    def _step(self, number: int) -> None:
        inputs, targets = (_take(inlet) for inlet in (self._inputs, self._targets))
        seen = self.member.step(number, inputs, targets, self._energies.send)
        if self._magnitudes is not None:
            self._magnitudes.send(self.member.magnitudes()[np.newaxis])
        if self.member.part.watching(number):
            self._wire.send_object(seen, 0)

    def _finish(self) -> None:
        self.member.finish()
        for inlet in (self._inputs, self._targets):
            if inlet is not None:
                inlet.drain()
        for outlet in (self._energies, self._magnitudes):
            if outlet is not None:
                outlet.send(0.0)
                outlet.flush()
        self._member = None


def sums_of(stages: int, replicas: int) -> list[tuple[int, ...]]:
    """Return the ranks that add up their Hebbian sums: those of one stage in all replicas."""
    if replicas == 1:
        return []
    return [tuple(replica * stages + stage for replica in range(replicas)) for stage in range(stages)]


def serve(timeout: float = TIMEOUT) -> int:
    """Be a worker until the run ends; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; rank 0 says what to do about it
    wire = None
    try:
        wire = join(timeout)
        with np.errstate(all="ignore"):  # what overflows is found and named by rank 0
            Worker(wire).run()
        wire.leave()
        return 0
    except PeerError as error:  # rank 0 tells the user; who cannot even join tells it here
        if wire is None:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not isinstance(error, PcsimError):
            traceback.print_exc()
        if wire is not None:
            wire.note(f"{wire.rank} has failed: {error or type(error).__name__}")
        return 1


def _take(inlet: Inlet | None) -> Array | None:
    return None if inlet is None else inlet.take()


if __name__ == "__main__":
    die_with(int(os.environ["PCSIM_PARENT"]))
    code = serve(float(os.environ["PCSIM_TIMEOUT"]))
    sys.stderr.flush()
    os._exit(code)  # torch's own threads may wait for a process that is no more
