"""What decides the numbers of a run is told apart, so that no checkpoint goes on as another run."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest

import pcsim
from pcsim.config import ModelConfig
from pcsim.errors import CheckpointError
from pcsim.experiments.experiment import Experiment, describe_rule
from pcsim.experiments.run import run
from pcsim.experiments.task import Task

SOFT = ["network.clamp=soft", "network.proximal_step=3"]
ROUNDED = ["messages.format=Q3.4", "messages.rounding=stochastic"]
KEPT = ["states.format=Q3.4", "states.rounding=stochastic"]
LOST = ["faults.loss=0.1"]
TIMED = ["schedule.order=asynchronous", "faults.delay_time=2"]
LATE = ["faults.delay=0.1", *TIMED]
DEAD = ["faults.dead_layer=1", "faults.dead_share=0.5", "faults.dead_step=1"]
JITTER = ["hardware.jitter=0.5"]
PRICED = ["hardware.model=parametric"]
ADAM = ["learning.rule=adam"]

# A key, another value than the one it has, and what a model needs besides for it to mean anything.
DECIDING = {
    "network.layers": ("[64, 20, 10]", []),
    "network.activation": ("tanh", []),
    "network.output": ("sigmoid", []),
    "network.clamp": ("hard", SOFT),
    "network.proximal_step": ("4", SOFT),
    "network.precision": ("[1, 2, 1, 1]", []),
    "network.activity_decay": ("[0, 0.1, 0, 0]", []),
    "network.dtype": ("float64", []),
    "network.learn_output_from": ("label", SOFT),
    "data.test_fraction": ("0.3", []),
    "data.validation_fraction": ("0.1", []),
    "data.split_seed": ("5", []),
    "schedule.order": ("simultaneous", []),
    "schedule.iterations": ("2", []),
    "schedule.step_size": ("0.1", []),
    "schedule.step_decay": ("none", []),
    "schedule.precisions": ("theorem 1", ["training.batch=1"]),
    "learning.rule": ("sgd", []),
    "learning.rate": ("0.1", []),
    "learning.minimum_rate": ("0.1", []),
    "learning.r": ("0.1", []),
    "learning.decay": ("0.1", []),
    "learning.beta1": ("0.1", ADAM),
    "learning.beta2": ("0.1", ADAM),
    "learning.epsilon": ("0.1", ADAM),
    "training.epochs": ("7", []),
    "training.batch": ("16", []),
    "training.seed": ("5", []),
    "training.shuffle": ("false", []),
    "hardware.model": ("loihi2018", []),
    "hardware.jitter": ("0.5", []),
    "hardware.latency": ("2", []),
    "hardware.link_latency": ('{"0-1" = 2.0}', []),
    "hardware.seed": ("5", JITTER),
    "hardware.time_per_operation": ("2", PRICED),
    "hardware.time_per_multiplication": ("2", PRICED),
    "hardware.time_per_byte": ("2", PRICED),
    "hardware.time_per_message": ("2", PRICED),
    "messages.threshold": ("0.1", []),
    "messages.error_threshold": ("0.1", []),
    "messages.format": ("float16", []),
    "messages.error_format": ("float16", []),
    "messages.rounding": ("stochastic", ["messages.format=Q3.4"]),
    "messages.seed": ("5", ROUNDED),
    "states.format": ("float16", []),
    "states.rounding": ("stochastic", ["states.format=Q3.4"]),
    "states.seed": ("5", KEPT),
    "faults.loss": ("0.2", []),
    "faults.duplication": ("0.2", []),
    "faults.delay": ("0.2", TIMED),
    "faults.reorder": ("0.2", TIMED),
    "faults.delay_time": ("3", LATE),
    "faults.dead_layer": ("2", DEAD),
    "faults.dead_share": ("0.25", DEAD),
    "faults.dead_step": ("2", DEAD),
    "faults.seed": ("5", LOST),
}
# What lies there, and is made of it, decides: the digest of the samples, the clock.
CONTENT = {"data.name", "data.path", "data.directory", "data.target", "hardware.path"}
RECORDING = {"name", "description", "trace", "probe"}  # changes no number


def keys():
    """Yield all keys of a model file, "section.key", or the section's name."""
    schema = ModelConfig.model_json_schema()
    for section, one in schema["properties"].items():
        found = [one, *one.get("oneOf", ()), *one.get("anyOf", ())]
        names = [part["$ref"].rpartition("/")[2] for part in found if "$ref" in part]
        if section in RECORDING or not names:
            yield section
        for name in names if section not in RECORDING else ():
            yield from (f"{section}.{key}" for key in schema["$defs"][name]["properties"])


def described(*overrides):
    """Return what a run on the event engine says of itself."""
    small = ["network.layers=[64, 16, 12, 10]", "training.epochs=2"]
    experiment = Experiment.from_model(pcsim.load_model("digits", [*small, *overrides]))
    return Task.build(experiment, "event", None).describe()


def test_every_key_is_known():
    """A new key of the model file is either one that decides, and is tried below, or one that does not."""
    assert set(keys()) == set(DECIDING) | CONTENT | RECORDING


@pytest.mark.parametrize("key", DECIDING)
def test_what_decides_is_told(key):
    """A run that differs in one key says so; else its checkpoint would go on as another run."""
    value, needed = DECIDING[key]
    assert described(*needed) != described(*needed, f"{key}={value}")


def small(split=0, **changes):
    over = ["network.layers=[64, 16, 10]", "training.epochs=2", f"data.split_seed={split}"]
    return dataclasses.replace(Experiment.from_model(pcsim.load_model("digits", over)), **changes)


def test_another_split_is_refused(tmp_path):
    """With another split, what is tested has been trained on."""
    run(small(), checkpoint=tmp_path, until=1)
    with pytest.raises(CheckpointError, match=r"another experiment: samples is \w+ in the checkpoint"):
        run(small(split=5), checkpoint=tmp_path, resume=True)


def test_samples_have_a_digest():
    """One value, one label, or the kind of the numbers: other samples."""
    inputs, targets = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    plain = pcsim.Dataset("set", inputs, targets, inputs, targets, 1.0, 2)
    value, label = inputs.copy(), targets.copy()
    value[3, 1], label[2] = 1e-9, 1
    others = [
        dataclasses.replace(plain, train_inputs=value),
        dataclasses.replace(plain, test_inputs=value),
        dataclasses.replace(plain, train_targets=label),
        dataclasses.replace(plain, validation_inputs=inputs[:1], validation_targets=targets[:1]),
        dataclasses.replace(plain, train_inputs=inputs.astype(np.float64)),
        dataclasses.replace(plain, scale=0.5),
        dataclasses.replace(plain, target="input"),
    ]
    assert len({plain.digest(), *(one.digest() for one in others)}) == 1 + len(others)
    assert plain.digest() == dataclasses.replace(plain, name="another", train_inputs=inputs.copy()).digest()


def lowest_learns(ops):
    yield from ops.forward_sweep()
    yield ops.learn(0, 0)


def highest_learns(ops):
    yield from ops.forward_sweep()
    yield ops.learn(1, 0)


def test_an_edited_order_is_refused(tmp_path, monkeypatch):
    """An own order has the name that it had before, whatever it lists today."""
    monkeypatch.setattr(highest_learns, "__name__", lowest_learns.__name__)
    first, second = (pcsim.Schedule(one, iterations=1) for one in (lowest_learns, highest_learns))
    run(small(schedule=first), checkpoint=tmp_path, until=1)
    with pytest.raises(CheckpointError, match=r"schedule.operations is \w+ in the checkpoint"):
        run(small(schedule=second), checkpoint=tmp_path, resume=True)
    run(small(schedule=first), checkpoint=tmp_path, resume=True)


OWN_RULES = """
import sys
import pcsim
from pcsim.experiments.experiment import describe_rule

class Rule:
    def __init__(self, rate):
        self.rate, self.inner = rate, pcsim.SGD(rate)

    def __call__(self, weight, bias):
        return self.inner(weight, bias)

def plain(weight, bias):
    return pcsim.SGD(0.1)(weight, bias)

print(describe_rule(Rule(float(sys.argv[1]))), describe_rule(plain))
"""


def test_own_rules_have_a_name_that_lasts(tmp_path):
    """An address in it would be another one in the process that resumes."""
    (tmp_path / "own.py").write_text(OWN_RULES)
    first, second, other = (
        subprocess.run(
            [sys.executable, str(tmp_path / "own.py"), rate], capture_output=True, text=True, check=True
        ).stdout
        for rate in ("0.1", "0.1", "0.2")
    )
    assert first == second == "Rule(rate=0.1, inner=SGD(rate=0.1)) plain\n"
    assert other != first
    assert describe_rule(functools.partial(pcsim.SGD(0.1).__call__)) == describe_rule(
        functools.partial(pcsim.SGD(0.1).__call__)
    )
    assert describe_rule(pcsim.MQ(1e-3)) == repr(pcsim.MQ(1e-3))
