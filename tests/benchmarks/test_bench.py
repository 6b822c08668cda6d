"""Keeps the benchmark harness alive on tiny networks; no timing is asserted, for nothing here is quiet."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.commands.bench_tables import show_bench
from pcsim.errors import ConfigurationError
from pcsim.experiments.bench.plan import (
    BASELINE,
    PAPER_SIZES,
    TINY_SIZES,
    Case,
    Contender,
    Workload,
    ours,
    read_interpreters,
    standard_cases,
    standard_contenders,
    sweep_workloads,
)
from pcsim.experiments.bench.pool import Pool, environment
from pcsim.experiments.bench.report import Spread, power_law
from pcsim.experiments.bench.run import run_bench
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

OWN = (
    ours("mq", 3, "reference"),
    ours("mq", 3, "reference", recording="none"),
    ours("mq", 3, "reference", recording="trace"),
    ours("mq", 3, "reference", engine="event"),
    ours("adam", 1, "reference"),
)
PCX = Contender("pcx", "sgd", 3)
OTHERS = (BASELINE, Contender("products", backend="numpy"), PCX)


@pytest.fixture(scope="module")
def report():
    """One tiny run of everything; PCX takes part only where it is installed."""
    workload = Workload(TINY_SIZES, 4, 1)
    return run_bench(
        [Case(workload, (*OWN, *OTHERS))],
        sweeps=("depth", "width"),
        sweep_batch=4,
        backends=("reference",),
        rounds=3,
        burst_seconds=0.002,
        tiny=True,
    )


def scores(report):
    return {score.contender: score for score in report.cases[0].scores}


def test_everybody_is_timed_or_named(report):
    """Nobody may drop out silently."""
    case = report.cases[0]
    assert set(OWN) <= set(scores(report)), case.absent
    names = {score.name for score in case.scores} | set(case.absent)
    assert names == {one.name for one in (*OWN, BASELINE, PCX)}


def test_times_are_positive_and_ordered(report):
    """Each score carries one time a round, and their spread."""
    for score in report.cases[0].scores:
        assert len(score.rounds) == 3
        time = score.milliseconds
        assert score.steps >= 1
        assert 0 < time.minimum <= time.lower <= time.median <= time.upper <= time.maximum
        assert score.finite
        assert score.versions["python"]


def test_multiplications_come_from_the_program(report):
    """What pcsim is said to multiply is what its program costs; backprop has its formula."""
    found = scores(report)
    for iterations, contender in ((3, OWN[0]), (1, OWN[-1])):
        program = Program.build(Network.dense(TINY_SIZES), Schedule("sequential", iterations))
        assert found[contender].multiplications == program.cost(4).multiplications
    if BASELINE in found:
        products = [12 * 16, 16 * 16, 16 * 16, 16 * 4]
        assert found[BASELINE].multiplications == 4 * (3 * sum(products) - products[0])


def test_products_bound_the_step(report):
    """The step's products are measured, so the limit and the achieved share are known."""
    case = report.cases[0]
    assert len(case.products) == 4 + 3 + 4
    assert all(product.gflops > 0 and product.provider == "numpy" for product in case.products)
    assert case.foreign_processors is None or case.foreign_processors >= 0
    assert case.fastest_gflops == max(product.gflops for product in case.products)
    for contender in OWN:
        score = scores(report)[contender]
        assert score.of_limit > 0
        assert score.gflops == pytest.approx(2e-6 * score.multiplications / score.milliseconds.median)


def test_ratios_are_paired_by_round(report):
    """A ratio belongs to two times of one round."""
    found = scores(report)
    if BASELINE not in found:
        pytest.skip("torch is not installed: no baseline")
    assert found[BASELINE].ratio == Spread(1, 1, 1, 1, 1)
    mine, base = found[OWN[0]], found[BASELINE]
    assert mine.ratio == Spread.of([a / b for a, b in zip(mine.rounds, base.rounds)])


def test_costs_of_watching_are_compared_without_targets(report):
    """Targets hold for the paper's network only."""
    comparisons = {one.label: one for one in report.cases[0].comparisons}
    assert {"event / fast engine", "statistics / no observer"} <= set(comparisons)
    assert all(one.most is None and one.reached is None for one in comparisons.values())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_told(report):
    """A network this small holds little, but never less than nothing by much."""
    for contender in OWN:
        assert -1e6 < scores(report)[contender].held_bytes < 50e6


def test_sweeps_fit_a_power(report):
    """Each sweep has a time a size, and an exponent."""
    assert [sweep.kind for sweep in report.sweeps] == ["depth", "width"]
    for sweep in report.sweeps:
        (one, *_) = sweep.growths
        assert len(one.milliseconds) == len(sweep.sizes)
        assert min(one.milliseconds) > 0
        assert math.isfinite(one.exponent)


def test_report_is_json_and_fits_the_screen(report):
    """What people and scripts get."""
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["cases"]
    page = StringIO()
    show_bench(report, Console(file=page, width=100))
    assert max(map(len, page.getvalue().splitlines())) <= 100
    assert "…" not in page.getvalue()
    assert all(score.name in page.getvalue() for score in report.cases[0].scores)


def test_power_law_is_exact_on_a_power():
    factor, exponent = power_law((2, 4, 8, 16), [3 * n**1.5 for n in (2, 4, 8, 16)])
    assert factor == pytest.approx(3)
    assert exponent == pytest.approx(1.5)


def test_paper_network_costs_what_the_method_says():
    """Backprop does 1.835 times less arithmetic than T = 3."""
    program = Program.build(Network.dense(PAPER_SIZES), Schedule("sequential", 3))
    ratio = program.cost(64).multiplications / Workload(PAPER_SIZES, 64, 1).backprop_multiplications
    assert ratio == pytest.approx(1.835, abs=0.001)


def test_plan_has_all_that_is_asked_for():
    """Three rules and three T, two batch sizes, two numbers of threads, and the peers."""
    cases = standard_cases()
    assert {(case.workload.batch, case.workload.threads) for case in cases} == {
        (64, 1),
        (64, 2),
        (1, 1),
        (1, 2),
    }
    families = {contender.family for contender in standard_contenders()}
    assert families == {"pcsim", "torch", "jax", "pcx", "fabricpc", "products"}
    depth, width = (sweep_workloads(kind, 64, 1) for kind in ("depth", "width"))
    assert len(depth[64].sizes) == 66
    assert width[4096].sizes == (4096, 4096, 4096, 4096, 10)


def test_selection_keeps_the_baseline():
    (case,) = standard_cases((64,), (1,), only=["T=3 mq"], backends=("reference",))
    assert BASELINE in case.contenders
    assert all("T=3 mq" in one.name or one == BASELINE for one in case.contenders)


def test_workers_get_threads_and_no_foreign_settings(monkeypatch):
    """A setting of the shell must not decide who wins."""
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS"):
        monkeypatch.setenv(name, "1")
    told = environment(1)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS"} & set(told)
    assert {told[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")} == {"1"}


def test_a_dead_worker_is_named():
    """An interpreter that is none of ours ends at once, and says why."""
    with Pool([OWN[0]], 1, {"pcsim": "/bin/false"}) as pool:
        assert pool.prepare(Workload(TINY_SIZES, 4, 1)) == {}
        assert "process ended" in pool.absent[OWN[0].name]


def test_interruption_ends_workers_in_the_middle_of_their_work(tmp_path):
    """Ctrl-C was mute, and waited for each worker to come to an end: here one never does."""
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 60\n")
    endless.chmod(0o700)
    command = [sys.executable, "-c", "from pcsim.cli import main; main()", "bench", "--tiny"]
    process = subprocess.Popen(
        [*command, "--batch", "4", "--threads", "1", "--only", "pcx", "--python", f"pcx={endless}"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while "warming up" not in process.stderr.readline():
        assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert told == "interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"burst_seconds": 0.0}, "burst seconds"),
        ({"backends": ("gpu",)}, "backend 'gpu'"),
        ({"sweeps": ("length",)}, "sweep 'length'"),
        ({"interpreters": {"pxc": sys.executable}}, "did you mean 'pcx'"),
        ({"interpreters": {"pcx": "/nowhere/python"}}, "/nowhere/python"),
    ],
)
def test_bad_input_is_refused_in_a_line(wrong, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        run_bench([], **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--only", "mq"], "--only with --sweep: expected neither"),
        (["--network", "conv"], "--network with --sweep: expected neither"),
        (
            ["--batch", "64", "--batch", "1"],
            "--batch 64 --batch 1 with --sweep: expected at most one --batch",
        ),
        (["--threads", "1", "--threads", "2"], "with --sweep: expected at most one --threads"),
    ],
)
def test_a_sweep_refuses_what_it_would_ignore(options, says):
    """Whoever sweeps two batches must not get the first one's numbers for both."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        CliRunner().invoke(app, ["bench", "--sweep", "depth", *options], catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_bad_cases_are_refused():
    for wrong in ({"batches": (0,)}, {"threads": (2, 0)}, {"only": ["nobody"]}):
        with pytest.raises(ConfigurationError):
            standard_cases(**wrong)
    with pytest.raises(ConfigurationError, match="processors"):
        environment(10_000)
    with pytest.raises(ConfigurationError, match="FAMILY=PATH"):
        read_interpreters(["pcx"])


def test_interpreters_are_read():
    assert read_interpreters(["pcx=/a=b", "jax=/c"]) == {"pcx": "/a=b", "jax": "/c"}


def test_convolutions_beside_torch():
    """The conv case: both sides train the same network, and the work of backprop is counted by hand."""
    (case,) = standard_cases([64], tiny=True, only=["T=3 mq"], threads=[1], network="conv")
    # 4 · (2·3·3) at 4 × 4 places, 5 · (4·2·2) at 3 × 3, 45 · 4; the first sends no error on.
    products = [4 * 18 * 16, 5 * 16 * 9, 180]
    assert case.workload.backprop_multiplications == 64 * (2 * sum(products) + sum(products[1:]))
    report = run_bench([case], rounds=1, burst_seconds=0.002)
    assert {score.name for score in report.cases[0].scores} == {"pcsim cpu T=3 mq", "torch backprop sgd"}
    assert all(score.finite for score in report.cases[0].scores)
    (comparison,) = report.cases[0].comparisons
    assert comparison.label == "T=3 / backprop SGD"
    with pytest.raises(ConfigurationError, match="network 'cnv': expected dense or conv"):
        standard_cases(network="cnv")
