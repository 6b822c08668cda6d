"""How far processors are from each other: the measurement ends, whoever else runs, and the table says it."""

import os
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pcsim.commands.bench_tables import show_bench
from pcsim.experiments.bench import exchange
from pcsim.experiments.bench.exchange import exchange_nanoseconds
from pcsim.experiments.bench.plan import TINY_SIZES, Case, Workload, ours
from pcsim.experiments.bench.report import BenchReport, Spread
from pcsim.experiments.bench.run import run_bench

PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SEVERAL = pytest.mark.skipif(len(PROCESSORS) < 2, reason="needs two processors")


@SEVERAL
def test_it_takes_some_time():
    """Light needs a nanosecond from core to core; a thread that waits for its turn needs milliseconds."""
    found = [exchange_nanoseconds(PROCESSORS[0], PROCESSORS[-1]) for _ in range(5)]
    assert all(one is None or 1 < one < 1e5 for one in found)


def test_one_processor_exchanges_nothing():
    """Bound to one processor, two threads would wait for each other's turns."""
    assert exchange_nanoseconds(0, 0) is None


def test_who_asks_gives_up():
    """The other thread may never get its processor; the benchmark goes on."""
    mail = np.zeros(exchange.GONE + 1, np.int64)
    assert not exchange.ask(mail, 1)
    assert mail[exchange.GONE] == 1
    exchange.answer(mail)  # returns


@pytest.fixture(scope="module")
def two_threads() -> BenchReport:
    """A tiny benchmark on two threads."""
    case = Case(Workload(TINY_SIZES, 4, 2), (ours("mq", 3, "reference"),))
    return run_bench([case], rounds=2, burst_seconds=0.002, tiny=True)


def text(report, spread):
    """Return what is shown of a report if exchanges take so long."""
    out = StringIO()
    case = replace(report.cases[0], exchange_nanoseconds=spread)
    show_bench(replace(report, cases=(case,)), Console(file=out, width=100))
    return out.getvalue()


@SEVERAL
def test_shown(two_threads):
    """Who reads times of two threads must see that the processors were moved between rounds."""
    assert "and back: 60 ns\n" in text(two_threads, Spread.of([60.0, 60.0, 70.0]))
    moved = text(two_threads, Spread.of([60.0, 60.0, 150.0]))
    assert "and back: 60 ns, from 60 to 150: they were moved" in moved
    assert "and back" not in text(two_threads, None)


@SEVERAL
def test_measured_in_each_round(two_threads):
    """A look before the first round would miss what happens later."""
    spread = two_threads.cases[0].exchange_nanoseconds
    assert spread is None or 1 < spread.minimum <= spread.maximum < 1e5
    assert two_threads.to_dict()["cases"][0]["exchange_nanoseconds"] == (spread and spread.__dict__)
