"""What this machine is and how fast it multiplies: behind the choice of libraries and threads."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from threadpoolctl import threadpool_info

from pcsim.engine.threads import time_threads
from pcsim.kernels.measured import Measured
from pcsim.kernels.products import Choices
from pcsim.kernels.software import processor, software
from pcsim.network.network import Network

SHAPES = ((64, 3072, 1024), (64, 1024, 1024))  # batch, inputs, outputs: the paper's network


@dataclass(frozen=True)
class Machine:
    """Processor, libraries, and the self-test.

    Attributes:
        processor: its name.
        cores: logical processors that this process may use.
        versions: of all that computes and records.
        blas: each loaded BLAS with the core type that it was built or chosen for.
        products: speed of each product, shape and library on one thread, fastest first.
        threads: milliseconds of one 1024 × 1024 prediction of 64 samples, by number of threads.
        kept: file in which the speeds are kept, and from which they may have come.
    """

    processor: str
    cores: int
    versions: dict[str, str]
    blas: list[str]
    products: list[Measured]
    threads: dict[int, float]
    kept: str

    @property
    def best_threads(self) -> int:
        """Number of threads that was fastest."""
        return min(self.threads, key=lambda count: self.threads[count])

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self) | {"best_threads": self.best_threads}


def examine() -> Machine:
    """Run the self-test: about a second; what was measured before is taken from the cache."""
    choices = Choices()
    for batch, inputs, outputs in SHAPES:
        for product in ("predict", "feedback", "hebbian"):
            choices.best(product, batch, inputs, outputs, "float32")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor(),
        cores,
        software(),
        [f"{one['internal_api']} {one.get('architecture', '')}".strip() for one in threadpool_info()],
        choices.measured,
        time_threads(Network.dense([1024, 1024]), 64),
        str(choices.path),
    )
