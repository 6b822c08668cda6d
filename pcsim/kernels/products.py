"""Matrix products by whoever is fastest for a shape on this machine: our own code or a library.

A provider computes the three products of a connection. Which one is fastest depends on the processor, on
how the libraries were built, and on the shape; nobody can know it beforehand, so a short self-test measures.
Its result is kept on disk: the choice decides the rounding, and a run must give the same bits again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pcsim.kernels import Array, blocked, loops
from pcsim.kernels.cache import cache_folder
from pcsim.kernels.crew import ALONE, Crew, one_thread_a_library
from pcsim.kernels.measured import Key, Measured, keep, load
from pcsim.kernels.scratch import Scratch
from pcsim.kernels.software import installed, processor, versions

REPETITIONS = 7
BLOCK_BYTES = 2**21  # of a gradient that is used while it is hot
# Multiplications below which our own are taken without a test: it, and loading torch, would cost more, and
# a library takes longer to be called.
WORTH_A_TEST = 4_000_000


class Provider(Protocol):
    """The three products of a connection, into given arrays; all but weights are neuron by sample.

    A caller that wants a part gives rows of weight, bias, error and out. The out of `predict` and the error
    of `feedback` may be some columns of wider arrays. The threads of a crew share each product.
    """

    name: str

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, crew: Crew = ALONE) -> None:
        """Out = weight rates + bias; (n, batch), (m, n), (m,) → (m, batch)."""
        ...

    def feedback(self, error: Array, weight: Array, out: Array, first: int, crew: Crew = ALONE) -> None:
        """Out = rows of weightᵀ error from `first` on; (m, batch), (m, n) → (as many, batch)."""
        ...

    def arrange(self, rates: Array, crew: Crew = ALONE) -> Array:
        """Return the rates, (n, batch), as `update` and `adam` want them."""
        ...

    def update(self, error: Array, arranged: Array, weight: Array, scale: float, crew: Crew = ALONE) -> Array:
        """Weight += scale · error ratesᵀ; return Σ|error ratesᵀ| of its blocks of rows, float64."""
        ...

    def adam(
        self,
        error: Array,
        arranged: Array,
        weight: Array,
        first: Array,
        second: Array,
        constants: loops.AdamConstants,
        crew: Crew = ALONE,
    ) -> Array:
        """Let the weight take a step of Adam with error ratesᵀ; return Σ|Δ| of its blocks of rows.

        Args:
            error: (m, batch).
            arranged: rates as `arrange` has returned them.
            weight: changed, (m, n).
            first: moment, changed; (m, n).
            second: moment, changed; (m, n).
            constants: of this step.
            crew: whose threads share it.
        """
        ...


class Library:
    """A library that multiplies matrices.

    Args:
        name: of the library.
        multiply: (left, right, out) → out = left right; any strides.
    """

    def __init__(self, name: str, multiply: Callable[[Array, Array, Array], object]) -> None:
        self.name, self._multiply, self._scratch = name, multiply, Scratch()

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, crew: Crew = ALONE) -> None:
        """See `Provider`."""

        def part(first: int, last: int) -> None:
            self._multiply(weight[first:last], rates, out[first:last])
            out[first:last] += bias[first:last, np.newaxis]

        crew.split(part, len(weight), weight.size * rates.shape[1])

    def feedback(self, error: Array, weight: Array, out: Array, first: int, crew: Crew = ALONE) -> None:
        """See `Provider`."""

        def part(begin: int, end: int) -> None:
            self._multiply(weight[:, first + begin : first + end].T, error, out[begin:end])

        crew.split(part, len(out), len(weight) * out.size)

    def arrange(self, rates: Array, crew: Crew = ALONE) -> Array:
        """See `Provider`."""
        return rates

    def update(self, error: Array, arranged: Array, weight: Array, scale: float, crew: Crew = ALONE) -> Array:
        """See `Provider`; by blocks that are used while they are in cache."""
        return self._by_blocks(
            error, arranged, weight, lambda rows, total: loops.update(weight[rows], total, scale), crew
        )

    def adam(
        self,
        error: Array,
        arranged: Array,
        weight: Array,
        first: Array,
        second: Array,
        constants: loops.AdamConstants,
        crew: Crew = ALONE,
    ) -> Array:
        """See `Provider`."""

        def step(rows: slice, total: Array) -> np.floating[Any]:
            return loops.adam(
                weight[rows].ravel(), total.ravel(), first[rows].ravel(), second[rows].ravel(), constants
            )

        return self._by_blocks(error, arranged, weight, step, crew)

    def _by_blocks(
        self,
        error: Array,
        rates: Array,
        weight: Array,
        use: Callable[[slice, Array], np.floating[Any]],
        crew: Crew,
    ) -> Array:
        """Form error ratesᵀ some rows at a time; return what `use` has made of each."""

        def part(begin: int, end: int) -> list[float]:
            found = []
            for block in row_blocks(weight[begin:end]):
                rows = slice(begin + block.start, begin + block.stop)
                total = self._scratch("block", weight[rows].shape, weight.dtype)
                self._multiply(error[rows], rates.T, total)
                found.append(float(use(rows, total)))
            return found

        parts = crew.split(part, len(weight), weight.size * rates.shape[1])
        return np.array([one for found in parts for one in found])


class OwnProducts:
    """Our own compiled products; see `pcsim.kernels.blocked`."""

    name = "pcsim"

    def __init__(self) -> None:
        self._scratch = Scratch()

    def predict(self, rates: Array, weight: Array, bias: Array, out: Array, crew: Crew = ALONE) -> None:
        """See `Provider`."""
        work, blocks = weight.size * rates.shape[1], crew.blocks(len(weight))
        crew.share(blocked.predict, work, weight, rates, bias, out, blocks)

    def feedback(self, error: Array, weight: Array, out: Array, first: int, crew: Crew = ALONE) -> None:
        """See `Provider`."""
        work, blocks = len(weight) * out.size, crew.blocks(len(out))
        crew.share(blocked.feedback, work, weight, error, out, first, blocks)

    def arrange(self, rates: Array, crew: Crew = ALONE) -> Array:
        """See `Provider`."""
        inputs, batch = rates.shape
        panels = self._scratch("panels", blocked.panel_shape(inputs, batch, rates.itemsize), rates.dtype)
        crew.share(blocked.by_panels, rates.size, rates, panels, crew.blocks(inputs))
        return panels

    def update(self, error: Array, arranged: Array, weight: Array, scale: float, crew: Crew = ALONE) -> Array:
        """See `Provider`; no element of the product ever reaches memory."""
        work, norms = weight.size * error.shape[1], blocked.room_for_norms(weight)
        crew.share(blocked.outer, work, error, arranged, scale, weight, norms, crew.blocks(len(weight)))
        return norms

    def adam(
        self,
        error: Array,
        arranged: Array,
        weight: Array,
        first: Array,
        second: Array,
        constants: loops.AdamConstants,
        crew: Crew = ALONE,
    ) -> Array:
        """See `Provider`."""
        work, norms = weight.size * error.shape[1], blocked.room_for_norms(weight)
        operands = error, arranged, weight, first, second, constants, norms
        crew.share(blocked.adam, work, *operands, crew.blocks(len(weight)))
        return norms


def row_blocks(weight: Array) -> Iterator[slice]:
    """Cut a weight into rows of at most `BLOCK_BYTES`; smaller blocks make a library repack too often."""
    rows, columns = weight.shape
    height = max(1, min(rows, BLOCK_BYTES // (columns * weight.itemsize)))
    for first in range(0, rows, height):
        yield slice(first, min(first + height, rows))


def _numpy() -> Provider:
    return Library("numpy", lambda left, right, out: np.matmul(left, right, out=out))


def _torch() -> Provider:
    import torch

    wrap, multiply = torch.from_numpy, torch.mm
    one_thread_a_library()
    return Library("torch", lambda left, right, out: multiply(wrap(left), wrap(right), out=wrap(out)))


MAKERS: dict[str, Callable[[], Provider]] = {"pcsim": OwnProducts, "numpy": _numpy, "torch": _torch}


class Choices:
    """The fastest provider by product and shape, measured once and kept in a file.

    Args:
        path: of the file; `products.json` in the cache folder if not given (`PCSIM_CACHE`, else
            `~/.cache/pcsim`). A file that cannot be read or written is done without.

    Attributes:
        measured: lines of the self-test, those from the file included.
        path: of the file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "products.json"
        self._chosen: dict[Key, Provider] = {}
        self._providers: dict[str, Provider] = {}
        self.measured: list[Measured] = load(self.path, machine(), self.names)

    def provider(self, name: str) -> Provider:
        """Return a provider by name; torch is loaded only if it is asked for."""
        if name not in self._providers:
            self._providers[name] = MAKERS[name]()
        return self._providers[name]

    @property
    def names(self) -> tuple[str, ...]:
        """What this machine has."""
        return tuple(name for name in MAKERS if name != "torch" or installed("torch"))

    def best(self, product: str, batch: int, inputs: int, outputs: int, dtype: str) -> Provider:
        """Return the fastest provider of a product of this shape."""
        key = product, batch, inputs, outputs, dtype
        if key not in self._chosen:
            self._chosen[key] = self._choose(key)
        return self._chosen[key]

    def _choose(self, key: Key) -> Provider:
        product, batch, inputs, outputs, dtype = key
        if batch * inputs * outputs < WORTH_A_TEST:
            return self.provider("pcsim")
        if not self._lines(key):  # another process may have found it meanwhile
            self._take(load(self.path, machine(), self.names))
        if not self._lines(key):
            providers = [self.provider(name) for name in self.names]
            found = measure(product, batch, inputs, outputs, providers, dtype)
            self._take(keep(self.path, machine(), self.names, found))
        return self.provider(self._lines(key)[0].provider)

    def _lines(self, key: Key) -> list[Measured]:
        return [line for line in self.measured if line.key == key]

    def _take(self, lines: list[Measured]) -> None:
        """Add lines of what is not known yet: whoever was first decides, and all processes multiply alike."""
        known = {line.key for line in self.measured}
        self.measured += [line for line in lines if line.key not in known]


def machine() -> dict[str, str]:
    """Return what a self-test depends on: processor, libraries, what steers them, and who is tested."""
    core = {"openblas_core": os.environ.get("OPENBLAS_CORETYPE", "")}
    return {"processor": processor(), **versions("numpy", "torch"), **core, "providers": " ".join(MAKERS)}


def measure(
    product: str, batch: int, inputs: int, outputs: int, providers: Sequence[Provider], dtype: str
) -> list[Measured]:
    """Time one product of one shape with each provider, fastest first; providers take turns."""
    rng = np.random.default_rng(0)
    rates, error, weight = (
        rng.random(shape).astype(dtype) for shape in ((inputs, batch), (outputs, batch), (outputs, inputs))
    )
    bias, up, down = np.zeros(outputs, dtype), np.empty_like(error), np.empty_like(rates)
    calls: dict[str, Callable[[Provider], object]] = {
        "predict": lambda one: one.predict(rates, weight, bias, up),
        "feedback": lambda one: one.feedback(error, weight, down, 0),
        "hebbian": lambda one: one.update(error, one.arrange(rates), weight, 1e-3),
    }
    best = {one.name: float("inf") for one in providers}
    for _ in range(REPETITIONS):
        for one in providers:
            start = time.perf_counter()
            calls[product](one)
            best[one.name] = min(best[one.name], time.perf_counter() - start)
    speed = {name: 2e-9 * batch * inputs * outputs / seconds for name, seconds in best.items()}
    ranked = sorted(speed.items(), key=lambda item: -item[1])
    return [Measured(product, batch, inputs, outputs, dtype, name, gflops) for name, gflops in ranked]
