"""What Numba's CUDA simulator lacks for our kernels; nothing of this exists on a GPU.

The simulator (NUMBA_ENABLE_CUDASIM=1) runs each CUDA thread as a Python thread, without warps. Kernels stay
as they are: the missing pieces are put in here.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from numba.core import config as numba_config

from pcsim.kernels import cuda_device

Anything = Any
config: Any = numba_config  # its attributes are made when it is imported


def simulated() -> bool:
    """Return whether Numba's CUDA simulator stands in for a GPU in this process."""
    return bool(config.ENABLE_CUDASIM)


def complete() -> None:
    """Teach the simulator warp shuffles and give it a shared memory that threads cannot race for."""
    from numba.cuda.simulator import kernel, kernelapi

    inside: Any = kernelapi
    inside.FakeCUDAModule.shfl_xor_sync = _shuffle
    inside.FakeCUDAShared.array = _shared_array
    # The simulator swaps `cuda` in a module while a function of it runs, which threads that call a device
    # function of another module do at the same time, and undo for each other. This one is never swapped.
    if not isinstance(cuda_device.cuda, _RunningKernel):
        cuda_device.cuda = _RunningKernel(kernel, cuda_device.cuda)


class _RunningKernel:
    """`cuda` as the kernel that is running sees it."""

    def __init__(self, kernel: Anything, outside: Anything) -> None:
        self._kernel, self._outside = kernel, outside

    def __getattr__(self, name: str) -> Anything:
        return getattr(self._kernel._get_kernel_context() or self._outside, name)


def _shuffle(module: Anything, mask: int, value: Anything, distance: int) -> Anything:
    """Stand in for shfl_xor_sync by two barriers; all threads of the block must call, as ours do.

    A barrier of the warp alone would be truer, but a thread that fails would leave the others waiting for
    ever: the simulator only knows how to end threads that wait in its own barrier.
    """
    thread: Anything = threading.current_thread()
    lanes = module.__dict__.setdefault("lanes", {})
    lanes[thread.thread_id] = value
    thread.syncthreads()
    other = lanes[thread.thread_id ^ distance]
    thread.syncthreads()
    return other


def _shared_array(shared: Anything, shape: Anything, dtype: Anything) -> Anything:
    """One array for each line of source that asks, as in the simulator, but made by one thread only."""
    caller = sys._getframe(1)
    key = (caller.f_code, caller.f_lineno, dtype)
    return shared._allocations.setdefault(key, np.empty(shape, dtype))
