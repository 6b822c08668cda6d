"""Tiles for processors other than the one at hand: right, and within their registers."""

import os
import platform
import subprocess
import sys

import llvmlite.binding
import pytest

PROCESSORS = {  # name and features that Numba is told to compile for, width of a vector in bytes, register
    "AVX2": ("haswell", "+avx,+avx2,+fma", 32, "ymm"),
    "AVX": ("sandybridge", "+avx", 32, "ymm"),
    "SSE": ("generic", "", 16, "xmm"),
}
MULTIPLY = r'''
import re
import numba
import numpy as np
from pcsim.kernels import blocked, compiler

rng = np.random.default_rng(0)
lanes = compiler.VECTOR_BYTES // 4
tiles = ((4, blocked.WIDE, blocked.four_by_wide), (blocked.TALL, 2, blocked.tall_by_two))
print(compiler.VECTOR_BYTES)

def show(function, products):
    """Print what a loop of so many products moves between registers and memory, and how it multiplies."""
    code = next(iter(function.inspect_asm().values())).splitlines()
    starts = {line.split(":")[0]: at for at, line in enumerate(code) if re.match(r"\.\w+:", line)}
    loops = []
    for at, line in enumerate(code):
        jump = re.match(r"\s+j\w+\s+(\.\w+)", line)
        if jump and starts.get(jump[1], at) < at:
            loops.append(code[starts[jump[1]] : at])
    fused = [line for line in code if "fmadd" in line]
    count = [sum("mulps" in one or "fmadd" in one for one in loop) for loop in loops]
    whole = [loop for loop, found in zip(loops, count) if found >= products]
    moves = [sum("REGISTER" in one and "(%rsp)" in one for one in loop) for loop in whole]
    print(min(moves), bool(fused), any("fmaf" in line for line in code))

for rows, vectors, tile in tiles:
    width = vectors * lanes

    @numba.njit
    def multiply(left, right, out, columns):
        sizes, two = (0, width, len(left) // rows), np.float32(2)
        return tile(left, 0, 1, rows, right, *sizes, out, 0, width, columns, two)

    for columns in (width, width - 1):
        left, right = (rng.standard_normal((9, n)).astype("f4") for n in (rows, width))
        out, product = np.ones((rows, width), "f4"), left.T @ right
        norm = multiply(left.ravel(), right.ravel(), out.reshape(-1), columns)
        np.testing.assert_allclose(out[:, :columns], 1 + 2 * product[:, :columns], rtol=1e-4, atol=1e-4)
        assert (out[:, columns:] == 1).all()
        np.testing.assert_allclose(norm, abs(product[:, :columns]).sum(), rtol=1e-4)
    show(multiply, rows * vectors)

width, inputs = blocked.WIDE * lanes, blocked.TOGETHER * blocked.WIDE * lanes

@numba.njit
def learn(values, places, counts, panels, out):
    two = np.float32(2)
    return blocked.four_of_active(values, places, counts, 0, 6, panels, 0, 6 * width, out, 0, inputs, 0, two)

values, panels = rng.standard_normal((4, 6)).astype("f4"), rng.standard_normal((2, 6, width)).astype("f4")
samples = rng.integers(6, size=(4, 6))  # listed in any order, some of them twice
out, counts = np.ones((4, inputs), "f4"), np.array([2, 6, 4, 2], "i4")
norms = learn(values.ravel(), (samples * width).astype("i4").ravel(), counts, panels.ravel(), out.reshape(-1))
used = [(values[row, :count], samples[row, :count]) for row, count in enumerate(counts)]
product = np.array([[value @ panel[sample] for value, sample in used] for panel in panels])
np.testing.assert_allclose(out, 1 + 2 * np.hstack(product), rtol=1e-4, atol=1e-4)
np.testing.assert_allclose(norms, abs(product).sum((1, 2)), rtol=1e-4)
show(learn, 2 * blocked.TOGETHER * blocked.WIDE)
'''


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 processor")
@pytest.mark.parametrize("name", PROCESSORS)
def test_other_processors(name, tmp_path):
    """Numba may be told to compile for another processor than this; the machine code shows what it would do.

    A vector as wide as this processor's would be taken apart, sums beyond the registers wait in memory in
    each turn, and without an instruction for it "fma" is a function call a number.
    """
    processor, features, width, register = PROCESSORS[name]
    here = llvmlite.binding.get_host_cpu_features()
    if not all(here.get(feature.lstrip("+")) for feature in features.split(",") if feature):
        pytest.skip(f"this processor has no {name}")
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path)}
    code = MULTIPLY.replace("REGISTER", register)
    outcome = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    told = outcome.stdout.split("\n")
    assert told[0] == str(width)
    for line in told[1:4]:
        assert line == f"0 {'fma' in features} False"
