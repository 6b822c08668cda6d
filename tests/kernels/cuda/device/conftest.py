"""Tests that run CUDA kernels: on a GPU as part of the suite, else in Numba's simulator.

The simulator replaces Numba's CUDA for a whole process and has to be chosen before Numba is imported, so
`../test_simulator.py` starts these files in processes of their own. Without a GPU and without the simulator
there is nothing here to collect.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from numba import cuda
from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)


def torch_finds_a_gpu():
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


collect_ignore_glob = [] if SIMULATED or (cuda.is_available() and torch_finds_a_gpu()) else ["test_*.py"]

if SIMULATED:
    sys.setswitchinterval(1e-3)  # its main thread polls, and would keep the others waiting for 5 ms at a time


@pytest.fixture(scope="session")
def small_kernels():
    """Kernels with tiles of 8 × 16 and 4 × 8 and 32 threads, so that small matrices have many tiles."""
    from pcsim.kernels.cuda import SMALL_PRODUCT_TILE, SMALL_TILE, CudaKernels

    return CudaKernels(tile=SMALL_TILE, product_tile=SMALL_PRODUCT_TILE)


@pytest.fixture(scope="session")
def kernels():
    """Kernels as they are used on a GPU."""
    from pcsim.kernels.cuda import CudaKernels

    return CudaKernels()


@pytest.fixture
def close():
    """Compare a device array with a host array: 1e-12 in float64, 1e-5 in float32."""

    def check(actual, desired):
        actual = np.asarray(actual)
        tolerance = 1e-5 if actual.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)

    return check
