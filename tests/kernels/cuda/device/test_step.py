"""Whole training steps on the device: a tiny network against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcsim.engine.fast import FastEngine
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run
from pcsim.experiments.verify import verify
from pcsim.kernels import reference
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
from pcsim.tracing import open_trace
from pcsim.tracing.recorder import Probe
from pcsim.training.data import Dataset


@pytest.mark.parametrize(
    ("order", "rule", "output", "beta"),
    [
        ("sequential", MQ(0.05), "softmax", 100.0),
        ("simultaneous", Adam(0.01), "sigmoid", 100.0),
        ("sequential", SGD(0.1), "identity", float("inf")),
    ],
    ids=["mq-softmax", "adam-sigmoid", "sgd-identity-hard"],
)
def test_two_training_steps(order, rule, output, beta, small_kernels, rng, close):
    """Through the program and the layers of pcsim: activities, errors, weights, magnitudes."""
    network, twin = (
        Network.dense(
            [5, 4, 6, 3], activation="tanh", output=output, proximal_step=beta, dtype="float64", seed=3
        )
        for _ in range(2)
    )
    program = Program.build(network, Schedule(order, iterations=2, step_size=0.1))
    host = FastEngine(program, network.layers(3, rule))
    device = FastEngine(program, twin.layers(3, rule, small_kernels))
    for _ in range(2):
        inputs, targets = rng.normal(size=(3, 5)), rng.uniform(size=(3, 3))
        host.step(inputs, targets)
        device.step(inputs, targets)
        for unit, other in zip(host.layers, device.layers):
            close(other.activity, unit.activity)
            close(other.error, unit.error)
            assert float(other.squared_error()) == pytest.approx(unit.squared_error(), rel=1e-12, abs=1e-15)
            if unit.connection is not None:
                close(other.weight, unit.weight)
                close(other.bias, unit.bias)
                assert float(other.update_magnitude) == pytest.approx(unit.update_magnitude, rel=1e-12)


GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.mark.parametrize(("case", "engine"), [("seq_mq", "fast"), ("seq_sgd_hard_clamp_tanh", "event")])
def test_golden_cases(case, engine):
    """`pcsim verify --backend cuda`: what users ask for by name, through either engine, to 1e-10."""
    deviation = verify(GOLDEN / f"{case}.npz", engine=engine, backend="cuda")
    assert deviation.largest <= 1e-10


def test_a_run_comes_home(small_kernels, tmp_path):
    """Train on the device with a trace and a probe: the network on the host holds what was learnt."""
    patterns, labels = np.eye(4)[np.arange(8) % 4], np.arange(8) % 4
    results = []
    for kernels in (small_kernels, reference):
        network = Network.dense([4, 5, 4], dtype="float64", seed=1)
        experiment = Experiment(
            name="eye",
            network=network,
            dataset=Dataset("eye", patterns, labels, patterns, labels, scale=1.0, classes=4),
            schedule=Schedule("sequential", 2, 0.1),
            rule=MQ(0.1),
            batch=4,
            epochs=1,
            record_every=1,
            probes=(Probe("all", ("activity", "error", "weight"), every=1, dtype="float64"),),
        )
        trace = tmp_path / f"{len(results)}.h5"
        summary = run(experiment, kernels=kernels, trace=trace)
        with open_trace(trace) as opened:
            table = opened.table("probes/all")
            probes = [table.read(name) for name in table.columns if name != "step"]
        parameters = [array for pair in network.parameters for array in pair]
        results.append((summary.test_loss, *probes, *parameters))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
