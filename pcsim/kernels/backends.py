"""The kernels by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pcsim.errors import ConfigurationError, nearest
from pcsim.kernels import Kernels, reference

BACKENDS = ("reference", "cpu", "cuda")


def make_kernels(
    name: str, dtype: str = "float32", threads: int = 1, say: Callable[[str], None] = lambda text: None
) -> Kernels:
    """Return the kernels of a backend, compiled and ready.

    With "cpu" BLAS, OpenMP and torch keep to one thread, in the whole process and from now on: their threads
    wait by spinning, and would take the processors from ours between two calls.

    Args:
        name: "reference" (NumPy), "cpu" (the fastest products at hand and compiled loops) or "cuda" (a GPU).
        dtype: type of numbers that the compiled loops must be ready for.
        threads: how many threads share a large product; the reference leaves that to NumPy.
        say: is told what takes long.

    Raises:
        ConfigurationError: an unknown backend, fewer than one thread, no GPU, or a compiler that is off.
    """
    check_backend(name)
    if threads < 1:
        raise ConfigurationError(f"threads = {threads}: expected 1 or more")
    if name == "reference":
        return reference
    if name == "cuda":
        from pcsim.kernels.cuda import CudaKernels

        found = cast("Kernels", CudaKernels.ready())  # its arrays are `DeviceArray`
        say("kernels for the GPU are compiled in the first training step, which takes some seconds")
        return found
    from pcsim.kernels.cpu import CpuKernels

    _compile(dtype, say)
    return CpuKernels(threads)


def check_backend(name: str) -> None:
    """Look whether a backend can be had, before anything begins that would need it.

    Raises:
        ConfigurationError: an unknown one, no GPU, or a compiler that is off.
    """
    if name not in BACKENDS:
        raise ConfigurationError(f"backend '{name}': {nearest(name, BACKENDS)}")
    if name == "cuda":
        from pcsim.kernels.cuda import CudaKernels

        CudaKernels()
    if name == "cpu":
        import numba

        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            raise ConfigurationError(
                "backend 'cpu': NUMBA_DISABLE_JIT is set, but it must be compiled: "
                "unset that, or use 'reference'"
            )


def _compile(dtype: str, say: Callable[[str], None]) -> None:
    """Compile the loops, or load them from disk; a marker beside them tells whether they are all there."""
    from pcsim.kernels import blocked, conv_loops, elementwise, loops, mail, passes
    from pcsim.kernels.compiler import code_folder

    folder = code_folder()
    marker = None if folder is None else folder / f"compiled-{dtype}"
    known = marker is not None and marker.exists()
    if not known:
        say("compiling kernels, once on this machine …")
    start = time.perf_counter()
    mail.compile_all()
    loops.compile_all(dtype)
    elementwise.compile_all(dtype)
    blocked.compile_all(dtype)
    conv_loops.compile_all(dtype)
    passes.compile_all(dtype)
    if known:
        return
    say(f"compiled kernels in {time.perf_counter() - start:.1f} s")
    if marker is not None:
        with suppress(OSError):  # the disk is full: it will be said again next time
            marker.touch()
