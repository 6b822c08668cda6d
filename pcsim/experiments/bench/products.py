"""Bare matrix products as a contestant: what the step would cost if there were nothing else to it.

One step goes once through the products of a training step, over weight matrices of their own, so that each
finds memory and caches as a training step would leave them. Every product is timed by itself; those of
several providers then make the best mixture.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.experiments.bench.contestant import Samples
from pcsim.experiments.bench.plan import Contender, Workload

Matrix = npt.NDArray[np.float32]
Call = Callable[[], Any]
KINDS = ("predict", "relax", "learn")  # f(ĥ) Wᵀ, e W and eᵀ f(ĥ), named for the operations that need them
TOLERANCE = 1e-3  # relative; only tells a product from something else


def product_names(sizes: tuple[int, ...]) -> tuple[str, ...]:
    """Return the distinct products of a training step, as operation:layer."""
    return tuple(
        f"{kind}:{layer}" for kind in KINDS for layer in range(len(sizes) - 1) if kind != "relax" or layer
    )


def product_multiplications(name: str, workload: Workload) -> int:
    """Return the multiplications of one of them."""
    layer = int(name.partition(":")[2])
    return workload.batch * workload.sizes[layer] * workload.sizes[layer + 1]


class Products:
    """The products of a training step by one provider."""

    def __init__(self, contender: Contender, workload: Workload) -> None:
        rng = np.random.default_rng(0)
        sizes, batch = workload.sizes, workload.batch
        draw = {n: rng.random((batch, n), np.float32) - np.float32(0.5) for n in {*sizes}}
        provide, threads = PROVIDE[contender.backend], workload.threads
        calls: dict[str, Call] = {}
        for layer, (below, above) in enumerate(pairwise(sizes)):
            weight = rng.random((above, below), np.float32) - np.float32(0.5)
            for kind, operands in (
                ("predict", (draw[below], weight.T)),
                ("relax", (draw[above], weight)),
                ("learn", (draw[above].T, draw[below])),
            ):
                calls[f"{kind}:{layer}"] = _checked(provide(kind, *operands, threads), *operands)
        self._calls = {name: calls[name] for name in product_names(sizes)}
        self._seconds = dict.fromkeys(self._calls, 0.0)
        self._steps = 0

    def steps(self, count: int) -> None:
        """Go through all products so many times."""
        self._seconds, self._steps = dict.fromkeys(self._calls, 0.0), count
        for _ in range(count):
            for name, call in self._calls.items():
                start = time.perf_counter()
                call()
                self._seconds[name] += time.perf_counter() - start

    def finite(self) -> bool:
        """Nothing is learnt here."""
        return True

    def facts(self) -> dict[str, object]:
        """Return the seconds of each product in the latest burst."""
        return {"products": {name: total / max(self._steps, 1) for name, total in self._seconds.items()}}

    def close(self) -> None:
        """Nothing to let go of."""


def _checked(call: Call, left: Matrix, right: Matrix) -> Call:
    """Return the call if it gives the product: a private operator may mean something else tomorrow."""
    given, expected = np.asarray(call()), left @ right
    if given.shape != expected.shape or np.abs(given - expected).max() > TOLERANCE * np.abs(expected).max():
        raise RuntimeError("does not give the matrix product")
    return call


def _numpy(kind: str, left: Matrix, right: Matrix, threads: int) -> Call:
    out = np.empty((left.shape[0], right.shape[1]), np.float32)
    if left.shape[1] == 1:  # an outer product: matmul takes many times longer than broadcasting
        return lambda: np.multiply(left, right, out=out)
    return lambda: np.matmul(left, right, out=out)


def _torch(kind: str, left: Matrix, right: Matrix, threads: int) -> Call:
    torch = importlib.import_module("torch")
    torch.set_grad_enabled(False)
    one, other = torch.from_numpy(left), torch.from_numpy(right)
    out = torch.empty((left.shape[0], right.shape[1]))
    return lambda: torch.mm(one, other, out=out)


def _onednn(kind: str, left: Matrix, right: Matrix, threads: int) -> Call:
    """Multiply by oneDNN (x @ weightᵀ): a private operator of torch without a buffer to write to."""
    torch = importlib.import_module("torch")
    torch.set_grad_enabled(False)
    operator = torch.ops.mkldnn._linear_pointwise
    one, other = torch.from_numpy(left), torch.from_numpy(right).t()
    return lambda: operator(one, other, None, "none", [], "")


def _own(kind: str, left: Matrix, right: Matrix, threads: int) -> Call:
    """Multiply as pcsim does, arrays of the mini-batch neuron by sample; learning adds to what is there."""
    (own, crew), out = _own_products(threads), np.zeros((right.shape[1], left.shape[0]), np.float32)
    if kind == "predict":
        weight, rates, bias = right.T, np.ascontiguousarray(left.T), np.zeros(right.shape[1], np.float32)
        return lambda: _then(own.predict(rates, weight, bias, out, crew), out.T)
    error = np.ascontiguousarray(left.T if kind == "relax" else left)
    if kind == "relax":
        return lambda: _then(own.feedback(error, right, out, 0, crew), out.T)
    rates, change = np.ascontiguousarray(right.T), np.zeros((left.shape[0], right.shape[1]), np.float32)
    return lambda: _then(own.update(error, own.arrange(rates, crew), change, 1.0, crew), change)


@cache
def _own_products(threads: int) -> tuple[Any, Any]:
    """Return pcsim's products and a crew; others do not import them, which takes memory and time."""
    kernels = importlib.import_module("pcsim.kernels.products")
    return kernels.OwnProducts(), kernels.Crew(threads)


def _then(done: object, out: Matrix) -> Matrix:
    """Return what has just been filled."""
    return out


PROVIDE: dict[str, Callable[[str, Matrix, Matrix, int], Call]] = {
    "pcsim": _own,
    "numpy": _numpy,
    "torch": _torch,
    "onednn": _onednn,
}


def build(contender: Contender, workload: Workload, samples: Samples) -> Products:
    """Return the products of a provider.

    Raises:
        ImportError: torch is not installed.
        RuntimeError: its private operator has changed.
    """
    return Products(contender, workload)
