"""pcsim as a contestant: what `pcsim run` does with a mini-batch, on the backend and engine asked for."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Statistics
from pcsim.engine.threads import suited_threads
from pcsim.experiments.bench.contestant import BATCHES, Samples
from pcsim.experiments.bench.plan import Contender, Workload
from pcsim.hardware.clock import unit
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ, SGD, Adam, LearningRule
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
from pcsim.tracing.recorder import Recorder
from pcsim.tracing.writer import TraceWriter

# The published rates, but for SGD's: 1 is for labels that can be learnt, these are random.
LEARNING: dict[str, LearningRule] = {"sgd": SGD(0.05), "mq": MQ(3e-5), "adam": Adam(3e-5)}
EXPECTED_STEPS = 1000  # sizes the trace's chunks


class Ours:
    """A network, its engine and its observers."""

    def __init__(self, contender: Contender, workload: Workload, samples: Samples) -> None:
        self._samples, self._step, self._rest = samples, 0, ExitStack()
        self._network = network = network_of(workload)
        program = program_of(workload, contender.iterations, network)
        self.multiplications = program.cost(workload.batch).multiplications
        self._rest.enter_context(suited_threads(network, workload.batch))
        kernels = make_kernels(contender.backend, "float32", workload.threads)
        units = network.layers(workload.batch, LEARNING[contender.rule], kernels)
        self._statistics = Statistics(program.iterations, network.top)
        observers: list[Observer] = []
        if contender.recording != "none":
            observers.append(self._statistics)
        self._checked = bool(observers)
        if contender.recording == "trace":
            folder = self._rest.enter_context(tempfile.TemporaryDirectory(prefix="pcsim-bench-"))
            writer = self._rest.enter_context(TraceWriter(Path(folder) / "trace.h5", {}))
            observers.append(
                Recorder(
                    writer,
                    network,
                    units,
                    self._statistics,
                    program.iterations,
                    every=1,
                    training_steps=EXPECTED_STEPS,
                )
            )
        if contender.engine == "event":
            self._engine: FastEngine | EventEngine = EventEngine(
                program, units, unit(), workload.batch, observers
            )
        else:
            self._engine = FastEngine(program, units, observers)

    def steps(self, count: int) -> None:
        """Train as the training loop does, with its look at the energies where they are recorded."""
        with np.errstate(all="ignore"), self._engine.layers[0].kernels.postponing():
            for _ in range(count):
                batch = self._step % BATCHES
                self._engine.step(self._samples.inputs[batch], self._samples.targets[batch])
                if self._checked:
                    self._statistics.check_finite()
                self._step += 1
        for layer in self._engine.layers[:-1]:
            layer.update_magnitude  # noqa: B018 - to read it waits for a GPU

    def finite(self) -> bool:
        """Look at the weights."""
        self._network.gather(self._engine.layers)
        return all(bool(np.isfinite(weight).all()) for weight, _ in self._network.parameters)

    def facts(self) -> dict[str, object]:
        """Return the multiplications of a step."""
        return {"multiplications": self.multiplications}

    def close(self) -> None:
        """Close the trace, if there is one."""
        self._rest.close()


def program_of(workload: Workload, iterations: int, network: Network | None = None) -> Program:
    """Return the sequential schedule's program; without a network given, one is made for it."""
    return Program.build(network or network_of(workload), Schedule("sequential", iterations))


def network_of(workload: Workload) -> Network:
    """Return the network that is trained."""
    return Network.of(workload.layers) if workload.layers else Network.dense(workload.sizes)


def load(contender: Contender) -> None:
    """Import and compile beforehand what the kernels would when they meet a large product."""
    make_kernels(contender.backend)
    if contender.backend != "reference":
        with suppress(ImportError):  # its products are tried; without it NumPy's are taken
            importlib.import_module("torch")


def build(contender: Contender, workload: Workload, samples: Samples) -> Ours:
    """Return pcsim, ready to train."""
    return Ours(contender, workload, samples)
