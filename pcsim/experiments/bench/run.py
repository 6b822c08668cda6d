"""The benchmark: contenders take turns in random order, so that the machine's drift hits all alike."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pcsim.errors import ConfigurationError, nearest
from pcsim.experiments.bench.contestant import LIBRARIES
from pcsim.experiments.bench.exchange import exchange_nanoseconds
from pcsim.experiments.bench.machine import machine
from pcsim.experiments.bench.ours import program_of
from pcsim.experiments.bench.plan import (
    BASELINE,
    CONV_TARGETS,
    PAPER_CONV,
    PAPER_SIZES,
    TARGETS,
    BenchError,
    Case,
    Contender,
    Workload,
    sweep_contenders,
    sweep_workloads,
)
from pcsim.experiments.bench.pool import Pool, processors
from pcsim.experiments.bench.products import product_multiplications, product_names
from pcsim.experiments.bench.report import (
    BenchReport,
    CaseReport,
    Comparison,
    Growth,
    Product,
    Score,
    Spread,
    Sweep,
    power_law,
)
from pcsim.kernels.backends import check_backend

Tell = Callable[[str], None]
Facts = Mapping[Contender, Mapping[str, Any]]


@dataclass
class Turns:
    """What one contender's turns brought.

    Attributes:
        milliseconds: of a training step, one a round.
        rests: seconds until its threads were quiet, one a round.
        products: seconds of each bare product, one a round.
        steps: training steps in a turn.
    """

    steps: int
    milliseconds: list[float] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)
    products: list[Mapping[str, float]] = field(default_factory=list)


def run_bench(
    cases: Sequence[Case],
    *,
    sweeps: Iterable[str] = (),
    sweep_batch: int = 64,
    sweep_threads: int = 1,
    backends: Sequence[str] = ("cpu",),
    rounds: int = 15,
    burst_seconds: float = 0.3,
    interpreters: Mapping[str, str] | None = None,
    tiny: bool = False,
    seed: int = 0,
    tell: Tell = lambda news: None,
) -> BenchReport:
    """Run all cases, then the sweeps.

    Args:
        cases: who trains what; see `plan.standard_cases`.
        sweeps: "depth", "width" or both.
        sweep_batch: mini-batch of the sweeps.
        sweep_threads: threads of the sweeps.
        backends: pcsim's kernels in the sweeps.
        rounds: turns of each contender.
        burst_seconds: how long a turn lasts, about; one training step at least.
        interpreters: Python of another environment, by family of contenders, such as "pcx".
        tiny: sweep over tiny networks.
        seed: of the order in which contenders take turns.
        tell: is told what happens next.

    Raises:
        ConfigurationError: numbers, backends or families that cannot be.
        BenchError: nobody could run.
    """
    chosen = dict(interpreters or {})
    _check(cases, backends, rounds, burst_seconds, chosen)
    plans = {kind: sweep_workloads(kind, sweep_batch, sweep_threads, tiny) for kind in sweeps}
    where = machine()
    race = _Race(rounds, burst_seconds, chosen, np.random.default_rng(seed), tell)
    done = tuple(race.case(case) for case in cases)
    contenders = sweep_contenders(backends)
    swept = tuple(race.sweep(kind, plan, contenders) for kind, plan in plans.items())
    return BenchReport(where, rounds, burst_seconds, done, swept)


def _check(
    cases: Sequence[Case],
    backends: Sequence[str],
    rounds: int,
    burst_seconds: float,
    interpreters: Mapping[str, str],
) -> None:
    if rounds < 1:
        raise ConfigurationError(f"rounds = {rounds}: expected at least 1")
    if not 0 < burst_seconds < float("inf"):
        raise ConfigurationError(f"burst seconds = {burst_seconds}: expected a value above 0")
    own = {c.backend for case in cases for c in case.contenders if c.family == "pcsim"}
    for backend in dict.fromkeys((*backends, *sorted(own))):
        check_backend(backend)
    for family, python in interpreters.items():
        if family not in LIBRARIES:
            raise ConfigurationError(f"interpreter of '{family}': {nearest(family, LIBRARIES)}")
        if not os.access(python, os.X_OK):
            raise ConfigurationError(f"interpreter of '{family}': {python} is not a program")


@dataclass(frozen=True)
class _Race:
    """How contenders are driven."""

    rounds: int
    burst_seconds: float
    interpreters: Mapping[str, str]
    rng: np.random.Generator
    tell: Tell

    def case(self, case: Case) -> CaseReport:
        """Run one case with a process for each contender."""
        workload = case.workload
        self.tell(f"{workload.title}: starting {len(case.contenders)} processes")
        with Pool(case.contenders, workload.threads, self.interpreters) as pool:
            prepared = self._prepare(pool, workload)
            foreign, start = pool.foreign_seconds(), time.monotonic()
            ends, exchanges = processors(workload.threads), list[float]()

            def look() -> None:
                taken = exchange_nanoseconds(ends[0], ends[-1])
                exchanges.extend([] if taken is None else [taken])

            turns = self._turns(pool, prepared, look)
            foreign_processors = _rate(foreign, pool.foreign_seconds(), time.monotonic() - start)
            finished = pool.ask_all("finish")
            absent = dict(pool.absent)
        present = {c: turns[c] for c in case.contenders if c in finished}
        products = _products(workload, present)
        return CaseReport(
            workload,
            _scores(workload, present, prepared, finished, products),
            absent,
            products,
            max((product.gflops for product in products), default=None),
            _comparisons(workload, present),
            foreign_processors,
            Spread.of(exchanges) if exchanges else None,
        )

    def sweep(self, kind: str, plan: Mapping[int, Workload], contenders: Sequence[Contender]) -> Sweep:
        """Run growing networks, in the same processes one after the other."""
        first = next(iter(plan.values()))
        times: dict[Contender, list[float]] = {contender: [] for contender in contenders}
        with Pool(contenders, first.threads, self.interpreters) as pool:
            for workload in plan.values():
                turns = self._turns(pool, self._prepare(pool, workload))
                for worker in pool.workers:
                    times[worker.contender].append(float(np.median(turns[worker.contender].milliseconds)))
            present = [worker.contender for worker in pool.workers]
            absent = dict(pool.absent)
        sizes = tuple(plan)
        work = [workload.backprop_multiplications for workload in plan.values()]
        growths = tuple(
            Growth(one.name, tuple(times[one]), *power_law(sizes, times[one]))
            for one in contenders
            if one in present
        )
        exponent = power_law(sizes, work)[1]
        return Sweep(kind, first.batch, first.threads, sizes, growths, absent, exponent)

    def _prepare(self, pool: Pool, workload: Workload) -> Facts:
        self.tell(f"{workload.title}: building and warming up")
        prepared = pool.prepare(workload)
        if not prepared:
            reason = next(iter(pool.absent.items()))
            raise BenchError(f"nobody could run {workload.title}; {reason[0]}: {reason[1]}")
        return prepared

    def _turns(
        self, pool: Pool, prepared: Facts, look: Callable[[], None] = lambda: None
    ) -> dict[Contender, Turns]:
        """Let each worker in turn work for a burst, in another order every round that begins with a look."""
        turns = {
            contender: Turns(max(1, round(self.burst_seconds / facts["seconds"])))
            for contender, facts in prepared.items()
        }
        for number in range(self.rounds):
            self.tell(f"round {number + 1} of {self.rounds}")
            look()
            workers = list(pool.workers)
            for index in self.rng.permutation(len(workers)).tolist():
                worker = workers[index]
                mine = turns[worker.contender]
                reply = pool.ask(worker, "burst", steps=mine.steps)
                if reply is not None:
                    mine.rests.append(worker.rest())
                    mine.milliseconds.append(reply["seconds"] / mine.steps * 1e3)
                    mine.products.append(reply.get("products", {}))
        return turns


def _rate(before: float | None, after: float | None, seconds: float) -> float | None:
    """Return the growth a second; a worker that left takes its time along, which must not count below 0."""
    return None if before is None or after is None else max(0.0, after - before) / seconds


def _products(workload: Workload, turns: Mapping[Contender, Turns]) -> tuple[Product, ...]:
    """Return the bare products of a step, each with its times by provider."""
    providers = {c.backend: mine for c, mine in turns.items() if c.family == "products"}
    found = []
    for name in product_names(workload.sizes) if providers else ():
        times = {
            provider: float(np.median([once[name] for once in mine.products])) * 1e3
            for provider, mine in providers.items()
        }
        best = min(times, key=lambda provider: times[provider])
        multiplications = product_multiplications(name, workload)
        found.append(Product(name, multiplications, times, best, _gflops(multiplications, times[best])))
    return tuple(found)


def _gflops(multiplications: int, milliseconds: float) -> float:
    return 2e-6 * multiplications / milliseconds


def _limit(contender: Contender, workload: Workload, products: Sequence[Product]) -> float | None:
    """Return the milliseconds that the products of this step take at best; None if not all are known.

    Of single samples they bound nothing: those do without the weights of silent neurons, as no library can.
    """
    fastest = {product.name: min(product.milliseconds.values()) for product in products}
    if not fastest or workload.batch == 1:
        return None
    if contender.family == "pcsim":
        program = program_of(workload, contender.iterations)
        needed = Counter(f"{op.name}:{op.layer}" for op in program.operations if op.multiplications)
    elif contender.iterations == 0:  # backprop needs each of them once
        needed = Counter(dict.fromkeys(fastest, 1))
    else:
        return None
    return sum(count * fastest[name] for name, count in needed.items())


def _scores(
    workload: Workload,
    turns: Mapping[Contender, Turns],
    prepared: Facts,
    finished: Facts,
    products: Sequence[Product],
) -> tuple[Score, ...]:
    """Return the scores of those who train."""
    fastest = max((product.gflops for product in products), default=None)
    baseline = turns.get(BASELINE)
    scores = []
    for contender, mine in turns.items():
        if contender.family == "products":
            continue
        spent, facts, last = Spread.of(mine.milliseconds), prepared[contender], finished[contender]
        multiplications = facts.get("multiplications")
        if contender.iterations == 0:
            multiplications = workload.backprop_multiplications
        gflops = None if multiplications is None else _gflops(multiplications, spent.median)
        limit = _limit(contender, workload, products)
        ratio = Spread.of_ratios(mine.milliseconds, baseline.milliseconds) if baseline else None
        scores.append(
            Score(
                name=contender.name,
                contender=contender,
                milliseconds=spent,
                rounds=tuple(mine.milliseconds),
                steps=mine.steps,
                ratio=ratio,
                multiplications=multiplications,
                gflops=gflops,
                of_limit=None if limit is None else limit / spent.median,
                of_fastest=None if gflops is None or fastest is None else gflops / fastest,
                held_bytes=facts["peak_bytes"],
                resident_bytes=facts["resident_bytes"],
                rest_seconds=float(np.median(mine.rests)),
                finite=last["finite"],
                blas=tuple(last["blas"]),
                versions=last["versions"],
            )
        )
    return tuple(scores)


def _comparisons(workload: Workload, turns: Mapping[Contender, Turns]) -> tuple[Comparison, ...]:
    """Return the ratios that pcsim is held to, as far as both sides ran."""
    backends = list(dict.fromkeys(c.backend for c in turns if c.family == "pcsim"))
    found = []
    for backend in backends:
        for target in CONV_TARGETS if workload.layers else TARGETS:
            one, other = (turns.get(contender) for contender in target.of(backend))
            if one is None or other is None or target.batch not in (None, workload.batch):
                continue
            ratio = Spread.of_ratios(one.milliseconds, other.milliseconds)
            most = target.most if workload.sizes == PAPER_SIZES or workload.layers == PAPER_CONV else None
            found.append(Comparison(target.label, backend, ratio, most))
    return tuple(found)
