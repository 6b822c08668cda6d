"""Matrix products by whichever library is fastest for a shape on this machine.

A provider computes the three products of a connection. Which one is fastest depends on the processor, on
how the libraries were built, and on the shape; nobody can know it beforehand, so a short self-test measures.
Its result is kept on disk: the choice decides the rounding, and a run must give the same bits again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from pcsim.kernels import Array

REPETITIONS = 7
# Multiplications below which NumPy is taken without a test: the test, and loading torch, would cost more.
WORTH_A_TEST = 4_000_000


class Provider(Protocol):
    """Three products into given arrays, each for a range, so that threads can share one."""

    name: str

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, first: int, last: int) -> None:
        """Columns first to last of out = rates weightᵀ + bias; (batch, n), (m, n), (m,) → (batch, m)."""
        ...

    def feedback(self, error: Array, weight: Array, out: Array, first: int, last: int) -> None:
        """Out = the share of error weight that outputs first to last have; (batch, m), (m, n) → (batch, n).

        The sum is split, not the inputs: a slice of the weight's columns is a layout for which oneDNN has
        only a reference loop, a thousand times slower.
        """
        ...

    def hebbian(self, error: Array, rates: Array, out: Array, first: int, last: int) -> None:
        """Out = rows first to last of errorᵀ rates, summed over the batch; (last − first, n)."""
        ...


class NumpyProvider:
    """NumPy's BLAS; always there."""

    name = "numpy"

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        np.matmul(rates, weight[first:last].T, out=out[:, first:last])
        out[:, first:last] += bias[first:last]

    def feedback(self, error: Array, weight: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        np.matmul(error[:, first:last], weight[first:last], out=out)

    def hebbian(self, error: Array, rates: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        np.matmul(error[:, first:last].T, rates, out=out)


class TorchProvider:
    """Torch's BLAS, usually MKL."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._wrap = torch.from_numpy
        self._multiply = torch.mm

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        wrap = self._wrap
        self._multiply(wrap(rates), wrap(weight[first:last]).t(), out=wrap(out[:, first:last]))
        out[:, first:last] += bias[first:last]

    def feedback(self, error: Array, weight: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        wrap = self._wrap
        self._multiply(wrap(error[:, first:last]), wrap(weight[first:last]), out=wrap(out))

    def hebbian(self, error: Array, rates: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        wrap = self._wrap
        self._multiply(wrap(error[:, first:last]).t(), wrap(rates), out=wrap(out))


class OneDnnProvider:
    """OneDNN inside torch, through an operator that torch keeps to itself; float32 only.

    It returns a fresh array, so that each product costs a copy of its result, small beside the product.

    Raises:
        RuntimeError: this torch has no such operator, or it does not compute what it is meant to.
    """

    name = "onednn"

    def __init__(self) -> None:
        import torch

        try:
            self._linear = torch.ops.mkldnn._linear_pointwise
            probe = self._linear(torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), None, "none", [], "")
        except (AttributeError, RuntimeError, NotImplementedError) as error:
            raise RuntimeError(f"no oneDNN in torch {torch.__version__}: {error}") from error
        if probe.tolist() != [[1.0, 3.0], [2.0, 4.0]]:
            raise RuntimeError(f"oneDNN in torch {torch.__version__} computes something else than expected")
        self._wrap = torch.from_numpy

    def _times(self, left: Array, right: Array) -> Array:
        """Return left rightᵀ."""
        product = self._linear(self._wrap(left), self._wrap(right), None, "none", [], "")
        array: Array = product.numpy()
        return array

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`; formed as weight ratesᵀ, so that oneDNN rearranges the small operand."""
        np.add(self._times(weight[first:last], rates).T, bias[first:last], out=out[:, first:last])

    def feedback(self, error: Array, weight: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        part = np.ascontiguousarray(error[:, first:last])
        np.copyto(out, self._times(part, weight[first:last].T))

    def hebbian(self, error: Array, rates: Array, out: Array, first: int, last: int) -> None:
        """See `Provider`."""
        np.copyto(out, self._times(error[:, first:last].T, rates.T))


@dataclass(frozen=True)
class Measured:
    """One line of the self-test.

    Attributes:
        product: predict, feedback or hebbian.
        batch: samples.
        inputs: presynaptic neurons, n.
        outputs: postsynaptic neurons, m.
        dtype: of the numbers.
        provider: its name.
        gflops: speed on one thread, two operations a multiplication.
    """

    product: str
    batch: int
    inputs: int
    outputs: int
    dtype: str
    provider: str
    gflops: float


def one_thread_a_library() -> None:
    """Keep the libraries from starting threads of their own; OpenMP wants to be told in every thread."""
    threadpool_limits(1)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


class Choices:
    """The fastest provider by product and shape, measured once and kept in a file.

    Args:
        path: of the file; `products.json` in the cache folder if not given (`PCSIM_CACHE`, else
            `~/.cache/pcsim`). A file that cannot be read or written is done without.

    Attributes:
        measured: lines of the self-test, those from the file included.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "products.json"
        self._chosen: dict[tuple[str, int, int, int, str], Provider] = {}
        self.measured: list[Measured] = self._load()

    @cached_property
    def providers(self) -> dict[str, Provider]:
        """What this machine has, by name; torch is loaded if it is installed."""
        found: list[Provider] = [NumpyProvider()]
        if find_spec("torch") is not None:
            found.append(TorchProvider())
            try:
                found.append(OneDnnProvider())
            except RuntimeError as error:
                print(f"pcsim: {error}; going on without it", file=sys.stderr)
        one_thread_a_library()
        return {one.name: one for one in found}

    def best(self, product: str, batch: int, inputs: int, outputs: int, dtype: str) -> Provider:
        """Return the fastest provider of a product of this shape."""
        key = product, batch, inputs, outputs, dtype
        if key not in self._chosen:
            self._chosen[key] = self._choose(key)
        return self._chosen[key]

    def _choose(self, key: tuple[str, int, int, int, str]) -> Provider:
        product, batch, inputs, outputs, dtype = key
        if batch * inputs * outputs < WORTH_A_TEST:
            return NumpyProvider()
        lines = [line for line in self.measured if list(asdict(line).values())[:5] == list(key)]
        if not lines:
            lines = measure(product, batch, inputs, outputs, list(self.providers.values()), dtype)
            self.measured += lines
            self._save()
        return self.providers[lines[0].provider]

    def _load(self) -> list[Measured]:
        try:
            kept = json.loads(self._path.read_text())
            return [Measured(**line) for line in kept["measured"]] if kept["machine"] == machine() else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _save(self) -> None:
        kept = {"machine": machine(), "measured": [asdict(line) for line in self.measured]}
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(kept, indent=1))
            temporary.replace(self._path)
        except OSError:  # a read-only home costs a second a run, not the run
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return where pcsim keeps what it has found out about a machine."""
    return Path(os.environ.get("PCSIM_CACHE") or Path.home() / ".cache" / "pcsim")


def machine() -> dict[str, str]:
    """Return what a self-test depends on: processor, libraries, and what steers them."""
    versions = {name: metadata.version(name) for name in ("numpy", "torch") if find_spec(name)}
    core = {"openblas_core": os.environ.get("OPENBLAS_CORETYPE", "")}
    return {"processor": processor(), **versions, **core}


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    model = [named.get(key, "") for key in ("model name", "cpu family", "model")]
    return " ".join(part for part in model if part) or platform.processor()


def measure(
    product: str, batch: int, inputs: int, outputs: int, providers: Sequence[Provider], dtype: str
) -> list[Measured]:
    """Time one product of one shape with each provider, fastest first; providers take turns."""
    rng = np.random.default_rng(0)
    rates, error, weight = (
        rng.random(shape).astype(dtype) for shape in ((batch, inputs), (batch, outputs), (outputs, inputs))
    )
    bias = np.zeros(outputs, dtype)
    calls = {
        "predict": lambda one: one.predict(rates, weight, bias, np.empty_like(error), 0, outputs),
        "feedback": lambda one: one.feedback(error, weight, np.empty_like(rates), 0, outputs),
        "hebbian": lambda one: one.hebbian(error, rates, weight, 0, outputs),
    }
    fit = [one for one in providers if dtype == "float32" or not isinstance(one, OneDnnProvider)]
    best = {one.name: float("inf") for one in fit}
    for _ in range(REPETITIONS):
        for one in fit:
            start = time.perf_counter()
            calls[product](one)
            best[one.name] = min(best[one.name], time.perf_counter() - start)
    speed = {name: 2e-9 * batch * inputs * outputs / seconds for name, seconds in best.items()}
    ranked = sorted(speed.items(), key=lambda item: -item[1])
    return [Measured(product, batch, inputs, outputs, dtype, name, gflops) for name, gflops in ranked]
