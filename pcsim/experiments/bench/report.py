"""What a benchmark found out: data only, and the arithmetic from bursts to medians and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcsim.experiments.bench.plan import Contender, Workload

QUARTILES = (25, 50, 75)


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes of repeated measurements."""

    minimum: float
    lower: float
    median: float
    upper: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        lower, median, upper = (float(q) for q in np.percentile(values, QUARTILES))
        return cls(min(values), lower, median, upper, max(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], others: Sequence[float]) -> Spread:
        """Summarise the ratios of measurements from the same rounds."""
        return cls.of([one / other for one, other in zip(values, others, strict=True)])


@dataclass(frozen=True)
class Score:
    """How one contender did.

    Attributes:
        name: the contender in words.
        contender: the contender.
        milliseconds: of one training step, over rounds.
        rounds: the milliseconds a step of each round.
        steps: training steps in a burst.
        ratio: to PyTorch's backprop with SGD, paired by round; None without it.
        multiplications: of one step, in products with weights; None where only the library knows.
        gflops: two operations a multiplication, by the median time.
        of_limit: share of the speed of this step's bare products, each by the fastest provider.
        of_fastest: share of the speed of the fastest single product.
        held_bytes: peak of anonymous memory in training, above what was there when the network was built.
        resident_bytes: peak of the resident set in all, above what imports left; compilation included.
        rest_seconds: how long threads went on spinning after a burst, median.
        finite: whether the parameters were finite in the end.
        blas: libraries with threads in the process, and their kernels.
        versions: of the libraries it loaded.
    """

    name: str
    contender: Contender
    milliseconds: Spread
    rounds: tuple[float, ...]
    steps: int
    ratio: Spread | None
    multiplications: int | None
    gflops: float | None
    of_limit: float | None
    of_fastest: float | None
    held_bytes: int | None
    resident_bytes: int
    rest_seconds: float
    finite: bool
    blas: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Product:
    """One matrix product of the step.

    Attributes:
        name: operation:layer.
        multiplications: in it.
        milliseconds: by provider, median over rounds.
        provider: the fastest.
        gflops: of the fastest.
    """

    name: str
    multiplications: int
    milliseconds: Mapping[str, float]
    provider: str
    gflops: float


@dataclass(frozen=True)
class Comparison:
    """A ratio that pcsim is held to.

    Attributes:
        label: what is compared.
        backend: pcsim's kernels.
        ratio: paired by round.
        most: the largest median that counts as reached; None on another network than the paper's.
    """

    label: str
    backend: str
    ratio: Spread
    most: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        return None if self.most is None else self.ratio.median <= self.most


@dataclass(frozen=True)
class CaseReport:
    """All that was measured on one workload.

    Attributes:
        workload: network, mini-batch, threads.
        scores: of those who could run, in the order of the plan.
        absent: why others could not, by name.
        products: the step's bare products.
        fastest_gflops: the speed of the fastest of them; None without any.
        comparisons: ratios with targets.
        foreign_processors: how many processors others kept busy during the rounds, on average; None if
            the system does not tell. Above about 0.1 the times are not to be trusted.
        exchange_nanoseconds: that a line of the cache takes from the first processor to the last and back,
            over rounds; None on one thread, or if the system does not let us measure.
    """

    workload: Workload
    scores: tuple[Score, ...]
    absent: Mapping[str, str]
    products: tuple[Product, ...]
    fastest_gflops: float | None
    comparisons: tuple[Comparison, ...]
    foreign_processors: float | None
    exchange_nanoseconds: Spread | None


@dataclass(frozen=True)
class Growth:
    """How one contender's time grows: milliseconds = factor · size^exponent.

    Attributes:
        name: the contender in words.
        milliseconds: median of one step at each size.
        factor: of the fit.
        exponent: of the fit.
    """

    name: str
    milliseconds: tuple[float, ...]
    factor: float
    exponent: float


@dataclass(frozen=True)
class Sweep:
    """Growth with depth or width.

    Attributes:
        kind: depth, hidden layers of 256, or width, of 3 hidden layers.
        batch: samples a mini-batch.
        threads: of every library.
        sizes: the numbers gone through.
        growths: of each contender.
        absent: why others could not, by name.
        work_exponent: of the multiplications of backprop, fitted alike: what a pure count would give.
    """

    kind: str
    batch: int
    threads: int
    sizes: tuple[int, ...]
    growths: tuple[Growth, ...]
    absent: Mapping[str, str]
    work_exponent: float


@dataclass(frozen=True)
class BenchReport:
    """A whole benchmark.

    Attributes:
        machine: processor, system, git commit, start.
        rounds: turns of each contender.
        burst_seconds: length of a turn, about.
        cases: one a workload.
        sweeps: one a kind.
    """

    machine: Mapping[str, Any]
    rounds: int
    burst_seconds: float
    cases: tuple[CaseReport, ...]
    sweeps: tuple[Sweep, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        whole = asdict(self)
        for case, written in zip(self.cases, whole["cases"], strict=True):
            for one, comparison in zip(case.comparisons, written["comparisons"], strict=True):
                comparison["reached"] = one.reached
        return whole


def power_law(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Fit value = factor · size^exponent by least squares of the logarithms; return factor and exponent."""
    exponent, logarithm = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(np.exp(logarithm)), float(exponent)
