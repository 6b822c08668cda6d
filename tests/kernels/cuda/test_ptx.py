"""Compile every kernel for compute capability 8.0 and 9.0 and assemble it; no GPU is needed.

Python that the simulator runs need not compile, and a gradient that is meant to stay in registers may end up
in memory: ptxas says. `pytest -s` prints registers and shared memory.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the CUDA kernels need Numba")

from numba import cuda, float32, float64, int64, types  # noqa: E402
from numba.core import config  # noqa: E402

from pcsim.architecture import ConvLayer  # noqa: E402
from pcsim.kernels import cuda_apply, cuda_conv, cuda_hebbian, cuda_local, cuda_products  # noqa: E402
from pcsim.kernels.cuda_hebbian import FEW_ROWS, MANY_ROWS, Books  # noqa: E402

CAPABILITIES = [(8, 0), (9, 0)]
ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
TYPES = {"float32": (np.float32, float32), "float64": (np.float64, float64)}
F64, ONE = float64, float64[::1]
CONSTANTS, PLACE = (F64,) * 3, (ONE, int64)  # of a relaxation; where a block writes its part of a sum
each_capability = pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
each_type = pytest.mark.parametrize("kind", list(TYPES))


@dataclass(frozen=True)
class Compiled:
    """A kernel's PTX and what ptxas says of it."""

    ptx: str
    report: str

    @property
    def registers(self):
        return int(re.search(r"Used (\d+) registers", self.report)[1])

    @property
    def shared(self):
        found = re.search(r"(\d+) bytes smem", self.report)
        return int(found[1]) if found else 0

    def count(self, instruction):
        return len(re.findall(instruction, self.ptx))


@pytest.fixture
def assemble(monkeypatch, tmp_path):
    """Return what compiles a kernel for given argument types and assembles it."""
    if config.ENABLE_CUDASIM:
        pytest.skip("Numba's CUDA simulator cannot compile")
    ptxas = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if ptxas is None:
        pytest.skip("no ptxas on this machine: install the CUDA toolkit to check registers and spills")
    from numba.cuda.cudadrv.error import NvvmSupportError

    if not cuda.is_available():  # Numba asks the device for its capability when it compiles device functions
        from numba.cuda import dispatcher

        device = SimpleNamespace(compute_capability=CAPABILITIES[0])
        monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)

    def run(kernel, signature, capability):
        try:
            ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
        except NvvmSupportError as error:
            pytest.skip(f"Numba finds no CUDA toolkit to compile with: {error}")
        source = tmp_path / "kernel.ptx"
        source.write_text(ptx)
        architecture = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [ptxas, "-v", architecture, str(source), "-o", str(tmp_path / "kernel.cubin")]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        report = outcome.stdout + outcome.stderr
        if "Unsupported .version" in report:
            pytest.skip(f"this ptxas is older than the PTX that Numba writes: {report}")
        assert outcome.returncode == 0, report
        compiled = Compiled(ptx, report)
        registers, shared = compiled.registers, compiled.shared
        print(f"{kernel.py_func.__name__} {architecture[6:]}: {registers} registers, {shared} bytes shared")
        return compiled

    return run


def assert_in_registers(compiled):
    """No spills, no stack, no local memory, no calls."""
    for what in ("stack frame", "spill stores", "spill loads"):
        assert f"0 bytes {what}" in compiled.report, compiled.report
    assert "lmem" not in compiled.report
    assert compiled.count(r"\.local\b") == 0
    assert compiled.count(r"\bcall\b") == 0


OF_BOOKS = 5  # stores by the block that comes last: the mean |Δ|, n, v, and two zeros
BOOKS = types.NamedTuple([ONE, ONE, ONE, int64, F64, F64, F64, F64, ONE, int64], Books)


def hebbian_signature(number):
    return (*(number[::1],) * 4, int64, int64, BOOKS)


def adam_signature(number):
    return (*(number[::1],) * 4, int64, int64, *(number[::1],) * 4, ONE, F64, F64, F64, F64, BOOKS)


@each_capability
@each_type
@pytest.mark.parametrize("tile", [MANY_ROWS, FEW_ROWS], ids=["many rows", "few rows"])
def test_the_gradient_stays_in_registers(tile, kind, capability, assemble):
    """Stores to global memory: one for each weight of a thread and one for a bias; Adam two more of each.

    What a thread reads of the weight, of Adam's arrays a row of it, is asked for before the first is stored:
    else it would wait for memory once for each number.
    """
    number, numba_type = TYPES[kind]
    owned = tile.rows_each * tile.columns_each
    slices = 2 * tile.depth * (tile.rows + tile.columns)
    shared = (slices + 32) * np.dtype(kind).itemsize  # this slice and the next one, and sums
    for kernel, signature, arrays in (
        (cuda_hebbian.hebbian_kernel, hebbian_signature, 1),
        (cuda_hebbian.adam_kernel, adam_signature, 3),
    ):
        compiled = assemble(kernel("relu", number, tile), signature(numba_type), capability)
        assert_in_registers(compiled)
        assert compiled.count(r"\bst\.global") == arrays * (owned + 1) + OF_BOOKS
        asked = len(re.findall(r"\bld\.global", compiled.ptx.split("st.global")[0]))
        assert asked >= (owned if arrays == 1 else 3 * tile.columns_each)
        assert compiled.count(r"\b(?:atom|red)\.global\S*add") == 3
        assert compiled.count(r"\bshfl\.sync\.bfly\.b32") == 10 * (1 if kind == "float32" else 2)
        assert compiled.shared == shared
        # Two blocks an SM at the least: 65536 registers are all there are.
        assert compiled.registers * tile.count <= 65536 // 2


@each_capability
@each_type
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_sample_is_one_pass(activation, kind, capability, assemble):
    """Each weight is read once and written once; a thread asks for all of its own before it stores one."""
    number, numba_type = TYPES[kind]
    kernel = cuda_hebbian.one_sample_kernel(activation, number)
    compiled = assemble(kernel, hebbian_signature(numba_type), capability)
    assert_in_registers(compiled)
    owned = cuda_hebbian.ONE_SAMPLE_ROWS
    assert compiled.count(r"\bst\.global") == owned + 1 + OF_BOOKS
    asked = len(re.findall(r"\bld\.global", compiled.ptx.split("st.global")[0]))
    assert asked >= 2 * owned  # an error for each weight
    assert kind == "float64" or compiled.count(r"\b(?:mul|fma)\S*\.f64") == 3  # v is settled, once
    blocks = 4 if kind == "float32" else 2  # of an SM
    assert compiled.registers * cuda_hebbian.ONE_SAMPLE_THREADS <= 65536 // blocks


def product_signatures(numba_type):
    """The arguments of a prediction, of feedback, and of feedback that is used at once."""
    vector, extents = numba_type[::1], (int64,) * 3
    back = types.NamedTuple([vector, F64], cuda_products.Back)
    relaxing = types.NamedTuple([F64, *(vector,) * 3, *CONSTANTS, *PLACE], cuda_products.Relaxing)
    return (vector,) * 4 + extents, (vector, vector, *extents, back), (vector, vector, *extents, relaxing)


@each_capability
@each_type
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("samples", [1, 32, 64])
def test_products(samples, activation, kind, capability, assemble):
    """Sums stay in registers, and nothing is counted in 64 bits but the bytes of an address.

    Between its slices a tile must not wait for a whole block, but for its own warp.
    """
    number, numba_type = TYPES[kind]
    up, down, used = product_signatures(numba_type)
    shape = samples, 1024
    plans = (
        (cuda_products.predict_plan(activation, number, shape), up),
        (cuda_products.feedback_plan(number, shape), down),
        (cuda_products.feedback_plan(number, shape, activation=activation), used),
    )
    for plan, signature in plans:
        compiled = assemble(plan.kernel, signature, capability)
        assert_in_registers(compiled)
        assert compiled.count(r"\b(?:div|rem)\.[su]64") == 0
        assert compiled.registers * plan.block[0] * plan.block[1] <= 65536
        if samples > 1:
            assert compiled.count(r"\bbar\.warp\.sync") >= 1
            assert compiled.count(r"\bbar\.sync") <= 4  # for what the warps have summed, and ‖e‖²
        if kind == "float32":
            assert compiled.count(r"\b(?:add|sub|mul|fma|div|rcp|sqrt)\S*\.f64") == 0


@each_capability
@each_type
def test_a_gradient_is_applied_in_one_pass(kind, capability, assemble):
    """Each array is read once and written once, by a way for weights and another one for biases.

    Loads beside them are those of v, or of Adam's two corrections.
    """
    number, numba_type = TYPES[kind]
    vectors, is_double = (numba_type[::1],) * 4, kind == "float64"
    for kernel, signature, loads, stores in (
        (cuda_apply.apply_kernel(number), (*vectors, BOOKS), 2 * 2 + 1, 2),
        (
            cuda_apply.apply_adam_kernel(number),
            (*vectors, *vectors, *(ONE, *(F64,) * 4, BOOKS)),
            2 * 4 + 2,
            2 * 3,
        ),
    ):
        compiled = assemble(kernel, signature, capability)
        assert_in_registers(compiled)
        loads, stores = loads + 3, stores + OF_BOOKS  # n, and v twice, by the block that comes last
        assert (compiled.count(r"\bld\.global"), compiled.count(r"\bst\.global")) == (loads, stores)
        assert compiled.count(r"\b(?:atom|red)\.global\S*add") == 3
        assert is_double or compiled.count(r"\b(?:mul|fma)\S*\.f64") == 3  # the last block's: v is settled
        assert is_double or compiled.count(r"\bsqrt\S*\.f64") == 0


@each_capability
@each_type
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_relax_is_one_pass(activation, kind, capability, assemble):
    """Each array is read once and written once, and no more: activity, error, feedback and prediction.

    Two stores an element and one a block, for the sum of squares.
    """
    number, numba_type = TYPES[kind]
    vectors = (numba_type[::1],)
    compiled = assemble(
        cuda_local.relax_and_compare_kernel(activation, number), vectors * 4 + CONSTANTS + PLACE, capability
    )
    assert_in_registers(compiled)
    assert (compiled.count(r"\bld\.global"), compiled.count(r"\bst\.global")) == (4, 3)
    alone = assemble(cuda_local.relax_kernel(activation, number), vectors * 3 + CONSTANTS, capability)
    assert_in_registers(alone)
    assert (alone.count(r"\bld\.global"), alone.count(r"\bst\.global")) == (3, 1)


@each_type
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_outputs(output, kind, assemble):
    """Softmax, clamp and error in one kernel; the energy in another."""
    number, numba_type = TYPES[kind]
    matrices = (numba_type[:, ::1],)
    signature = matrices * 4 + (F64, *PLACE)
    assert_in_registers(assemble(cuda_local.output_kernel(output, number), signature, (8, 0)))
    signature = matrices * 3 + (F64, *PLACE)
    assert_in_registers(assemble(cuda_local.output_energy_kernel(output, number), signature, (8, 0)))


@each_type
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_other_kernels_compile(activation, kind, assemble):
    """All activations in the kernels that stage, fire and sum."""
    number, numba_type = TYPES[kind]
    vector = numba_type[::1]
    assemble(cuda_local.rates_kernel(activation, number), (vector, vector), (8, 0))
    assemble(cuda_local.squared_norm_kernel(activation, number), (vector, *PLACE), (8, 0))
    assemble(cuda_local.whole_norm_kernel(activation, number), (vector, ONE), (8, 0))
    assemble(cuda_local.compare_kernel(number), (vector, vector, vector, *PLACE), (8, 0))
    staged = cuda_hebbian.hebbian_kernel(activation, number, MANY_ROWS)
    assert_in_registers(assemble(staged, hebbian_signature(numba_type), (8, 0)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_kernels_do_not_compute_in_float64(activation, assemble):
    """A bare literal would: consumer GPUs are 32 to 64 times slower there.

    Constants arrive as float64 and are converted; no more than that.
    """
    vector = float32[::1]
    kernel = cuda_local.relax_and_compare_kernel(activation, np.float32)
    compiled = assemble(kernel, (*(vector,) * 4, *CONSTANTS, *PLACE), (8, 0))
    assert compiled.count(r"\b(?:add|sub|mul|fma|div|rcp|sqrt)\S*\.f64") == 0
    # v is settled in float64, by one thread of all: two quotients, and ρ v + (1 − ρ) mean.
    learning = assemble(
        cuda_hebbian.hebbian_kernel(activation, np.float32, MANY_ROWS), hebbian_signature(float32), (8, 0)
    )
    assert learning.count(r"\b(?:mul|fma)\S*\.f64") == 3
    assert learning.count(r"\bdiv\S*\.f64") == 3
    assert learning.count(r"\bsqrt\S*\.f64") == 0


@each_capability
def test_bookkeeping_kernels_compile(capability, assemble):
    """One thread each, in float64."""
    assemble(cuda_hebbian.corrections_kernel(), (ONE, ONE, F64, F64), capability)


@each_type
@pytest.mark.parametrize("pool", [("none", 1), ("max", 2), ("average", 2)], ids=str)
def test_convolutions_compile(pool, kind, assemble):
    """Windows out and back, f and pooling on the way up, the gate and its winners on the way down.

    None of them divides in 64 bits, which a signed number or a plain constant in an index would bring back:
    it takes more instructions than all the rest, and LLVM writes it as the upper half of a product.
    """
    number, numba_type = TYPES[kind]
    layer, two = ConvLayer((3, 12, 12), 8, 3, 2, *pool), (numba_type[::1],) * 2
    for kernel, signature in (
        (cuda_conv.patches_kernel(layer), two),
        (cuda_conv.fold_kernel(layer, number), two),
        (cuda_conv.fire_kernel(layer, "relu", number), two),
        (cuda_conv.delta_kernel(layer, "relu", number), (*two, numba_type[::1], F64)),
    ):
        compiled = assemble(kernel, signature, (8, 0))
        assert_in_registers(compiled)
        assert compiled.count(r"\b(?:div|rem|mul\.hi)\.[su]64") == 0
