"""`pcsim models`, `pcsim info MODEL.toml`, and that the shipped files are the published runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pcsim.analysis import backprop_angles
from pcsim.cli import app
from pcsim.config import load_model
from pcsim.errors import ConfigurationError, TraceError
from pcsim.experiments.experiment import Experiment, build_network
from pcsim.experiments.run import run
from pcsim.export.recorded import Recording
from pcsim.tracing.reader import open_trace

MODELS = Path(__file__).parents[2] / "models"
ADVISING = sorted(path for path in MODELS.glob("*.toml") if "learning={" in path.read_text())
DENSE, CONV = (3072, 1024, 1024, 1024, 10), (3072, 12544, 3200, 1024, 10)
AUTOENCODER = (3072, 1024, 256, 20, 256, 1024, 3072)
# File: sizes, data, T, ε, epochs, MQ's α, ρ, learns the output from; method.md's table of published networks.
PUBLISHED = {
    "svhn_dense": (DENSE, "svhn", 3, 0.05, 70, 3e-5, 0.9999, "activity"),
    "cifar10": (DENSE, "cifar-10", 3, 0.05, 110, 3e-5, 0.9999, "activity"),
    "svhn_conv": (CONV, "svhn", 3, 0.04, 45, 7e-5, 0.999, "label"),
    "cifar10_conv": (CONV, "cifar-10", 3, 0.04, 45, 2.2e-4, 0.999, "label"),
    "tiny_imagenet_conv": (
        (12288, 28800, 10816, 3200, 1024, 200),
        *("tiny-imagenet", 3, 0.05, 20, 1.2e-4, 0.999, "label"),
    ),
    "svhn_autoencoder": (AUTOENCODER, "svhn", 6, 0.035, 100, 1.6e-5, 0.9999, "activity"),
    "cifar10_autoencoder": (AUTOENCODER, "cifar-10", 6, 0.035, 100, 1.2e-5, 0.9999, "activity"),
}


def call(*arguments: str) -> str:
    """Run a command in this process and return what it printed."""
    outcome = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert outcome.exit_code == 0
    return outcome.stdout


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_constants(name):
    """A wrong constant here would be found only after a night of training."""
    model = load_model(MODELS / f"{name}.toml")
    network, schedule, learning = model.network, model.schedule, model.learning
    assert (
        network.architecture.sizes,
        model.data.name,
        schedule.iterations,
        schedule.step_size,
        model.training.epochs,
        learning.rate,
        learning.decay,
        network.learn_output_from,
    ) == PUBLISHED[name]
    assert (model.training.batch, schedule.order, schedule.step_decay) == (64, "sequential", "harmonic")
    assert (learning.rule, learning.minimum_rate, learning.r) == ("mq", 1e-3, 1e-6)
    assert (network.proximal_step, network.clamp, network.activation) == (100, "soft", "relu")
    reconstructs = name.endswith("autoencoder")
    assert model.data.target == ("input" if reconstructs else "label")
    assert network.output == ("sigmoid" if reconstructs else "softmax")


def test_figures():
    """Figure 4 has four hidden layers and Adam; its file and figure 5's are complete."""
    four, five = (load_model(MODELS / f"figure{n}.toml") for n in (4, 5))
    assert four.network.architecture.sizes == (3072, 1024, 1024, 1024, 1024, 10)
    assert (four.learning.rule, four.learning.rate, four.training.epochs) == ("adam", 5e-5, 45)
    assert five.network == load_model(MODELS / "cifar10_autoencoder.toml").network


@pytest.mark.parametrize("path", ADVISING, ids=lambda path: path.stem)
def test_commands_in_comments_work(path):
    """Every `--set 'learning={…}'` that a comment advises gives a valid model with that rule."""
    text = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    rules = re.findall(r"'(?:learning=)?(\{rule=\"(\w+)\"[^']*\})'", text)
    assert len(rules) == text.count("rule=") > 0
    for rule, name in rules:
        assert load_model(path, [f"learning={rule}"]).learning.rule == name


def test_models_lists_every_file_in_a_line():
    """Name and description, nothing cut off."""
    lines = call("models").splitlines()
    for path in MODELS.glob("*.toml"):
        line = next(line for line in lines if line.startswith(f"{path.stem} "))
        assert line.endswith(load_model(path).description)
    assert len(lines) == len(list(MODELS.glob("*.toml"))) + 1


def test_models_as_json(tmp_path):
    """For scripts, and of any folder."""
    (tmp_path / "one.toml").write_text((MODELS / "cifar10_conv.toml").read_text())
    (told,) = json.loads(call("models", str(tmp_path), "--json"))
    assert told["name"] == "one"
    assert told["shapes"][1] == [64, 14, 14]
    assert told["learning"]["rate"] == 2.2e-4


def test_models_of_an_empty_folder(tmp_path):
    """One line that says what to do."""
    with pytest.raises(ConfigurationError, match="no model files"):
        CliRunner().invoke(app, ["models", str(tmp_path)], catch_exceptions=False)


def test_info_shows_the_shapes_of_a_model():
    """Parameters and multiplications by hand: 64 · 75 + 64, times 14 · 14 places."""
    shown = call("info", str(MODELS / "cifar10_conv.toml"))
    assert all(text in shown for text in ("64×14×14", "128×64×5×5", "4,864", "941 k", "conv 3x3/2, relu"))
    told = json.loads(call("info", str(MODELS / "cifar10_conv.toml"), "--json"))
    assert told["connections"][0]["multiplications"] == 64 * 75 * 14 * 14
    assert sum(one["parameters"] for one in told["connections"]) == 515_210


def test_a_convolutional_run_leaves_a_whole_trace(tmp_path):
    """The demo learns; weights are recorded in their four dimensions, shapes in the attributes."""
    overrides = ["training.epochs=2", 'probe.all.record=["activity","weight","update","bias","message"]']
    model = load_model(MODELS / "digits_conv.toml", overrides)
    experiment = Experiment.from_model(model)
    summary = run(experiment, trace=tmp_path / "conv.h5")
    assert summary.test_accuracy > 0.7
    with open_trace(tmp_path / "conv.h5") as trace:
        described = trace.attributes["experiment"]["network"]
        assert described["shapes"] == [[1, 8, 8], [32, 3, 3], [10]]
        assert described["connections"][0] == {
            "kind": "conv",
            "kernel": 3,
            "stride": 1,
            "pool": "max",
            "pool_size": 2,
            "activation": "relu",
        }
        table = trace.table("probes/all")
        first, change = table.read("weight_0"), table.read("update_0")
        assert first.shape[1:] == (32, 1, 3, 3)
        start = build_network(model.network, model.training.seed).parameters[0][0]
        np.testing.assert_allclose(first[0] - change[0], start, atol=1e-6)
        assert table.read("activity_1").shape[2:] == (1, 288)
        assert table.read("bias_0").shape[1:] == (32,)


def test_what_is_for_dense_connections_says_so(tmp_path):
    """The test bench knows no convolutions: one line, not a broken result; the backprop analysis does."""
    overrides = [
        "training.epochs=1",
        "network.activation=identity",
        "network.output=identity",
        "probe.all.samples=32",
        'probe.all.record=["activity","weight","update","bias","bias_update"]',
    ]
    run(Experiment.from_model(load_model(MODELS / "digits_conv.toml", overrides)), trace=tmp_path / "c.h5")
    with open_trace(tmp_path / "c.h5") as trace:
        assert (backprop_angles(trace).angle.isel(step=0) < 90).all()
        with pytest.raises(TraceError, match="expected a dense one"):
            Recording(trace).require_dense(0)
        assert Recording(trace).parameters(1, 0).weight.shape == (10, 288)
