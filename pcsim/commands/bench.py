"""`pcsim bench`: training steps beside other libraries', and recording beside plain h5py."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pcsim.commands import AsJson, print_json, refuse_given
from pcsim.errors import ConfigurationError


class BenchChoice(StrEnum):
    """What is measured."""

    STEPS = "steps"
    TRACE = "trace"


def bench(
    context: typer.Context,
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
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Turns of each contender [15; trace: 5; --tiny: 3 and 2].")
    ] = None,
    burst: Annotated[
        float | None, typer.Option(help="Seconds a turn [0.3; --tiny: 0.005].", min=0.001)
    ] = None,
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
        others = context.params.keys() - {"what", "rounds", "tiny", "as_json"}
        refuse_given(context, others, "with bench trace: expected only --rounds, --tiny and --json")
        _bench_trace(rounds, tiny, as_json)
        return
    if sweep and not tiny:
        why = "with --sweep: expected neither --only nor --network: it is of MQ and PyTorch on dense networks"
        refuse_given(context, ("only", "network"), why)
        for option, numbers in (("--batch", batch), ("--threads", threads)):
            if len(numbers) > 1:
                given = " ".join(f"{option} {number}" for number in numbers)
                raise ConfigurationError(f"{given} with --sweep: expected at most one {option}")
    from pcsim.commands.bench_tables import show_bench
    from pcsim.experiments.bench.plan import read_interpreters, standard_cases
    from pcsim.experiments.bench.run import run_bench

    backends = tuple(backend) or ("cpu",)
    report = run_bench(
        () if sweep and not tiny else standard_cases(batch, threads, backends, only, tiny, network),
        sweeps=sweep or (("depth", "width") if tiny and network == "dense" else ()),
        sweep_batch=(batch or [64])[0],
        sweep_threads=(threads or [1])[0],
        backends=backends,
        rounds=rounds or (3 if tiny else 15),
        burst_seconds=burst or (0.005 if tiny else 0.3),
        interpreters=read_interpreters(python),
        tiny=tiny,
        tell=lambda news: typer.echo(news, err=True),
    )
    print_json(report.to_dict()) if as_json else show_bench(report)


def _bench_trace(rounds: int | None, tiny: bool, as_json: bool) -> None:
    from pcsim.commands.bench_tables import show_trace_bench
    from pcsim.experiments.bench.trace import Plan, run_trace_bench

    plan = Plan.tiny(rounds or 2) if tiny else Plan(rounds=rounds or 5)
    report = run_trace_bench(plan, lambda news: typer.echo(news, err=True))
    print_json(report.to_dict()) if as_json else show_trace_bench(report)
