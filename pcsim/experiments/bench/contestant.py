"""What a contender is inside its worker process."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcsim.experiments.bench.plan import Contender, Workload

LIBRARIES = {  # by family or provider of products
    "torch": ("torch",),
    "onednn": ("torch",),
    "jax": ("jax",),
    "pcx": ("pcx", "optax"),
    "fabricpc": ("fabricpc", "optax"),
}
BATCHES = 4  # mini-batches that are gone through in turn, so that no library can take inputs for constants


class Contestant(Protocol):
    """Somebody with a network who can train it."""

    def steps(self, count: int) -> None:
        """Do so many training steps; return when their last result is there."""
        ...

    def finite(self) -> bool:
        """Whether the parameters are still finite: infinities and NaN would make timings worthless."""
        ...

    def facts(self) -> dict[str, object]:
        """Return what else is worth reporting, fit for JSON."""
        ...

    def close(self) -> None:
        """Let go of files and threads."""
        ...


@dataclass(frozen=True)
class Samples:
    """Random training data, the same for all contenders.

    Attributes:
        inputs: (BATCHES, batch, n_0), in [0, 1).
        labels: (BATCHES, batch), class numbers.
        targets: (BATCHES, batch, n_L), the labels one-hot.
    """

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float32]

    @classmethod
    def of(cls, workload: Workload) -> Samples:
        """Draw the samples of a workload."""
        rng = np.random.default_rng(0)
        classes = workload.sizes[-1]
        inputs = rng.random((BATCHES, workload.batch, workload.sizes[0]), np.float32)
        labels = rng.integers(0, classes, (BATCHES, workload.batch))
        return cls(inputs, labels, np.eye(classes, dtype=np.float32)[labels])


def builder(contender: Contender) -> Callable[[Contender, Workload, Samples], Contestant]:
    """Return what builds a contestant; importing what it needs is part of finding it.

    Raises:
        ImportError: its library is not installed.
    """
    needs = contender.backend if contender.family == "products" else contender.family
    for library in LIBRARIES.get(needs, ()):
        importlib.import_module(library)
    match contender.family:
        case "pcsim":
            from pcsim.experiments.bench import ours

            ours.load(contender)
            return ours.build
        case "products":
            from pcsim.experiments.bench import products

            return products.build
        case "pcx":
            from pcsim.experiments.bench import pcx

            return pcx.build
        case _:
            from pcsim.experiments.bench import peers

            return peers.BUILDERS[contender.family]
