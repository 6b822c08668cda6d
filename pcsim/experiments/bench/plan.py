"""What is compared on which networks: data only, fit to be sent to a worker process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from pcsim.architecture import ConvLayer, parse
from pcsim.errors import ConfigurationError, PcsimError

PAPER_SIZES = (3072, 1024, 1024, 1024, 10)  # the dense network of arXiv 2305.13562
TINY_SIZES = (12, 16, 16, 16, 4)
PAPER_CONV = ("3x32x32", "conv 64 5x5/2", "conv 128 5x5/2", "conv 256 3x3/2", "dense 10")  # on CIFAR-10
TINY_CONV = ("2x9x9", "conv 4 3x3/2", "conv 5 2x2/1", "dense 4")
DEPTHS, WIDTHS = (2, 4, 8, 16, 32, 64), (256, 512, 1024, 2048, 4096)
TINY_DEPTHS, TINY_WIDTHS = (2, 4, 8), (8, 16, 32)
RULES = ("sgd", "mq", "adam")
PROVIDERS = ("pcsim", "numpy", "torch", "onednn")


class BenchError(PcsimError):
    """The benchmark itself could not run."""


@dataclass(frozen=True)
class Workload:
    """A network, a mini-batch, and how many threads may work on it.

    Attributes:
        sizes: neurons a layer, input first; ReLU between them, softmax at the output, float32.
        batch: samples a mini-batch.
        threads: of every library; the process is bound to as many processors.
        layers: the network in words, if it has convolutions; see `pcsim.architecture`.
    """

    sizes: tuple[int, ...]
    batch: int
    threads: int
    layers: tuple[str, ...] = ()

    @classmethod
    def conv(cls, layers: Sequence[str], batch: int, threads: int) -> Workload:
        """Return the workload of a network with convolutions."""
        return cls(parse(layers).sizes, batch, threads, tuple(layers))

    @property
    def backprop_multiplications(self) -> int:
        """Multiplications of one backprop step: forward, weight gradients, and errors but for the input."""
        if self.layers:
            architecture = parse(self.layers)
            products = [
                one.channels * one.terms * one.positions
                if isinstance(one, ConvLayer)
                else below * one.neurons
                for one, below in zip(architecture.layers, architecture.sizes, strict=False)
            ]
        else:
            products = [prod(ends) for ends in pairwise(self.sizes)]
        return self.batch * (2 * sum(products) + sum(products[1:]))

    @property
    def title(self) -> str:
        """The workload in a line."""
        hidden = self.sizes[1:-1]
        middle = f"{len(hidden)}×{hidden[0]}" if len(set(hidden)) == 1 else "-".join(map(str, hidden))
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        if self.layers:
            return f"{', '.join(self.layers)}; batch {self.batch}, {threads}"
        return f"{self.sizes[0]}-{middle}-{self.sizes[-1]}, batch {self.batch}, {threads}"


@dataclass(frozen=True)
class Contender:
    """Somebody who trains the network, or who only multiplies its matrices.

    Attributes:
        family: pcsim, torch, jax, pcx, fabricpc, or products (bare matrix products, to compare with).
        rule: how weights learn: sgd, mq or adam.
        iterations: T, inference iterations a mini-batch; 0 is backprop.
        backend: pcsim's kernels; of products, who multiplies: numpy, torch or onednn; of torch, the device
            if it is not the CPU.
        engine: pcsim's engine, fast or event.
        recording: pcsim's observers: none; statistics, energies and a check that they are finite, as every
            `pcsim run` has them; trace, a summary row in an HDF5 file at every step besides.
    """

    family: str
    rule: str = ""
    iterations: int = 0
    backend: str = ""
    engine: str = ""
    recording: str = ""

    @property
    def name(self) -> str:
        """The contender in a few words."""
        if self.family == "products":
            return f"products {self.backend}"
        if self.family != "pcsim":
            way = f"T={self.iterations}" if self.iterations else "backprop"
            return " ".join(part for part in (self.family, self.backend, way, self.rule) if part)
        extra = {"none": " bare", "trace": " trace"}.get(self.recording, "")
        engine = "" if self.engine == "fast" else f" {self.engine}"
        return f"pcsim {self.backend} T={self.iterations} {self.rule}{engine}{extra}"


@dataclass(frozen=True)
class Case:
    """Contenders that take turns on one workload."""

    workload: Workload
    contenders: tuple[Contender, ...]


BASELINE = Contender("torch", "sgd")


def ours(
    rule: str, iterations: int, backend: str, engine: str = "fast", recording: str = "statistics"
) -> Contender:
    """Return pcsim as a contender."""
    return Contender("pcsim", rule, iterations, backend, engine, recording)


def standard_contenders(backends: Sequence[str] = ("cpu",)) -> tuple[Contender, ...]:
    """Return everybody who is compared: pcsim in all its ways, peers, and bare products."""
    own: list[Contender] = []
    for backend in backends:
        own += [ours(rule, iterations, backend) for iterations in (1, 3, 15) for rule in RULES]
        own += [ours("mq", 3, backend, recording=recording) for recording in ("none", "trace")]
        own.append(ours("mq", 3, backend, engine="event"))
    peers = (
        BASELINE,
        Contender("torch", "adam"),
        *(Contender("torch", rule, backend="cuda") for rule in ("sgd", "adam") if "cuda" in backends),
        Contender("jax", "sgd"),
        Contender("pcx", "sgd", 3),
        Contender("fabricpc", "sgd", 3),
    )
    return (*own, *peers, *(Contender("products", backend=provider) for provider in PROVIDERS))


def conv_contenders(backends: Sequence[str] = ("cpu",)) -> tuple[Contender, ...]:
    """Return who trains a network with convolutions: pcsim and torch."""
    own = [ours("mq", iterations, backend) for backend in backends for iterations in (1, 3, 15)]
    others = [ours(rule, 3, backend) for backend in backends for rule in ("sgd", "adam")]
    return (*own, *others, BASELINE, Contender("torch", "adam"))


def standard_cases(
    batches: Iterable[int] = (),
    threads: Iterable[int] = (),
    backends: Sequence[str] = ("cpu",),
    only: Sequence[str] = (),
    tiny: bool = False,
    network: str = "dense",
) -> tuple[Case, ...]:
    """Return the cases of one of the paper's networks.

    Args:
        batches: mini-batch sizes; 64 and 1 if empty (tiny: 4).
        threads: numbers of threads; 1 and 2 if empty (tiny: 1).
        backends: pcsim's kernels.
        only: keep contenders whose name contains one of these, and the baseline; all if empty.
        tiny: a network so small that only the harness is tested.
        network: "dense", or "conv" for the one with convolutions.

    Raises:
        ConfigurationError: a number below 1, another network, or nobody is left.
    """
    batches = tuple(batches) or ((4,) if tiny else (64, 1))
    threads = tuple(threads) or ((1,) if tiny else (1, 2))
    for what, numbers in (("batch", batches), ("threads", threads)):
        if min(numbers) < 1:
            raise ConfigurationError(f"{what} = {list(numbers)}: expected numbers of at least 1")
    if network not in ("dense", "conv"):
        raise ConfigurationError(f"network '{network}': expected dense or conv")
    known = standard_contenders(backends) if network == "dense" else conv_contenders(backends)
    chosen = tuple(c for c in known if not only or any(part in c.name for part in only))
    if not chosen:
        raise ConfigurationError(f"no contender's name contains {' or '.join(only)}: known: {_names(known)}")
    if BASELINE not in chosen:
        chosen = (*chosen, BASELINE)
    sizes, words = (TINY_SIZES, TINY_CONV) if tiny else (PAPER_SIZES, PAPER_CONV)
    return tuple(
        Case(Workload(sizes, batch, n) if network == "dense" else Workload.conv(words, batch, n), chosen)
        for n in threads
        for batch in batches
    )


def read_interpreters(pairs: Iterable[str]) -> dict[str, str]:
    """Return Python interpreters by family from texts such as "pcx=/opt/pcx/bin/python".

    Raises:
        ConfigurationError: a text of another form.
    """
    read = {}
    for pair in pairs:
        family, equals, python = pair.partition("=")
        if not (family and equals and python):
            raise ConfigurationError(
                f"interpreter '{pair}': expected FAMILY=PATH, such as pcx=/opt/bin/python"
            )
        read[family] = python
    return read


def _names(contenders: Iterable[Contender]) -> str:
    return ", ".join(f"'{contender.name}'" for contender in contenders)


def sweep_workloads(kind: str, batch: int, threads: int, tiny: bool = False) -> dict[int, Workload]:
    """Return networks of growing depth (hidden layers of 256) or width (3 hidden layers), by that number.

    The input is as wide as a hidden layer, so that the work grows with the number alone.

    Raises:
        ConfigurationError: another kind.
    """
    if kind == "depth":
        width = 16 if tiny else 256
        shapes = {n: (width,) * (n + 1) for n in (TINY_DEPTHS if tiny else DEPTHS)}
    elif kind == "width":
        shapes = {n: (n,) * 4 for n in (TINY_WIDTHS if tiny else WIDTHS)}
    else:
        raise ConfigurationError(f"sweep '{kind}': expected depth or width")
    return {n: Workload((*shape, 10), batch, threads) for n, shape in shapes.items()}


def sweep_contenders(backends: Sequence[str] = ("cpu",)) -> tuple[Contender, ...]:
    """Return who takes part in sweeps."""
    return (*(ours("mq", 3, backend) for backend in backends), BASELINE)


@dataclass(frozen=True)
class Target:
    """A ratio of step times that pcsim must reach on the paper's network.

    Attributes:
        label: for tables.
        numerator: whose step; None as backend stands for each of pcsim's backends.
        denominator: whose step it is compared with.
        most: the largest ratio that counts as reached.
        batch: the mini-batch that it holds for; None is any.
    """

    label: str
    numerator: Contender
    denominator: Contender
    most: float
    batch: int | None = None

    def of(self, backend: str) -> tuple[Contender, Contender]:
        """Return both contenders, with pcsim's backend filled in."""
        one, other = self.numerator, self.denominator
        return _with_backend(one, backend), _with_backend(other, backend)


def _with_backend(contender: Contender, backend: str) -> Contender:
    if contender.family != "pcsim":
        return contender
    return ours(contender.rule, contender.iterations, backend, contender.engine, contender.recording)


MQ1, MQ3, MQ15 = (ours("mq", iterations, "") for iterations in (1, 3, 15))
BARE = ours("mq", 3, "", recording="none")
TARGETS = (
    Target("T=3 / backprop SGD", MQ3, BASELINE, 0.80, 64),
    Target("T=3 / backprop Adam", MQ3, Contender("torch", "adam"), 0.55, 64),
    Target("T=3 / PCX", MQ3, Contender("pcx", "sgd", 3), 0.90, 64),
    Target("T=1 / backprop SGD", MQ1, BASELINE, 0.50, 64),
    Target("T=15 / backprop SGD", MQ15, BASELINE, 2.6, 64),
    Target("T=3 / backprop SGD", MQ3, BASELINE, 0.65, 1),
    Target("T=3 / FabricPC", MQ3, Contender("fabricpc", "sgd", 3), 0.60, 1),
    Target("statistics / no observer", MQ3, BARE, 1.05),
    Target("trace every step / no observer", ours("mq", 3, "", recording="trace"), BARE, 1.05),
    Target("event / fast engine", ours("mq", 3, "", engine="event"), MQ3, 1.3),
)
CONV_TARGETS = (Target("T=3 / backprop SGD", MQ3, BASELINE, 3.0, 64),)
