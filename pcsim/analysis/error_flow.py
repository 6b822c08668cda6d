"""How errors flow through the layers, iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader


@dataclass(frozen=True)
class ErrorFlow:
    """Error norms of a trace.

    Attributes:
        title: order and T of the run.
        steps: recorded training steps, (S,).
        layers: 1, …, L.
        norms: root of the batch mean of ‖e_l‖², (S, T + 1, L); [s, n, l − 1] after n iterations.
    """

    title: str
    steps: npt.NDArray[np.int64]
    layers: npt.NDArray[np.int64]
    norms: npt.NDArray[np.float64]

    def front(self) -> npt.NDArray[np.int64]:
        """Return the first iteration with a non-zero error at each layer in any recorded step; −1 if none."""
        reached = (self.norms > 0).any(axis=0)
        return np.where(reached.any(axis=0), reached.argmax(axis=0), -1)


def error_flow(trace: TraceReader) -> ErrorFlow:
    """Read the error flow of a run.

    Raises:
        TraceError: the trace has no summary rows.
    """
    summary = trace.table("summary")
    if not summary.rows:
        raise TraceError(f"{trace.path} has no recorded training step: expected at least one in 'summary'")
    order, iterations = trace.attributes.get("order", "?"), trace.attributes.get("iterations", "?")
    return ErrorFlow(
        f"{order}, T = {iterations}",
        summary.read("step"),
        summary.coordinate("layer"),
        np.sqrt(2 * summary.read("squared_error")),
    )
