"""The kernels by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import cast

from pcsim.errors import ConfigurationError, nearest
from pcsim.kernels import Kernels, reference

BACKENDS = ("reference", "cpu", "cuda")


def make_kernels(
    name: str, dtype: str = "float32", threads: int = 1, say: Callable[[str], None] = lambda text: None
) -> Kernels:
    """Return the kernels of a backend, compiled and ready.

    Args:
        name: "reference" (NumPy), "cpu" (the fastest products at hand and compiled loops) or "cuda" (a GPU).
        dtype: type of numbers that the compiled loops must be ready for.
        threads: how many threads share a large product; the reference leaves that to NumPy.
        say: is told what takes long.

    Raises:
        ConfigurationError: an unknown backend, fewer than one thread, or no GPU.
    """
    if name not in BACKENDS:
        raise ConfigurationError(f"backend '{name}': {nearest(name, BACKENDS)}")
    if threads < 1:
        raise ConfigurationError(f"threads = {threads}: expected 1 or more")
    if name == "reference":
        return reference
    if name == "cuda":
        from pcsim.kernels.cuda import CudaKernels

        say("kernels for the GPU are compiled in the first training step, which takes some seconds")
        return cast("Kernels", CudaKernels())  # its arrays are `DeviceArray`
    from pcsim.kernels.cpu import CpuKernels

    _compile(dtype, say)
    return CpuKernels(threads)


def _compile(dtype: str, say: Callable[[str], None]) -> None:
    """Compile the loops, or load them from disk; a marker tells whether this machine has done it before."""
    from pcsim.kernels import blocked, conv_loops, loops, mail, passes, tiles
    from pcsim.kernels.products import cache_folder

    modules = (blocked, conv_loops, loops, mail, passes, tiles)
    age = max(Path(str(module.__file__)).stat().st_mtime_ns for module in modules)
    marker = cache_folder() / f"compiled-{metadata.version('numba')}-{dtype}-{age}"
    known = marker.exists()
    if not known:
        say("compiling kernels, once on this machine …")
    start = time.perf_counter()
    loops.compile_all(dtype)
    blocked.compile_all(dtype)
    conv_loops.compile_all(dtype)
    passes.compile_all(dtype)
    if known:
        return
    say(f"compiled kernels in {time.perf_counter() - start:.1f} s")
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:  # a read-only home: it will be said again next time
        pass
