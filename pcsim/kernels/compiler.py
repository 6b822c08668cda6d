"""How our loops are compiled: for which processor, and where the machine code is kept.

Numba keeps the code of a function until the function's own file changes. Code of other files is linked into
it, though, and would go on being run after an update of those. So all our code is kept in a folder that is
named by everything it is made from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import llvmlite
import numba
from numba.core.registry import cpu_target

from pcsim.kernels.cache import cache_folder, temporary_folder

Function = TypeVar("Function", bound=Callable[..., Any])

PACKAGE = Path(__file__).parents[1]
# What compiled functions are made from; a test finds out whether one is missing.
SOURCES = (
    "engine/mesh/kernels.py",
    "engine/mesh/plan.py",
    "engine/timing_kernels.py",
    "experiments/bench/exchange.py",
    "kernels/__init__.py",
    "kernels/blocked.py",
    "kernels/compiler.py",
    "kernels/conv_loops.py",
    "kernels/crew.py",
    "kernels/elementwise.py",
    "kernels/loops.py",
    "kernels/mail.py",
    "kernels/passes.py",
    "kernels/sparse.py",
    "kernels/tiles.py",
    "kernels/vectors.py",
)
FOLDER = "pcsim-code-"  # before the fingerprint
KEPT = 30 * 24 * 3600.0  # seconds since its last use for which a folder of other code is left alone

# Numba compiles for this processor, which is not the one here if the user has said so.
TRIPLE, PROCESSOR, _FEATURES = cast("tuple[str, str, str]", cpu_target.target_context.codegen().magic_tuple())
FEATURES = frozenset(name[1:] for name in _FEATURES.split(",") if name.startswith("+"))
X86 = TRIPLE.startswith(("x86_64", "i686"))
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
VECTOR_REGISTERS = 16 if X86 and VECTOR_BYTES < 64 else 32

_one_at_a_time = threading.Lock()


def jit(
    function: Function,
    fastmath: set[str] | bool = False,
    error_model: Literal["python", "numpy"] = "python",
) -> Function:
    """Compile a function when it is first called; code from disk is taken if there is some.

    Args:
        function: needs no Python when it runs.
        fastmath: which freedoms LLVM may take.
        error_model: what a division by zero does: raise, or give infinity.
    """
    with _one_at_a_time:
        before, folder = numba.config.CACHE_DIR, code_folder()  # type: ignore[attr-defined]
        numba.config.CACHE_DIR = str(folder or "")  # type: ignore[attr-defined]
        try:  # where code is kept is decided here; the user's own functions go where the user wants
            compile_later = numba.njit(
                cache=folder is not None, nogil=True, fastmath=fastmath, error_model=error_model
            )
            return cast("Function", compile_later(function))
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


@cache
def code_folder() -> Path | None:
    """Return where our machine code is kept; nowhere if nothing can be written."""
    for parent in _parents():
        folder = parent / f"{FOLDER}{fingerprint()}"
        try:
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)  # it is in use
        except OSError:
            continue
        if new:
            remove_old(parent)
        return folder
    return None


def fingerprint() -> str:
    """Return what tells code apart: its sources, the compiler, and the processor it is for."""
    digest = hashlib.sha256()
    versions = numba.__version__, llvmlite.__version__
    for part in (*versions, TRIPLE, PROCESSOR, _FEATURES, str(VECTOR_BYTES)):
        digest.update(f"{part}\0".encode())
    for source in SOURCES:
        digest.update(source.encode() + b"\0" + (PACKAGE / source).read_bytes())
    return digest.hexdigest()[:16]


def remove_old(parent: Path) -> None:
    """Remove folders of other code that nobody has used for long; a process that runs has its code loaded."""
    for folder in parent.glob(f"{FOLDER}*"):
        try:
            unused = time.time() - folder.stat().st_mtime > KEPT
        except OSError:  # somebody else has removed it
            continue
        if unused:
            shutil.rmtree(folder, ignore_errors=True)


def _parents() -> Iterator[Path]:
    """List the places where code may be kept, the best one first."""
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    if given:
        yield Path(given)
    yield PACKAGE / "__pycache__"
    yield cache_folder()
    try:
        yield temporary_folder()
    except OSError:
        return
