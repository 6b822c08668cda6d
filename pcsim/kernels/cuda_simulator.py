"""What Numba's CUDA simulator lacks for our kernels; nothing of this exists on a GPU.

The simulator (NUMBA_ENABLE_CUDASIM=1) runs each CUDA thread as a Python thread, without warps. Kernels stay
as they are: the missing pieces are put in here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import config as numba_config

Anything = Any
config: Any = numba_config  # its attributes are made when it is imported


def simulated() -> bool:
    """Return whether Numba's CUDA simulator stands in for a GPU in this process."""
    return bool(config.ENABLE_CUDASIM)


def complete() -> None:
    """Teach the simulator warp shuffles and give it a shared memory that threads cannot race for."""
    from numba.cuda.simulator import kernelapi

    inside: Any = kernelapi
    inside.FakeCUDAModule.shfl_xor_sync = _shuffle
    inside.FakeCUDAModule.syncwarp = _wait  # of all warps: each of ours waits as often as the others
    inside.FakeCUDAShared.array = _shared_array


def as_kernels_see_it(cuda: Anything) -> Anything:
    """Return `numba.cuda`, or in the simulator what stands for it inside and outside of kernels.

    The simulator swaps `cuda` in a module while a function of it runs, which threads that call a device
    function of another module do at the same time, and undo for each other. This one is never swapped.
    """
    return _RunningKernel(cuda) if simulated() else cuda


class SimulatedStream:
    """The order of all work: it is done at once, or noted down as a CUDA graph would while one is captured.

    What a graph notes is fixed: kernels, arrays and numbers are those of the capture whenever it is replayed.
    """

    def __init__(self) -> None:
        self._noted: list[Callable[[], None]] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do a piece of work, or note it down."""
        if self._noted is None:
            work()
        else:
            self._noted.append(work)

    def wait(self) -> None:
        """Wait for all work to be done, as the host does before it looks at results.

        Raises:
            RuntimeError: a graph is being captured; CUDA forbids it, too, as there is nothing to see yet.
        """
        if self._noted is not None:
            raise RuntimeError("the host waits for the device while a graph is captured: not permitted")

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Note down what `step` queues; return what does it."""
        self.wait()
        noted: list[Callable[[], None]] = []
        self._noted = noted
        try:
            step()
        finally:
            self._noted = None

        def replay() -> None:
            self.wait()
            for work in noted:
                work()

        return replay


class _RunningKernel:
    """`cuda` as the kernel that is running sees it."""

    def __init__(self, outside: Anything) -> None:
        from numba.cuda.simulator import kernel

        inside: Anything = kernel
        self._kernel, self._outside = inside, outside

    def __getattr__(self, name: str) -> Anything:
        return getattr(self._kernel._get_kernel_context() or self._outside, name)


def _shuffle(module: Anything, mask: int, value: Anything, distance: int) -> Anything:
    """Stand in for shfl_xor_sync by a barrier; all threads of the block must call, as ours do.

    A barrier of the warp alone would be truer, but a thread that fails would leave the others waiting for
    ever: the simulator only knows how to end threads that wait in its own barrier. Values lie in two places
    in turn: nobody is two shuffles ahead of one who still reads.
    """
    thread: Anything = threading.current_thread()
    thread.turn = turn = not getattr(thread, "turn", False)
    lanes = module.__dict__.setdefault("lanes", {})
    lanes[turn, thread.thread_id] = value
    thread.syncthreads()
    return lanes[turn, thread.thread_id ^ distance]


def _wait(module: Anything) -> None:
    thread: Anything = threading.current_thread()
    thread.syncthreads()


def _shared_array(shared: Anything, shape: Anything, dtype: Anything) -> Anything:
    """One array for each line of source that asks, as in the simulator, but made by one thread only."""
    caller = sys._getframe(1)
    key = (caller.f_code, caller.f_lineno, dtype)
    return shared._allocations.setdefault(key, np.empty(shape, dtype))
