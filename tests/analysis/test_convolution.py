"""Angles to backprop through convolutions, against torch's autograd, from the trace alone."""

import numpy as np
import pytest
import torch

import pcsim
from pcsim import analysis
from pcsim.tracing import open_trace

BATCH = 6
FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu}
POOLS = {"max": torch.nn.functional.max_pool2d, "average": torch.nn.functional.avg_pool2d}
NETWORKS = {
    "strides": ["2x8x9", "conv 3 3x3/2", "conv 4 2x2/1", "dense 7", "dense 5"],
    "pools": ["1x13x12", "conv 3 3x3/1 max 2", "conv 4 2x2/2 average 2", "dense 5"],
}


def gradients(network, activation, inputs, targets):
    """Return torch's −∂Loss/∂W before the step."""
    weights = [torch.tensor(weight, requires_grad=True) for weight, _ in network.parameters]
    state = torch.tensor(inputs)
    for layer, (connection, weight) in enumerate(zip(network.connections, weights, strict=True)):
        bias, said = torch.tensor(network.parameters[layer][1]), connection.describe()
        if said["kind"] == "dense":
            below = network.connections[layer - 1].describe()["kind"] if layer else "input"
            rates = FUNCTIONS[activation](state) if below == "dense" else state
            state = rates @ weight.T + bias
            continue
        image = state.reshape(len(inputs), *connection.layer.image)
        made = FUNCTIONS[activation](torch.nn.functional.conv2d(image, weight, bias, said["stride"]))
        if said["pool"] != "none":
            made = POOLS[said["pool"]](made, said["pool_size"])
        state = made.flatten(1)
    loss = -(torch.tensor(targets) * torch.log_softmax(state, 1)).sum(1).mean()
    loss.backward()
    return [-weight.grad.numpy() for weight in weights]


@pytest.mark.parametrize("activation", sorted(FUNCTIONS))
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_gradients_are_torchs(tmp_path, layers, activation):
    """Windows, strides, both pools, and the dense layers above them: norms and angle to 1e-9."""
    rng = np.random.default_rng(5)
    network = pcsim.Network.of(layers, activation=activation, dtype="float64", seed=3)
    shape, labels = (12, network.sizes[0]), rng.integers(0, 5, 12)
    arrays = {"x_train": rng.normal(size=shape), "y_train": labels, "x_test": np.zeros(shape)}
    np.savez(tmp_path / "data.npz", **arrays, y_test=labels)
    everything = "activity", "weight", "update", "bias", "bias_update"
    experiment = pcsim.Experiment(
        network,
        pcsim.load_dataset("npz", path=str(tmp_path / "data.npz")),
        pcsim.SGD(0.2),
        pcsim.Schedule(iterations=3, step_size=0.2),
        batch=BATCH,
        shuffle=False,
        probes=(pcsim.Probe("all", everything, None, BATCH, 1, "float64"),),
    )
    data = experiment.dataset
    wanted = gradients(
        network,
        activation,
        data.inputs(np.arange(BATCH), "float64"),
        data.targets(np.arange(BATCH), "float64"),
    )
    pcsim.run(experiment, kernels=pcsim.make_kernels("reference"), trace=tmp_path / "trace.h5")
    found = analysis.backprop_angles(tmp_path / "trace.h5").isel(step=0)
    with open_trace(tmp_path / "trace.h5") as trace:
        for layer, gradient in enumerate(wanted):
            update = trace.table("probes/all").read(f"update_{layer}", slice(1))[0]
            one, lengths = found.sel(connection=layer), (np.linalg.norm(update), np.linalg.norm(gradient))
            assert one.update_norm.item() == pytest.approx(lengths[0], rel=1e-9)
            assert one.gradient_norm.item() == pytest.approx(lengths[1], rel=1e-9)
            cosine = np.vdot(update, gradient) / np.prod(lengths)
            assert np.cos(np.radians(one.angle.item())) == pytest.approx(cosine, rel=1e-9)
