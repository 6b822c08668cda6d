"""`pcsim run`: trains a model, once for each order, and leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import (
    ORDERS,
    AsJson,
    Backend,
    DataDir,
    Force,
    Model,
    Seed,
    Set,
    load_orders,
    print_json,
    tell_unpriced,
    with_options,
)
from pcsim.commands.distributed import (
    Processes,
    Replicas,
    Timeout,
    distribution_of,
    serve_if_worker,
    show_shares,
)
from pcsim.errors import ConfigurationError, NonFiniteError, PcsimError, PeerError

if TYPE_CHECKING:
    from pcsim.config import ModelConfig
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.summary import RunSummary
    from pcsim.kernels import Kernels


class EngineChoice(StrEnum):
    """How a network is trained."""

    FAST = "fast"
    EVENT = "event"
    DISTRIBUTED = "distributed"
    BACKPROP = "backprop"


Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that share a large product [chosen by a self-test].")
]


def run(
    model: Model,
    overrides: Set = [],  # noqa: B006 - typer copies it
    order: Annotated[
        list[str],
        typer.Option(
            "--order",
            metavar="ORDER",
            help=f"Schedule to run instead of the model's, repeatable: {ORDERS} (with --engine event).",
        ),
    ] = [],  # noqa: B006
    engine: Annotated[
        EngineChoice,
        typer.Option(
            help="fast, event to simulate time, distributed for layers in processes of their own, or "
            "backprop: the baseline, by sgd or adam."
        ),
    ] = EngineChoice.FAST,
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

    Example: `pcsim run digits --order sequential --order simultaneous --engine event`

    A long run, again after every interruption: `pcsim run digits --set training.epochs=20 --trace long.h5
    --checkpoint runs/long --resume`

    Layers in two processes (needs torch): `pcsim run digits --engine distributed --trace two.h5`
    """
    from pcsim.experiments.run import run as run_experiment
    from pcsim.terminal import ProgressBar

    _check_runs(order, trace, no_trace, checkpoint)
    if threads is not None and backend != "cpu":
        raise ConfigurationError(
            f"--threads {threads} with --backend {backend}: expected --backend cpu, or no --threads"
        )
    distribution = distribution_of(engine.value, processes, replicas, timeout, len(order))
    serve_if_worker(distribution)
    models = load_orders(model, order, with_options(overrides, seed, data_dir))
    paths = [None if no_trace else trace or _usual_place(one, engine) for one in models]
    if not resume:
        _check_places(paths, force)
    if backend != "cpu" or distribution is not None:
        threads = threads or 1  # a self-test is of one process's CPU kernels
    runs = []
    with ProgressBar() as progress, _telling_what_is_kept(paths, checkpoint):
        for one, path in zip(models, paths, strict=True):
            experiment = _experiment(one)
            runs.append(
                run_experiment(
                    experiment,
                    engine=engine.value,
                    kernels=_kernels(experiment, backend, threads, progress.say),
                    trace=path,
                    overwrite=force,
                    checkpoint=checkpoint,
                    resume=resume,
                    progress=progress,
                    distribution=distribution,
                )
            )
    _show(runs, as_json)


def _check_runs(order: Sequence[str], trace: Path | None, no_trace: bool, checkpoint: Path | None) -> None:
    """Refuse options that several runs cannot share.

    Raises:
        ConfigurationError: says which.
    """
    if len(set(order)) < len(order):
        raise ConfigurationError(f"--order {' --order '.join(order)}: expected each order once")
    if trace is not None and (no_trace or len(order) > 1):
        beside = "--no-trace" if no_trace else f"{len(order)} orders"
        raise ConfigurationError(
            f"--trace {trace} with {beside}: it names the trace of one run; leave out "
            f"{'one of the two' if no_trace else '--trace, and each run gets traces/NAME-ORDER.h5'}"
        )
    if checkpoint is not None and len(order) > 1:
        raise ConfigurationError(
            f"--checkpoint {checkpoint} with {len(order)} orders: it names the folder of one run; "
            "give one --order at a time"
        )


def _check_places(paths: Sequence[Path | None], force: bool) -> None:
    """Look before the work begins: an hour of training must not end at an existing file."""
    from pcsim.tracing.target import check_target

    for path in paths:
        if path is not None:
            check_target(path, force)


def _experiment(model: ModelConfig) -> Experiment:
    """Return what a model file describes; say what of it may surprise.

    Raises:
        PcsimError: its data are not here, or do not fit its network.
    """
    from pcsim.experiments.experiment import Experiment
    from pcsim.training.loop import check_fit

    experiment = Experiment.from_model(model)
    if not experiment.epochs:
        typer.echo("training.epochs = 0: nothing is trained", err=True)
    tell_unpriced(experiment.hardware.unpriced)
    check_fit(experiment.network, experiment.dataset, experiment.batch)
    return experiment


def _usual_place(model: ModelConfig, engine: EngineChoice) -> Path:
    order = "backprop" if engine is EngineChoice.BACKPROP else model.schedule.order
    return Path("traces") / f"{model.name}-{order}.h5"


@contextmanager
def _telling_what_is_kept(paths: Sequence[Path | None], checkpoint: Path | None) -> Iterator[None]:
    """Say after an interruption, or a run that blew up, that what was recorded is there, and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, NonFiniteError, PeerError) as error:
        kept = " ".join(str(path) for path in paths if path is not None and path.exists())
        tail = f"; the trace is kept: {kept}" if kept else ""
        if isinstance(error, NonFiniteError | PeerError):
            raise PcsimError(f"{error}{tail}") from error
        go_on = "" if checkpoint is None else "; run it again with --resume to go on from its last epoch"
        typer.echo(f"interrupted{tail}{go_on}", err=True)
        raise typer.Exit(130) from error


def _kernels(
    experiment: Experiment, backend: str, threads: int | None, say: Callable[[str], None]
) -> Kernels:
    """Return kernels with so many threads; if that is not given, with as many as a self-test finds best."""
    from pcsim.engine.threads import choose_threads
    from pcsim.kernels.backends import make_kernels

    dtype = experiment.network.dtype.name
    kernels = make_kernels(backend, dtype, threads or 1, say)
    if threads is not None:
        return kernels
    return make_kernels(backend, dtype, choose_threads(experiment.network, experiment.batch, say))


def _show(runs: Sequence[RunSummary], as_json: bool) -> None:
    from pcsim.terminal import show_runs

    if as_json:
        print_json([one.to_dict() for one in runs])
        return
    show_runs(runs)
    show_shares(runs)
