"""Networks in files: what comes back is what was saved, whatever wrote it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import pcsim
from pcsim.errors import NetworkError
from pcsim.kernels.cpu import CpuKernels

NETWORKS = {
    "dense": lambda: pcsim.Network.dense(
        [6, 5, 4, 3],
        activation="tanh",
        proximal_step=3,
        precision=[1, 2, 0.5, 1],
        activity_decay=[0, 0.1, 0.2, 0],
        dtype="float64",
        learn_output_from="label",
    ),
    "hard": lambda: pcsim.Network.dense([6, 3], output="identity", proximal_step=float("inf")),
    "convolutional": lambda: pcsim.Network.of(
        ["2x8x8", "conv 3 3x3/1 max 2", "conv 4 2x2/1 average 2", "dense 5", "dense 3"],
        activation="gelu",
        output="sigmoid",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name, tmp_path, rng):
    """All constants to the bit, and parameters that nobody shares."""
    network = NETWORKS[name]()
    network.save(tmp_path / "net.safetensors")
    back = pcsim.Network.load(tmp_path / "net.safetensors")
    assert back.traits == network.traits
    assert back.connections == network.connections
    assert back.learn_output_from == network.learn_output_from
    inputs = rng.normal(size=(4, network.sizes[0])).astype(network.dtype)
    assert np.array_equal(back.predict(inputs), network.predict(inputs))
    back.parameters[0][0][...] = 0
    assert network.parameters[0][0].any()


def test_weights_learnt_online(tmp_path, rng):
    """They lie column by column in memory, which safetensors would store as it lies."""
    network = pcsim.Network.dense([6, 5, 3])
    network.layers(1, pcsim.SGD(0.1), CpuKernels())
    assert not network.parameters[0][0].flags.c_contiguous
    network.save(tmp_path / "net.safetensors")
    back = pcsim.Network.load(tmp_path / "net.safetensors")
    assert np.array_equal(back.parameters[0][0], network.parameters[0][0])


@pytest.mark.parametrize("layers", ["[64, 16, 10]", '["1x8x8", "conv 4 3x3/1 max 2", "dense 10"]'])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_what_a_run_has_trained(layers, backend, tmp_path):
    """A checkpoint is a file of a network, too: from the command line to one's own data in a line."""
    over = [f"network.layers={layers}", "training.epochs=1"]
    experiment = pcsim.Experiment.from_model(pcsim.load_model("digits", over))
    pcsim.run(experiment, kernels=pcsim.make_kernels(backend, "float32"), checkpoint=tmp_path)
    back = pcsim.Network.load(tmp_path)
    assert back.traits == experiment.network.traits
    for ours, expected in zip(back.parameters, experiment.network.parameters, strict=True):
        assert np.array_equal(ours[0], expected[0])
        assert np.array_equal(ours[1], expected[1])


def test_other_tools_read_it(tmp_path):
    """Plain names, plain shapes."""
    network = NETWORKS["convolutional"]()
    network.save(tmp_path / "net.safetensors")
    arrays = load_file(tmp_path / "net.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == {
        f"{kind}_{layer}": array.shape
        for layer, pair in enumerate(network.parameters)
        for kind, array in zip(("weight", "bias"), pair, strict=True)
    }


def test_nothing_is_overwritten_unasked(tmp_path):
    """The file of before stays, and a folder that is none gets a line."""
    path, network = tmp_path / "net.safetensors", pcsim.Network.dense([3, 2])
    network.save(path)
    before = path.read_bytes()
    with pytest.raises(NetworkError, match="exists: expected a new name, or overwrite=True"):
        pcsim.Network.dense([3, 4]).save(path)
    assert path.read_bytes() == before
    pcsim.Network.dense([3, 4]).save(path, overwrite=True)
    assert pcsim.Network.load(path).sizes == (3, 4)
    with pytest.raises(NetworkError, match="cannot write"):
        network.save(tmp_path / "none" / "net.safetensors")


def damaged(path, change):
    """Write a network whose description is changed."""
    pcsim.Network.dense([3, 4, 2]).save(path)
    with safe_open(path, framework="numpy") as file:
        told = json.loads(file.metadata()["pcsim"])
    change(told["experiment"]["network"])
    save_file(load_file(path), path, {"pcsim": json.dumps(told)})


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("shapes"),
        lambda told: told.update(shapes=[[3], [5], [2]]),
        lambda told: told.update(connections=[{"kind": "dense"}] * 3),
        lambda told: told.update(output=[None, None, "loud"]),
        lambda told: told.update(mix=[]),
        lambda told: told.update(dtype="int8"),
        lambda told: told.update(connections=7),
    ],
)
def test_damaged_files(tmp_path, change):
    """One line, whatever the description says."""
    damaged(tmp_path / "net.safetensors", change)
    with pytest.raises(NetworkError, match="holds no network of pcsim, or is damaged: "):
        pcsim.Network.load(tmp_path / "net.safetensors")


def test_files_of_something_else(tmp_path):
    """No file, an empty one, another tool's weights, an empty folder."""
    (tmp_path / "empty").write_bytes(b"")
    save_file({"weight_0": np.zeros((2, 3))}, tmp_path / "theirs")
    for name in ("empty", "theirs"):
        with pytest.raises(NetworkError, match="holds no network of pcsim"):
            pcsim.Network.load(tmp_path / name)
    for name in ("missing", "."):
        with pytest.raises(NetworkError, match=r"is missing: expected a file from Network\.save or a check"):
            pcsim.Network.load(tmp_path / name)
