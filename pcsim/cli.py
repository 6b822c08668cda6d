"""The command line: every command is a thin layer over the Python face."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import (
    DataDir,
    analyze,
    compare,
    data,
    energy,
    export,
    models,
    plot,
    print_json,
    report,
    reproduce,
    study,
    study_show,  # noqa: F401 - adds itself to study
    sweep,
    theory,
)
from pcsim.commands import (
    map as map_command,
)
from pcsim.commands.distributed import (
    Processes,
    Replicas,
    Timeout,
    distribution_of,
    serve_if_worker,
    show_shares,
)
from pcsim.commands.first_screen import FirstScreen
from pcsim.errors import ConfigurationError, NonFiniteError, PcsimError, PeerError

if TYPE_CHECKING:
    from pcsim.experiments.summary import RunSummary

# Heavy imports wait inside the commands, so that --help answers at once.
app = typer.Typer(
    name="pcsim",
    cls=FirstScreen,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Event-driven simulator of predictive coding networks."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("pcsim"))


class EngineChoice(StrEnum):
    """How a program is run."""

    FAST = "fast"
    EVENT = "event"


class RunEngineChoice(StrEnum):
    """How a network is trained."""

    FAST = "fast"
    EVENT = "event"
    DISTRIBUTED = "distributed"
    BACKPROP = "backprop"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, or a name from `pcsim models`.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, repeatable.")]
Seed = Annotated[int | None, typer.Option(help="Override training.seed.")]
Backend = Annotated[str, typer.Option(help="Who does the arithmetic: cpu, cuda or reference.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that share a large product [chosen by a self-test].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


@app.command()
def run(
    model: Model,
    overrides: Set = [],  # noqa: B006 - typer copies it
    order: Annotated[
        list[str], typer.Option("--order", help="Schedule to run instead of the model's, repeatable.")
    ] = [],  # noqa: B006
    engine: Annotated[
        RunEngineChoice,
        typer.Option(
            help="fast, event to simulate time, distributed for layers in processes of their own, or "
            "backprop: the baseline, by sgd or adam."
        ),
    ] = RunEngineChoice.FAST,
    processes: Processes = None,
    replicas: Replicas = None,
    timeout: Timeout = None,
    backend: Backend = "cpu",
    threads: Threads = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Trace file [traces/NAME-ORDER.h5].")
    ] = None,
    no_trace: Annotated[bool, typer.Option("--no-trace", help="Write no trace.")] = False,
    seed: Seed = None,
    data_dir: DataDir = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a checkpoint of each epoch there.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint; begin if there is none yet.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train a model and leave a trace.

    Example: `pcsim run digits --order sequential --order simultaneous`

    A long run, again after every interruption: `pcsim run cifar10 --checkpoint runs/one --resume`

    Layers in two processes: `pcsim run digits --engine distributed --processes 2`
    """
    from pcsim.config import load_model
    from pcsim.engine.threads import choose_threads
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.run import run as run_experiment
    from pcsim.kernels.backends import make_kernels
    from pcsim.terminal import ProgressBar, show_runs
    from pcsim.training.loop import check_fit

    if len(set(order)) < len(order):
        raise ConfigurationError(f"--order {' --order '.join(order)}: expected each order once")
    if trace is not None and (no_trace or len(order) > 1):
        raise ConfigurationError("--trace names one file: expected no --no-trace and at most one --order")
    if checkpoint is not None and len(order) > 1:
        raise ConfigurationError("--checkpoint names one run's folder: expected at most one --order")
    distribution = distribution_of(engine.value, processes, replicas, timeout, len(order))
    serve_if_worker(distribution)
    overrides = _with_options(overrides, seed, data_dir)
    choices = [[f"schedule.order={name}"] for name in order] or [[]]
    models = [load_model(model, [*overrides, *choice]) for choice in choices]
    paths = [
        None
        if no_trace
        else trace
        or Path("traces") / f"{one.name}-{'backprop' if engine == 'backprop' else one.schedule.order}.h5"
        for one in models
    ]
    if not resume:
        _refuse_existing([path for path in paths if path is not None], force)
    runs: list[RunSummary] = []
    with ProgressBar() as progress, _telling_what_is_kept(paths):
        for one, path in zip(models, paths, strict=True):
            experiment = Experiment.from_model(one)
            _tell_unpriced(experiment.hardware.unpriced)
            check_fit(experiment.network, experiment.dataset, experiment.batch)
            kernels = make_kernels(backend, one.network.dtype, threads or 1, progress.say)
            if threads is None and backend == "cpu" and distribution is None:
                chosen = choose_threads(experiment.network, experiment.batch, progress.say)
                kernels = make_kernels(backend, one.network.dtype, chosen)
            runs.append(
                run_experiment(
                    experiment,
                    engine=engine.value,
                    kernels=kernels,
                    trace=path,
                    overwrite=force,
                    checkpoint=checkpoint,
                    resume=resume,
                    progress=progress,
                    distribution=distribution,
                )
            )
    if as_json:
        print_json([one.to_dict() for one in runs])
    else:
        show_runs(runs)
        show_shares(runs)


@app.command(short_help="Send one mini-batch through the event queue: timeline, totals.")
def simulate(
    model: Model,
    overrides: Set = [],  # noqa: B006
    seed: Seed = None,
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(min=0, help="Events to print; 0 prints all.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Send one mini-batch through the event queue: its timeline and totals.

    Example: `pcsim simulate digits --set schedule.order=asynchronous`
    """
    from dataclasses import asdict

    from pcsim.config import load_model
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.simulate import simulate_one
    from pcsim.kernels import reference
    from pcsim.terminal import show_timeline

    experiment = Experiment.from_model(load_model(model, _with_options(overrides, seed, data_dir)))
    _tell_unpriced(experiment.hardware.unpriced)
    timeline, totals = simulate_one(experiment, reference)
    if as_json:
        print_json(
            {
                "totals": asdict(totals),
                "time_unit": experiment.hardware.unit,
                "timeline": [asdict(event) for event in timeline],
            }
        )
    else:
        show_timeline(timeline, totals, limit, experiment.hardware.unit)


@app.command(short_help="Say what a trace or a model file holds; --machine: how fast it is.")
def info(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE.h5|MODEL", help="Trace file, or model file or name.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Test this machine instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a trace holds or a model file describes, or with --machine how fast this machine multiplies.

    Example: `pcsim info traces/digits-sequential.h5`
    """
    from pcsim.shipped import names_model
    from pcsim.terminal import show_machine, show_trace
    from pcsim.tracing.reader import open_trace
    from pcsim.tracing.sizes import trace_sizes

    if machine == (trace is not None):
        raise ConfigurationError("info: expected either a trace, a model file or --machine")
    if trace is not None and names_model(trace):
        models.show_model(trace, as_json=as_json)
        return
    if trace is None:
        from pcsim.experiments.machine import examine

        found = examine()
        print_json(found.to_dict()) if as_json else show_machine(found)
        return

    with open_trace(trace) as reader:
        if as_json:
            facts = {"path": str(trace), "state": reader.state, "attributes": reader.attributes}
            print_json(facts | trace_sizes(reader).to_dict())
        else:
            show_trace(reader)


@app.command()
def verify(
    cases: Annotated[list[Path], typer.Argument(metavar="CASE.npz…", help="Golden cases.")],
    engine: Annotated[EngineChoice, typer.Option(help="Which engine replays them.")] = EngineChoice.FAST,
    backend: Backend = "reference",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest deviation that counts as equal.")] = 1e-10,
    as_json: AsJson = False,
) -> None:
    """Replay golden cases in float64; exit code 1 if one deviates.

    Example: `pcsim verify tests/golden/*.npz --engine event`
    """
    from pcsim.experiments.verify import verify as verify_case
    from pcsim.terminal import show_deviations

    deviations = [verify_case(case, engine=engine.value, backend=backend) for case in cases]
    if as_json:
        print_json([deviation.to_dict() for deviation in deviations])
    else:
        show_deviations(deviations, tolerance)
    if any(not deviation.largest <= tolerance for deviation in deviations):
        raise typer.Exit(1)


class BenchChoice(StrEnum):
    """What is measured."""

    STEPS = "steps"
    TRACE = "trace"


@app.command(short_help="Time training steps beside other libraries', and recording.")
def bench(
    what: Annotated[
        BenchChoice, typer.Argument(help="steps: training steps beside other libraries'; trace: recording.")
    ] = BenchChoice.STEPS,
    batch: Annotated[list[int], typer.Option(min=1, help="Mini-batch, repeatable [64 and 1].")] = [],  # noqa: B006
    threads: Annotated[list[int], typer.Option(min=1, help="Threads, repeatable [1 and 2].")] = [],  # noqa: B006
    backend: Annotated[list[str], typer.Option(help="pcsim's kernels, repeatable [cpu].")] = [],  # noqa: B006
    only: Annotated[
        list[str], typer.Option(metavar="TEXT", help="Contenders whose name contains it, repeatable [all].")
    ] = [],  # noqa: B006
    network: Annotated[
        str, typer.Option(help="Which of the paper's networks: dense, or conv beside PyTorch only.")
    ] = "dense",
    sweep: Annotated[
        list[str], typer.Option(help="depth or width: growth instead of the paper's network.")
    ] = [],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 15,
    burst: Annotated[float, typer.Option(help="Seconds a turn.")] = 0.3,
    python: Annotated[
        list[str], typer.Option(metavar="FAMILY=PATH", help="Interpreter of a peer, such as pcx=PATH.")
    ] = [],  # noqa: B006
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Tiny networks and few turns: tests the harness only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time training steps of pcsim beside PyTorch's and other libraries', or recording beside plain h5py.

    Recording takes only --rounds, --tiny and --json; it writes some GB to a temporary folder (TMPDIR).

    Examples: `pcsim bench --batch 64 --threads 1 --only mq --only torch --only products`,
    `pcsim bench trace --rounds 5`
    """
    if what is BenchChoice.TRACE:
        if batch or threads or backend or only or sweep or python or network != "dense":
            raise ConfigurationError("bench trace: expected only --rounds, --tiny and --json")
        _bench_trace(min(rounds, 5), tiny, as_json)
        return
    from pcsim.experiments.bench.plan import read_interpreters, standard_cases
    from pcsim.experiments.bench.run import run_bench
    from pcsim.experiments.bench.table import show_bench

    backends = tuple(backend) or ("cpu",)
    report = run_bench(
        () if sweep and not tiny else standard_cases(batch, threads, backends, only, tiny, network),
        sweeps=sweep or (("depth", "width") if tiny and network == "dense" else ()),
        sweep_batch=(batch or [64])[0],
        sweep_threads=(threads or [1])[0],
        backends=backends,
        rounds=min(rounds, 3) if tiny else rounds,
        burst_seconds=0.005 if tiny else burst,
        interpreters=read_interpreters(python),
        tiny=tiny,
        tell=lambda news: typer.echo(news, err=True),
    )
    print_json(report.to_dict()) if as_json else show_bench(report)


def _bench_trace(rounds: int, tiny: bool, as_json: bool) -> None:
    from pcsim.experiments.bench.table import show_trace_bench
    from pcsim.experiments.bench.trace import Plan, run_trace_bench

    plan = Plan.tiny(rounds) if tiny else Plan(rounds=rounds)
    report = run_trace_bench(plan, lambda news: typer.echo(news, err=True))
    print_json(report.to_dict()) if as_json else show_trace_bench(report)


@contextmanager
def _telling_what_is_kept(paths: list[Path | None]) -> Iterator[None]:
    """Say after an interruption, or a run that blew up, that what was recorded is there."""
    try:
        yield
    except (KeyboardInterrupt, NonFiniteError, PeerError) as error:
        kept = " ".join(str(path) for path in paths if path is not None and path.exists())
        tail = f"; the trace is kept: {kept}" if kept else ""
        if isinstance(error, NonFiniteError | PeerError):
            raise PcsimError(f"{error}{tail}") from error
        typer.echo(f"interrupted{tail}", err=True)
        raise typer.Exit(130) from error


def _with_options(overrides: list[str], seed: int | None, data_dir: Path | None) -> list[str]:
    """Options are overrides too, so that the trace keeps them."""
    if seed is not None:
        overrides = [*overrides, f"training.seed={seed}"]
    if data_dir is not None:  # in quotes, or a folder named 7 would be a number
        overrides = [*overrides, f"data.directory={json.dumps(str(data_dir), ensure_ascii=False)}"]
    return overrides


def _tell_unpriced(work: tuple[str, ...]) -> None:
    """Say what takes no simulated time only because the machine has no price for it."""
    if work:
        typer.echo(f"takes no time, as it has no price: {', '.join(work)}", err=True)


def _refuse_existing(paths: list[Path], force: bool) -> None:
    """Look before the work begins: an hour of training must not end at an existing file."""
    for path in paths:
        if path.exists() and not force:
            raise ConfigurationError(f"{path} exists; pass --force to overwrite it")


app.command(short_help="Say how errors, energy, updates and number formats behave.")(analyze.analyze)
app.command()(compare.compare)
app.command(short_help="Charge training to machines: energy, time, where they go.")(energy.energy)
app.command()(export.export)
app.command("map", short_help="Place a network on a chip; simulate its mesh.")(map_command.map_network)
app.command()(models.models)
app.command(short_help="Draw traces: error flow, energy, learning, timeline, traffic, …")(plot.plot)
app.command(short_help="Write a page about traces that needs no network and no server.")(report.report)
app.command(short_help="Run the paper's experiments, beside the paper's numbers.")(reproduce.reproduce)
app.command(short_help="Run a model with many settings: grids, draws, seeds, halving.")(sweep.sweep)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.add_typer(theory.app, name="theory")


def main() -> None:
    """Run the command line; pcsim's own errors become one line and exit code 2."""
    try:
        app()
    except PcsimError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except MemoryError as error:
        typer.echo(f"error: not enough memory ({error}): expected a smaller network or batch", err=True)
        sys.exit(2)
