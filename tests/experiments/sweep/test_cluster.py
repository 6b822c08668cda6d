"""Real workers: Dask's processes on this machine, one killed, a scheduler of somebody else, none at all."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import model_from_dict
from pcsim.errors import StudyError
from pcsim.experiments.alone import FILE as LOCK
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run as run_once
from pcsim.experiments.sweep import cluster
from pcsim.experiments.sweep.conduct import conduct
from pcsim.experiments.sweep.index import RUNS, Index
from pcsim.experiments.sweep.job import Job
from pcsim.experiments.sweep.plan import read_plan
from pcsim.experiments.workers import THREADS, TRACE
from pcsim.tracing import open_trace

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
EPOCHS = 60


@pytest.fixture(scope="module")
def workers():
    """Two worker processes, as `--workers 2` starts them."""
    with cluster.local_workers(2, 1) as client:
        yield client


def test_the_environment_stays(monkeypatch):
    """Dask sets its workers' variables here; Numba, for one, raises if it finds them changed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    names = (*THREADS, *cluster.SILENT)
    before = [os.environ.get(name) for name in names]
    with cluster.local_workers(1, 1) as client:
        assert set(client.run(os.getenv, "NUMBA_NUM_THREADS").values()) == {"1"}
    assert [os.environ.get(name) for name in names] == before


class Watcher:
    """Kills a worker process in the middle of a run, and counts."""

    def __init__(self, client, kill=False):
        self.client, self.kill, self.killed, self.ended = client, kill, None, []

    def plan(self, epochs, runs, done):
        """Nothing to note."""

    def begin_round(self, until, configurations, runs):
        """Nothing to note."""

    def advance(self, run, epochs, news):
        """Kill whoever trains a run that is under way."""
        if self.kill and 2 <= epochs < EPOCHS / 2 and (process := holder(run)) is not None:
            self.kill, self.killed, self.process = False, run, process
            os.kill(process, signal.SIGKILL)

    def end(self, row, outcome):
        """Note how it ended."""
        self.ended.append(outcome)


def holder(run):
    """Return the process that has the lock of a run's folder open; None if the run has ended meanwhile."""
    for process in psutil.Process().children(recursive=True):
        if any(f"/{RUNS}/{run}/{LOCK}" in file.path for file in process.open_files()):
            return process.pid
    return None


def check_once(folder, runs):
    """Every run is done once: one row, one folder, every epoch once in a trace that is whole."""
    with Index.open(folder) as index:
        rows, epochs = index.rows(), index.epochs()
    assert len(rows) == len({row.run for row in rows}) == runs
    assert len(list((folder / RUNS).iterdir())) == runs
    for row in rows:
        assert (row.state, row.error) == ("finished", "")
        assert [one["epoch"] for one in epochs[row.run]] == list(range(1, row.epochs + 1))
        with open_trace(folder / row.trace) as trace:
            trace.verify()
            assert trace.state == "complete"
            assert trace.table("learning").read("epoch").tolist() == list(range(1, row.epochs + 1))
    return rows


def test_a_worker_is_killed(workers, sweep_file, tmp_path):
    """SIGKILL of one of two workers mid-run: every run is done once, the killed one goes on, same bits."""
    folder = tmp_path / "study"
    path = sweep_file(
        f'seeds = [0, 1]\nset = ["training.epochs={EPOCHS}"]\ngrid.learning.rate = [1e-3, 1e-2]'
    )
    watcher = Watcher(workers, kill=True)
    counts = conduct(read_plan(path), folder, cluster.OnDask(workers, watcher.advance), watcher)
    assert (counts.finished, counts.failed, counts.waiting) == (4, 0, 0)
    assert sorted(outcome.run for outcome in watcher.ended) == sorted({one.run for one in watcher.ended})
    rows = {row.run: row for row in check_once(folder, 4)}
    assert watcher.killed is not None
    assert 0 < rows[watcher.killed].resumed_from < EPOCHS
    assert sum(row.resumed_from > 0 for row in rows.values()) == 1
    # Two processes took part: the survivor may train all that ends, but never the one that was killed.
    assert rows[watcher.killed].worker
    assert str(watcher.process) not in rows[watcher.killed].worker
    experiment = Experiment.from_model(model_from_dict(rows[watcher.killed].model))
    run_once(experiment, checkpoint=tmp_path / "alone")
    one, other = (place / CHECKPOINT for place in (folder / RUNS / watcher.killed, tmp_path / "alone"))
    assert weights(one) == weights(other)


def weights(path):
    """Return a checkpoint's arrays as bytes."""
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(path).items()}


def test_a_failing_run_and_threads(workers, sweep_file, tmp_path):
    """A run that blows up on a worker is recorded, the rest goes on; every worker has its threads."""
    folder = tmp_path / "study"
    path = sweep_file("grid.learning.rate = [1e30, 1e-3, 1e-2]\nset = ['learning.rule=\"sgd\"']")
    watcher = Watcher(workers)
    counts = conduct(read_plan(path), folder, cluster.OnDask(workers, watcher.advance), watcher)
    assert (counts.finished, counts.failed) == (2, 1)
    with Index.open(folder) as index:
        assert "not finite" in index.rows()[0].error
    variables = workers.run(lambda: {name: os.environ.get(name) for name in cluster.thread_variables(1)})
    assert all(one == cluster.thread_variables(1) for one in variables.values())
    assert len(variables) == 2


def suicide(*arguments):
    """Take the worker along, as a run does that needs too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_kills_its_workers_has_failed(workers, monkeypatch, tmp_path):
    """Workers die of one run: it is given up and says so; the workers come back."""
    monkeypatch.setattr(workers.cluster.scheduler, "allowed_failures", 1)
    monkeypatch.setattr(cluster, "train_on_worker", suicide)
    job = Job("poison", tmp_path / "poison", {}, "fast", 1)
    (outcome,) = cluster.OnDask(workers, print).outcomes([job])
    assert (outcome.run, outcome.state) == ("poison", "failed")
    assert outcome.error == "its worker died, 2 times: too little memory?"
    workers.wait_for_workers(2, timeout=60)


def test_the_sweep_is_killed(sweep_file, tmp_path):
    """SIGKILL of a sweep with two workers: they end with it; it goes on and repeats nothing that was done."""
    folder = tmp_path / "study"
    path = sweep_file(f'seeds = [0, 1, 2]\nset = ["training.epochs={EPOCHS}"]')
    command = [*PCSIM, "sweep", str(path), "--study", str(folder), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(folder.glob(f"{RUNS}/*/{CHECKPOINT}")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    with Index.open(folder) as index:
        done = {row.run: (folder / row.trace).stat().st_mtime_ns for row in index.rows() if row.epochs_done}
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["sweep"]  # Dask's lines are not ours
    assert json.loads(result.stdout)["configurations"][0]["states"] == {"finished": 3}
    rows = check_once(folder, 3)
    assert any(0 < row.resumed_from < EPOCHS for row in rows)
    assert all((folder / RUNS / run / TRACE).stat().st_mtime_ns == then for run, then in done.items())


def test_interrupted(sweep_file, tmp_path):
    """A terminal's Ctrl-C, workers too: they stop within seconds, the traces say so, one line, code 130."""
    folder = tmp_path / "study"
    path = sweep_file('seeds = [0, 1]\nset = ["training.epochs=100000"]')
    process = subprocess.Popen(
        [*PCSIM, "sweep", str(path), "--study", str(folder), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: len(list(folder.glob(f"{RUNS}/*/{CHECKPOINT}"))) == 2, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    bar, last = said.splitlines()
    assert bar.startswith("sweep ")
    assert last == "interrupted; run it again to go on"
    for trace in folder.glob(f"{RUNS}/*/{TRACE}"):
        with open_trace(trace) as reader:
            assert reader.state == "interrupted"


def wait_for(ready, process):
    """Wait until something is there; fail if the process ends before."""
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_scheduler_of_somebody_else(workers, sweep_file, tmp_path):
    """The same study on workers that run already; the scheduler goes on afterwards."""
    address = workers.scheduler_info()["address"]
    path, folder = sweep_file("seeds = [0, 1]"), tmp_path / "study"
    command = [*PCSIM, "sweep", str(path), "--study", str(folder), "--scheduler", address, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    check_once(folder, 2)
    assert len(workers.scheduler_info()["workers"]) == 2


def test_a_scheduler_that_is_killed(sweep_file, tmp_path):
    """SIGKILL of the scheduler during a run: one line, no run is blamed, and the sweep can go on."""
    path, folder = sweep_file('set = ["training.epochs=100000"]'), tmp_path / "study"
    where = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    at = ["--scheduler-file", str(where), "--no-dashboard"]
    scheduler = subprocess.Popen([*dask[:2], f"{dask[2]}scheduler", *at, "--port", "0"], **quiet)
    wait_for(where.exists, scheduler)
    options = ["--nthreads", "1", "--no-nanny", "--death-timeout", "20"]
    worker = subprocess.Popen([*dask[:2], f"{dask[2]}worker", *at, *options], **quiet)
    address = json.loads(where.read_text())["address"]
    command = [*PCSIM, "sweep", str(path), "--study", str(folder), "--scheduler", address]
    sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(folder.glob(f"{RUNS}/*/{CHECKPOINT}")), sweep)
    scheduler.kill()
    _, said = sweep.communicate(timeout=60)
    worker.kill()
    assert (scheduler.wait(), sweep.returncode) == (-9, 2)
    assert worker.wait() in (-9, 0)  # killed, or it has left by itself when its scheduler was gone
    last = "error: the scheduler is lost or was told to stop; run it again to go on"
    assert said.strip().splitlines()[-1] == last
    assert "Traceback" not in said
    with Index.open(folder) as index:
        assert [row.state for row in index.rows()] == ["waiting"]


def test_nobody_there(sweep_file, tmp_path, monkeypatch):
    """No scheduler, no SLURM, no Dask: one line each, and no study is begun."""
    path, folder = sweep_file(""), tmp_path / "study"
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, wherever the test runs
    base = ["sweep", str(path), "--study", str(folder)]
    for options, said in (
        (["--scheduler", "tcp://127.0.0.1:9"], "expected the address that `dask scheduler` prints"),
        (["--scheduler", "nonsense://x"], "expected the address"),
        (["--slurm"], "there is no sbatch here"),
    ):
        error = CliRunner().invoke(app, [*base, *options]).exception
        assert isinstance(error, StudyError)
        assert said in str(error)
        assert "\n" not in str(error)
    code = "import sys; sys.modules['distributed'] = None\nfrom pcsim.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *base, "--workers", "2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.strip().endswith("or leave --workers, --scheduler and --slurm out")
    assert result.stderr.count("error:") == 1
    assert not folder.exists()


def test_ctrl_c_stays_ours():
    """The library for SLURM takes Ctrl-C when imported: a sweep would then end without a word."""
    program = (
        "import pathlib, signal\n"
        "from pcsim.experiments.sweep.cluster import job_script\n"
        "from pcsim.experiments.sweep.file import SlurmConfig\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "assert 'SBATCH' in job_script(SlurmConfig(), 1, pathlib.Path('logs'))\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_job_script(sweep_file, tmp_path):
    """What SLURM would be given: its settings, as many cores as threads, and these for BLAS and Numba."""
    path = sweep_file(
        '[slurm]\nqueue = "gpu"\naccount = "pc"\nwalltime = "01:30:00"\nmemory = "8GB"\n'
        'directives = ["--constraint=haswell"]\nprologue = ["module load python"]'
    )
    base = ["sweep", str(path), "--study", str(tmp_path / "study"), "--slurm", "--dry-run", "--threads", "4"]
    script = CliRunner().invoke(app, base).stdout
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH -A pc",
        "#SBATCH -t 01:30:00",
        "#SBATCH --mem=8G",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --constraint=haswell",
        f"#SBATCH --output={tmp_path}/study/slurm/%j.log",
        "module load python",
        "export OMP_NUM_THREADS=4",
        "export NUMBA_NUM_THREADS=4",
    ):
        assert f"\n{line}\n" in script
    assert "--nthreads 1 " in script
    assert not (tmp_path / "study").exists()
