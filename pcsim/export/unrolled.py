"""A convolution as the matrix that it is: p = M ĥ + b, or its tangent at one state of what it reads."""

from __future__ import annotations

from math import prod

import numpy as np

from pcsim.analysis.convolution import Convolution
from pcsim.errors import TraceError
from pcsim.export.recorded import Array, Parameters

MOST_ENTRIES = 2**24  # of a matrix: 128 MiB
AT_ONCE = 256  # rows


def unrolled(convolution: Convolution, kernels: Parameters, at: Array) -> Parameters:
    """Return weight M (n_{l+1}, n_l) and bias of the tangent of p = pool(f(conv(ĥ))) at ĥ = at, (n_l,).

    Without a non-linearity and without max pooling it is the convolution itself, wherever it touches.

    Raises:
        TraceError: a matrix of more than 16,777,216 entries.
    """
    drive = convolution.drive(at[np.newaxis], kernels.weight, kernels.bias)
    prediction = convolution.prediction(drive)[0]
    sources, targets = prod(convolution.image), len(prediction)
    if sources * targets > MOST_ENTRIES:
        raise TraceError(
            f"a convolution from {sources:,} to {targets:,} neurons has {sources * targets:,} entries as a "
            f"matrix: expected at most {MOST_ENTRIES:,}, or a network of dense connections"
        )
    matrix = np.empty((targets, sources))
    for first in range(0, targets, AT_ONCE):
        rows = np.eye(targets)[first : first + AT_ONCE]
        delta = convolution.back(rows, np.repeat(drive, len(rows), axis=0))
        matrix[first : first + AT_ONCE] = convolution.below(delta, kernels.weight)
    return Parameters(matrix, prediction - matrix @ at, kernels.when)
