"""How fast full activity and error tensors are recorded, beside plain h5py writing the same bytes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Onlooker, Statistics
from pcsim.experiments.bench.machine import machine
from pcsim.experiments.bench.plan import PAPER_SIZES, TINY_SIZES, BenchError
from pcsim.experiments.bench.report import Spread
from pcsim.kernels import Array
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ
from pcsim.network.layer import Layer
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program, Schedule
from pcsim.tracing.compression import filters
from pcsim.tracing.probes import Probe
from pcsim.tracing.recorder import Recorder
from pcsim.tracing.table import Storage
from pcsim.tracing.writer import WAITING_BYTES, TraceWriter

GOAL = 0.6  # share of plain h5py's speed that recording must reach
MEGA = 1e6
PROBE = "everything"
Row = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """What is recorded, and how often.

    Attributes:
        sizes: neurons a layer.
        batch: samples a mini-batch, all of them recorded.
        iterations: T.
        steps: training steps in a file, each of them recorded.
        rounds: files of each contender.
        compressions: what is gone through.
    """

    sizes: tuple[int, ...] = PAPER_SIZES
    batch: int = 64
    iterations: int = 3
    steps: int = 60
    rounds: int = 5
    compressions: tuple[str, ...] = ("none", "gzip", "lzf", "zstd")

    @classmethod
    def tiny(cls, rounds: int) -> Plan:
        """Return a plan that only tests the harness."""
        return cls(TINY_SIZES, 4, 2, 5, rounds, ("none", "gzip"))


@dataclass(frozen=True)
class Rate:
    """How fast one compression was written.

    Attributes:
        compression: none, gzip, lzf or zstd.
        steps: training steps in each file.
        megabytes: of numbers in each file, uncompressed.
        file_megabytes: of pcsim's file.
        plain_file_megabytes: of h5py's.
        recorder: megabytes of numbers a second, by pcsim's recorder, from layers' arrays to a closed file.
        plain: the same by h5py, from arrays of the right shape and type.
        ratio: of the two, paired by round.
    """

    compression: str
    steps: int
    megabytes: float
    file_megabytes: float
    plain_file_megabytes: float
    recorder: Spread
    plain: Spread
    ratio: Spread


@dataclass(frozen=True)
class Beside:
    """What recording costs a simulation that really runs.

    Attributes:
        recording: nothing, or where it is written: by a thread, or at once.
        milliseconds: of one training step.
    """

    recording: str
    milliseconds: Spread


@dataclass(frozen=True)
class TraceReport:
    """The whole benchmark of recording.

    Attributes:
        machine: processor, system, git commit, start.
        plan: what was recorded.
        folder: where the files were written.
        goal: the smallest ratio, uncompressed, that counts as reached.
        rates: one a compression.
        beside: training steps with and without recording.
        absent: why a compression could not be measured, by name.
    """

    machine: Mapping[str, Any]
    plan: Plan
    folder: str
    goal: float
    rates: tuple[Rate, ...]
    beside: tuple[Beside, ...]
    absent: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self) | {"reached": [rate.ratio.median >= self.goal for rate in self.rates]}


class Tape:
    """An observer that keeps what the layers held whenever they were looked at, in one training step."""

    def __init__(self) -> None:
        self.scenes: list[tuple[Operation, Layer, Array, Array]] = []

    def begin_step(self, step: int) -> None:
        """Forget the training step before."""
        self.scenes.clear()

    def onlooker(self, operation: Operation) -> Onlooker:
        """Look at everything."""
        return self.observe

    def observe(self, operation: Operation, unit: Layer) -> None:
        """Copy the layer's state, laid out in memory as it is."""
        self.scenes.append((operation, unit, unit.activity.copy(order="K"), unit.error.copy(order="K")))

    def end_step(self) -> None:
        """Do nothing."""

    def play(self, recorder: Recorder) -> None:
        """Show everything again to a recorder, with the layers as they were."""
        for operation, unit, activity, error in self.scenes:
            unit.activity, unit.error = activity, error
            recorder.observe(operation, unit)


class TraceBench:
    """Everything that the benchmark needs, made once: a network that has trained a little, and its tape."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self._folder = plan, folder
        rng = np.random.default_rng(0)
        self.network = Network.dense(plan.sizes, seed=0)
        self._inputs = rng.random((plan.batch, plan.sizes[0]), dtype=np.float32)
        self._targets = np.eye(plan.sizes[-1], dtype=np.float32)[
            rng.integers(plan.sizes[-1], size=plan.batch)
        ]
        self.program = Program.build(self.network, Schedule("sequential", plan.iterations))
        self._kernels = make_kernels("cpu", "float32")
        self.tape = Tape()
        self.units, engine = self._engine(self.tape)
        for _ in range(3):
            engine.step(self._inputs, self._targets)

    @property
    def step_bytes(self) -> int:
        """Bytes of numbers that one training step leaves in the trace."""
        values = sum(self.plan.sizes) + sum(self.plan.sizes[1:])
        return (self.plan.iterations + 1) * self.plan.batch * values * 4 + 8

    def rate(self, compression: str, tell: Callable[[str], None]) -> Rate:
        """Let the recorder and h5py write in turns.

        Raises:
            BenchError: the two files do not hold the same.
            TraceError: the compression is not installed, or the disk is full.
        """
        filters(compression)
        ours, plain, sizes = [], [], (0.0, 0.0)
        # The slow ones get shorter files: what counts is the speed.
        steps = self.plan.steps if compression == "none" else max(1, self.plan.steps // 4)
        megabytes = steps * self.step_bytes / MEGA
        for turn in range(self.plan.rounds):
            with self._files() as (one, other):
                ours.append(megabytes / self._record(one, compression, steps))
                row = _first_row(one)
                plain.append(megabytes / _write_plain(other, one, row, steps))
                if turn == 0:
                    _check_equal(one, other)
                sizes = one.stat().st_size / MEGA, other.stat().st_size / MEGA
            tell(f"{compression}, round {turn + 1}: {ours[-1]:,.0f} MB/s, h5py {plain[-1]:,.0f} MB/s")
        rates = Spread.of(ours), Spread.of(plain), Spread.of_ratios(ours, plain)
        return Rate(compression, steps, megabytes, *sizes, *rates)

    def beside(self, tell: Callable[[str], None]) -> tuple[Beside, ...]:
        """Time real training steps: without a trace, and with one that is written in either way."""
        ways = {"nothing": None, "by a thread": WAITING_BYTES, "at once": 0}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(self.plan.rounds):
            for way, buffer in ways.items():
                times[way].append(self._train(buffer) * 1e3)
                tell(f"training, recorded {way}: {times[way][-1]:.1f} ms a step")
        return tuple(Beside(way, Spread.of(found)) for way, found in times.items())

    def _engine(self, *observers: Observer) -> tuple[Sequence[Layer], FastEngine]:
        units = self.network.layers(self.plan.batch, MQ(1e-5), self._kernels)
        return units, FastEngine(self.program, units, observers)

    def _recorder(self, writer: TraceWriter, units: Sequence[Layer], steps: int) -> Recorder:
        statistics = Statistics(self.plan.iterations, self.network.top)
        probe = Probe(PROBE, ("activity", "error"), samples=self.plan.batch, every=1)
        return Recorder(
            writer,
            self.network,
            units,
            statistics,
            self.plan.iterations,
            [probe],
            2**62,
            training_steps=steps,
        )

    def _record(self, path: Path, compression: str, steps: int) -> float:
        """Record the tape over and over; return the seconds until the file is closed."""
        start = time.perf_counter()
        with TraceWriter(path, {}, storage=Storage(compression)) as writer:
            recorder = self._recorder(writer, self.units, steps)
            for step in range(steps):
                recorder.begin_step(step)
                self.tape.play(recorder)
                recorder.end_step()
        return time.perf_counter() - start

    def _train(self, buffer_bytes: int | None) -> float:
        """Train for some steps, all of them recorded; return the seconds a step, closing included."""
        steps = max(2, self.plan.steps // 4)
        with self._files() as (path, _):
            if buffer_bytes is None:
                _, engine = self._engine()
                start = time.perf_counter()
                for _ in range(steps):
                    engine.step(self._inputs, self._targets)
                return (time.perf_counter() - start) / steps
            start = time.perf_counter()
            with TraceWriter(path, {}, buffer_bytes=buffer_bytes) as writer:
                units = self.network.layers(self.plan.batch, MQ(1e-5), self._kernels)
                engine = FastEngine(self.program, units, [self._recorder(writer, units, steps)])
                for _ in range(steps):
                    engine.step(self._inputs, self._targets)
            return (time.perf_counter() - start) / steps

    @contextmanager
    def _files(self) -> Iterator[tuple[Path, Path]]:
        """Yield two names; what lies there is removed afterwards."""
        paths = self._folder / "recorded.h5", self._folder / "plain.h5"
        try:
            yield paths
        finally:
            for path in paths:
                path.unlink(missing_ok=True)


def run_trace_bench(plan: Plan, tell: Callable[[str], None]) -> TraceReport:
    """Measure all compressions of a plan in a temporary folder (TMPDIR chooses where), removed afterwards.

    Raises:
        BenchError: there is too little room, or the files differ.
        TraceError: the disk is full.
    """
    rates, absent = [], {}
    with tempfile.TemporaryDirectory(prefix="pcsim-bench-") as name:
        bench = TraceBench(plan, Path(name))
        needed, free = 2.2 * plan.steps * bench.step_bytes, shutil.disk_usage(name).free
        if free < needed:
            raise BenchError(
                f"{name} has {free / MEGA:,.0f} MB free: expected {needed / MEGA:,.0f}; "
                "set TMPDIR to another folder"
            )
        for compression in plan.compressions:
            if compression == "zstd" and not _installed():
                absent["zstd"] = "hdf5plugin is not installed"
            else:
                rates.append(bench.rate(compression, tell))
        beside = bench.beside(tell)
    folder = str(Path(name).parent)
    return TraceReport(machine(), plan, folder, GOAL, tuple(rates), beside, absent)


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("hdf5plugin") is not None


def _first_row(path: Path) -> Row:
    """Return one row of each column as the recorder has written it."""
    with h5py.File(path, "r") as file:
        group = file[f"probes/{PROBE}"]
        return {name: item[0] for name, item in group.items() if item.maxshape[:1] == (None,)}


def _write_plain(path: Path, model: Path, row: Row, steps: int) -> float:
    """Write the same rows with the same chunks and filters by h5py alone; return the seconds."""
    with h5py.File(model, "r") as file:
        group = file[f"probes/{PROBE}"]
        layouts = {
            name: {
                "shape": (0, *group[name].shape[1:]),
                "maxshape": group[name].maxshape,
                "dtype": group[name].dtype,
                "dcpl": group[name].id.get_create_plist().copy(),
            }
            for name in row
        }
        start = time.perf_counter()
        with h5py.File(path, "w") as plain:
            datasets = {name: _create(plain, name, layout) for name, layout in layouts.items()}
            for step in range(steps):
                for name, dataset in datasets.items():
                    dataset.resize(step + 1, axis=0)
                    dataset[step] = step if name == "step" else row[name]
        return time.perf_counter() - start


def _create(file: h5py.File, name: str, layout: Mapping[str, Any]) -> h5py.Dataset:
    space = h5py.h5s.create_simple(
        layout["shape"], tuple(n or h5py.h5s.UNLIMITED for n in layout["maxshape"])
    )
    kind = h5py.h5t.py_create(layout["dtype"], logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, layout["dcpl"]))


def _check_equal(one: Path, other: Path) -> None:
    """Make sure that both have written the same numbers in the same layout."""
    with h5py.File(one, "r") as first, h5py.File(other, "r") as second:
        for name, dataset in second.items():
            recorded = first[f"probes/{PROBE}"][name]
            same = recorded.shape == dataset.shape and recorded.chunks == dataset.chunks
            if not same or any(not np.array_equal(recorded[i], dataset[i]) for i in (0, len(dataset) - 1)):
                raise BenchError(f"column {name} of the two files differs: the comparison would mean nothing")
