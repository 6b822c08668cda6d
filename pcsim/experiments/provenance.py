"""What decides the last bits of a run's numbers besides its experiment: who computes them, on what."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_info

from pcsim.engine.products import settle_products
from pcsim.experiments.task import Task
from pcsim.kernels import Kernels
from pcsim.kernels.software import processor, software


def computed_by(task: Task, kernels: Kernels) -> dict[str, Any]:
    """Return what a trace says of it, fit for JSON; see traces/README.md.

    The fastest products are looked for now, before there is a trace: what is set in one later could be lost.
    """
    threads, products = _who_multiplies(task, kernels)
    return {"processor": processor(), "threads": threads, "products": products, "versions": software()}


def _who_multiplies(task: Task, kernels: Kernels) -> tuple[int, str | dict[str, str]]:
    """Return how many threads share a product of a training step, and whose product it is."""
    if task.engine == "backprop":
        from pcsim.engine.backprop import torch_threads

        return getattr(kernels, "threads", None) or torch_threads(), "torch"
    if isinstance(kernels, ModuleType):
        threads = [int(one["num_threads"]) for one in threadpool_info() if one["user_api"] == "blas"]
        return max(threads, default=1), "numpy"
    experiment = task.experiment
    share = experiment.batch // task.distribution.replicas
    settled = settle_products(experiment.network, share, kernels)
    library = getattr(getattr(kernels, "products", None), "name", type(kernels).__name__)
    return getattr(kernels, "threads", 1), settled or library
