"""Traces of real runs of every order and engine, of a killed run, and files that are no traces of ours."""

import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest

import pcsim
from pcsim.cli import main
from pcsim.errors import TraceError
from pcsim.schedule.channel import PLAIN
from pcsim.tracing import Column, TraceWriter, open_trace
from pcsim.tracing.schema import SCHEMA_VERSION

ORDERS = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")
RUNS = [(order, engine) for order in ORDERS for engine in ("fast", "event")] + [("asynchronous", "event")]
EVERYTHING = ("activity", "error", "prediction", "message", "weight", "update", "bias", "bias_update")
BATCH = 8


@dataclass(frozen=True)
class Run:
    """A run, its trace, and the parameters that it began with."""

    path: Path
    experiment: pcsim.Experiment
    before: list

    @property
    def inputs(self):
        """The inputs of the first mini-batch."""
        return self.experiment.dataset.inputs(np.arange(self.experiment.batch), "float64")

    @property
    def targets(self):
        """The targets of the first mini-batch."""
        return self.experiment.dataset.targets(np.arange(self.experiment.batch), "float64")


def small_data(outputs=5, samples=48):
    """Inputs of both signs, and classes."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, outputs, samples)
    arrays = {"x_train": rng.normal(size=(samples, 12)), "y_train": labels}
    return arrays | {"x_test": arrays["x_train"][:8], "y_test": labels[:8]}


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """Return a function that runs a small network and leaves a trace; the same run is made only once."""
    folder = tmp_path_factory.mktemp("analysis")
    np.savez(folder / "data.npz", **small_data())

    @cache
    def made(order, engine, changes):
        given = {
            "activation": "tanh",
            "output": "softmax",
            "proximal_step": 100.0,
            "iterations": 4,
            "step_size": 0.2,
            "record": EVERYTHING,
            "samples": BATCH,
            "every": 2,
            "dtype": "float64",
            "seed": 3,
            "rate": 0.2,
            "batch": BATCH,
            "precisions": "constant",
            "channels": PLAIN,
        } | dict(changes)
        network = pcsim.Network.dense(
            [12, 7, 6, 6, 5],
            activation=given["activation"],
            output=given["output"],
            proximal_step=given["proximal_step"],
            dtype=given["dtype"],
            seed=given["seed"],
        )
        settings = given["record"], None, given["samples"], given["every"], given["dtype"]
        probes = (pcsim.Probe("all", *settings),) if given["record"] else ()
        experiment = pcsim.Experiment(
            network,
            pcsim.load_dataset("npz", path=str(folder / "data.npz")),
            pcsim.SGD(given["rate"]),
            pcsim.Schedule(order, given["iterations"], given["step_size"], precisions=given["precisions"]),
            batch=given["batch"],
            channels=given["channels"],
            shuffle=False,
            record_every=given["every"],
            probes=probes,
        )
        before = [(weight.copy(), bias.copy()) for weight, bias in network.parameters]
        path = folder / f"{len(list(folder.iterdir()))}.h5"
        pcsim.run(experiment, engine=engine, kernels=pcsim.make_kernels("reference"), trace=path)
        return Run(path, experiment, before)

    def run(order="sequential", engine="fast", **changes):
        return made(order, engine, tuple(sorted(changes.items())))

    return run


@pytest.fixture(params=RUNS, ids="-".join)
def each_run(request, make):
    """A run of each order on each engine that can run it."""
    return make(*request.param)


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """The trace of a run that SIGKILL has cut off."""
    path = tmp_path_factory.mktemp("killed") / "killed.h5"
    root = Path(__file__).parents[2]
    # A flush is seen at once and the next one is far: a kill within one is tested in tests/tracing.
    sets = ["training.epochs=100000", "trace.flush_seconds=0.2", "trace.every=1", "training.batch=4"]
    sets += ["network.layers=[64, 8, 7, 10]", "probe.error-flow.every=1"]
    options = [part for one in sets for part in ("--set", one)]
    start = [sys.executable, "-c", "from pcsim.cli import main; main()", "run", root / "models/digits.toml"]
    process = subprocess.Popen(
        [*start, *options, "--engine", "event", "--backend", "reference", "--trace", path],
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and _recorded(path) < 20:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return path


def _recorded(path):
    """How many training steps a trace that is being written holds."""
    try:
        with open_trace(path) as trace:
            return trace.table("summary").rows
    except TraceError:  # not there yet, or a flush came between opening and reading
        return 0


@pytest.fixture
def future(tmp_path, make):
    """A trace of a schema that nobody knows yet."""
    path = tmp_path / "future.h5"
    path.write_bytes(make().path.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION + 7
    return path


@pytest.fixture
def foreign(tmp_path):
    """An HDF5 file that is no trace."""
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["summary/squared_error"] = np.zeros((3, 4, 2))
    return path


@pytest.fixture
def summary_trace(tmp_path):
    """Return a function that writes a trace by hand that has only a summary."""

    def write(squared_error, free_energy=None, update_magnitude=None, name="hand.h5", steps=None):
        squared_error = np.asarray(squared_error, dtype=float)
        rows, iterations, layers = squared_error.shape
        free_energy = squared_error if free_energy is None else free_energy
        updates = np.ones((rows, layers)) if update_magnitude is None else update_magnitude
        columns = {
            "step": Column((), "int64", "training step"),
            "free_energy": Column(("iteration", "layer"), "float64", "free energy"),
            "squared_error": Column(("iteration", "layer"), "float64", "squared error"),
            "update_magnitude": Column(("connection",), "float64", "update"),
        }
        coordinates = {
            "iteration": np.arange(iterations),
            "layer": np.arange(1, layers + 1),
            "connection": np.arange(layers),
        }
        with TraceWriter(tmp_path / name, {"order": "by hand", "iterations": iterations - 1}) as writer:
            table = writer.table("summary", "step", columns, coordinates)
            if rows:
                table.extend(
                    step=np.arange(rows) * 10 if steps is None else steps,
                    free_energy=free_energy,
                    squared_error=squared_error,
                    update_magnitude=updates,
                )
        return tmp_path / name

    return write


@pytest.fixture
def signal_trace(tmp_path):
    """Return a function that writes a probe by hand: columns (row, iteration, sample, neuron)."""

    def write(name="signal.h5", dtype="float64", **columns):
        arrays = {column: np.asarray(values) for column, values in columns.items()}
        described = {"step": Column((), "int64", "training step")}
        coordinates = {}
        for column, values in arrays.items():
            layer = column.rpartition("_")[2]
            described[column] = Column(("iteration", "sample", f"neuron_{layer}"), dtype, column)
            coordinates |= {"iteration": values.shape[1], "sample": values.shape[2]}
            coordinates[f"neuron_{layer}"] = values.shape[3]
        network = {"activation": ["identity", "relu", "relu"], "output": [None, None, "softmax"]}
        with TraceWriter(tmp_path / name, {"experiment": {"network": network}}) as writer:
            table = writer.table("probes/hand", "step", described, coordinates)
            table.extend(step=np.arange(len(next(iter(arrays.values())))), **arrays)
        return tmp_path / name

    return write


@dataclass(frozen=True)
class Outcome:
    """What a run of the program has left."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments):
    """Run the program within this process, which is ten times faster than to start one."""
    stdout, stderr, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["pcsim", *map(str, arguments)])
        patch.setenv("COLUMNS", "80")
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(name="command")
def command_fixture():
    """Return a function that runs the program."""
    return command


@pytest.fixture
def refused():
    """Return a function that checks that the program leaves with code 2 and one line that says something."""

    def check(*arguments, saying):
        outcome = command(*arguments)
        lines = [line for line in outcome.stderr.splitlines() if line.strip() and "%" not in line]
        assert outcome.returncode == 2, outcome.stdout + outcome.stderr
        assert len(lines) == 1, outcome.stderr
        assert lines[0].startswith("error: ")
        for part in saying:
            assert str(part) in lines[0], lines[0]

    return check
