"""The simulator under threads that are interrupted at any time, as on a machine that has other work, too."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numba.core import config

from pcsim.kernels.cuda import CudaKernels
from pcsim.kernels.cuda_blocks import Tile


@pytest.fixture
def restless():
    """Threads are changed a thousand times as often as else."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="a GPU has no Python threads")
def test_device_functions_of_other_modules(restless, rng, close):
    """A kernel calls functions of another module, and each of them has to see the thread that it runs in.

    One prediction in ten failed while the simulator swapped `cuda` in one module only.
    """
    kernels = CudaKernels(product_tile=Tile(8, 4, 1, 1, 2, groups=2))
    arrays = [rng.normal(size=shape) for shape in ((3, 6), (5, 6), (5,))]
    activity, weight, bias = (kernels.to_device(array) for array in arrays)
    out = kernels.zeros((3, 5), np.float64)
    for _ in range(60):
        kernels.predict(activity, weight, bias, "identity", out)
        close(out, arrays[0] @ arrays[1].T + arrays[2])
