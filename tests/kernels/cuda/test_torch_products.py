"""The product provider of the GPU, on torch's CPU tensors: what the simulator cannot reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcsim.errors import ConfigurationError

numba = pytest.importorskip("numba", reason="the CUDA kernels need Numba")


@pytest.fixture
def products():
    from pcsim.kernels.cuda_arrays import TorchProducts

    return TorchProducts("cpu")


def test_predict_and_feedback(products, rng):
    """The bias goes into the product; a precision other than 1 does not read what `out` held."""
    rates, weight, bias, error = (rng.normal(size=shape) for shape in ((7, 5), (3, 5), (3,), (7, 3)))
    given = []
    for host in (rates, weight, bias, error):
        given.append(products.zeros(host.shape, host.dtype))
        given[-1][...] = host
    up, down = products.zeros((7, 3), "float64"), products.zeros((7, 5), "float64")
    products.predict(*given[:3], up)
    np.testing.assert_allclose(up, rates @ weight.T + bias, rtol=1e-12)
    for precision in (1, 2.5):
        down.tensor.fill_(torch.nan)
        products.feedback(given[3], given[1], precision, down)
        np.testing.assert_allclose(down, precision * error @ weight, rtol=1e-12)


def test_hebbian(products, rng):
    """Means over the mini-batch, not sums; what lay in the arrays before is not read."""
    error, rates = rng.normal(size=(7, 3)), rng.normal(size=(7, 5))
    given = [products.zeros(host.shape, host.dtype) for host in (error, rates)]
    for array, host in zip(given, (error, rates)):
        array[...] = host
    found = products.zeros((3, 5), "float64"), products.zeros((3,), "float64")
    for array in found:
        array.tensor.fill_(torch.nan)
    products.hebbian(*given, *found)
    np.testing.assert_allclose(found[0], error.T @ rates / 7, rtol=1e-12)
    np.testing.assert_allclose(found[1], error.mean(axis=0), rtol=1e-12)


def test_arrays_are_copied_and_converted(products):
    """From the host, from another array, and back; a copy is no view."""
    one, other = (products.zeros((2, 3), "float32") for _ in range(2))
    one[...] = np.arange(6.0).reshape(2, 3)
    other[...] = one
    snapshot = other.copy()
    one[...] = np.zeros((2, 3))
    assert snapshot.tolist() == other.copy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert snapshot.dtype == np.float32
    assert (len(other), other.shape, other.size) == (2, (2, 3), 6)


def test_who_multiplies_has_a_name(products):
    """A trace says it: cuBLAS rounds by the GPU that it runs on."""
    assert products.name == "torch, on cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_in_one_line():
    """A user who asks for the backend without a GPU learns what to do."""
    from pcsim.kernels.cuda_arrays import TorchProducts

    with pytest.raises(ConfigurationError, match="finds no GPU; use another backend"):
        TorchProducts()
