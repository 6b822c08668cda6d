"""How far float32 on the fast kernels strays from float64 on the reference."""

import numpy as np
import pytest

import pcsim


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_hundred_steps(order, batch):
    """After 100 training steps the weights agree to 1e-4 of their size."""
    weights = {}
    for dtype, backend in (("float32", "cpu"), ("float64", "reference")):
        network = pcsim.Network.dense([30, 40, 40, 10], dtype=dtype, seed=5)
        program = pcsim.Program.build(network, pcsim.Schedule(order))
        kernels = pcsim.make_kernels(backend, dtype)
        engine = pcsim.FastEngine(program, network.layers(batch, pcsim.MQ(1e-4), kernels))
        rng = np.random.default_rng(0)
        for _ in range(100):
            inputs, labels = rng.random((batch, 30)), rng.integers(0, 10, batch)
            engine.step(inputs.astype(dtype), np.eye(10, dtype=dtype)[labels])
        weights[dtype] = [weight for weight, _ in network.parameters]
    for ours, exact in zip(weights["float32"], weights["float64"], strict=True):
        assert np.linalg.norm(ours - exact) <= 1e-4 * np.linalg.norm(exact)
