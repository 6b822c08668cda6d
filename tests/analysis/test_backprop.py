"""Angles and lengths against backprop: torch's gradients, and the limit of small steps."""

import h5py
import numpy as np
import pytest
import torch

from pcsim import analysis
from pcsim.analysis import backprop, stream
from pcsim.analysis.stream import NotRecordedError
from pcsim.schedule.channel import Channels, Messages, Rounding
from pcsim.tracing import open_trace

TORCH = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda x: torch.nn.functional.leaky_relu(x, 0.01),
    "gelu": torch.nn.functional.gelu,
    "identity": lambda x: x,
}
LOSSES = {
    "softmax": lambda p, y: -(y * torch.log_softmax(p, 1)).sum(1).mean(),
    "sigmoid": lambda p, y: (
        torch.nn.functional.binary_cross_entropy_with_logits(p, y, reduction="none").sum(1).mean()
    ),
    "identity": lambda p, y: 0.5 * ((y - p) ** 2).sum(1).mean(),
}


def gradients(run, activation, output):
    """Return torch's −∂Loss/∂W for the first mini-batch and the weights that the run began with."""
    weights = [torch.tensor(weight, requires_grad=True) for weight, _ in run.before]
    state = torch.tensor(run.inputs)
    for layer, (weight, (_, bias)) in enumerate(zip(weights, run.before, strict=True)):
        rates = TORCH[activation](state) if layer else state
        state = rates @ weight.T + torch.tensor(bias)
    LOSSES[output](state, torch.tensor(run.targets)).backward()
    return [-weight.grad.numpy() for weight in weights]


def check(run, activation="tanh", output="softmax"):
    """Compare the first recorded step with torch."""
    found = analysis.backprop_angles(run.path).isel(step=0)
    with open_trace(run.path) as trace:
        updates = [trace.table("probes/all").read(f"update_{layer}", slice(1))[0] for layer in range(4)]
    for layer, (gradient, update) in enumerate(zip(gradients(run, activation, output), updates, strict=True)):
        lengths = np.linalg.norm(gradient), np.linalg.norm(update)
        one = found.sel(connection=layer)
        assert one.gradient_norm.item() == pytest.approx(lengths[0], rel=1e-9)
        assert one.update_norm.item() == pytest.approx(lengths[1], rel=1e-9)
        assert one.length_ratio.item() == pytest.approx(lengths[1] / lengths[0], rel=1e-9)
        cosine = np.vdot(gradient, update) / (lengths[0] * lengths[1])
        assert np.cos(np.radians(one.angle.item())) == pytest.approx(cosine, rel=1e-9)


def test_gradients_are_torchs_for_every_order(each_run):
    """From the trace alone, target and all, as autograd finds them from the data set and initial weights."""
    check(each_run)


@pytest.mark.parametrize("activation", sorted(TORCH))
def test_gradients_are_torchs_for_every_activation(make, activation):
    """Each derivative is tested through three layers of it."""
    check(make(activation=activation), activation)


@pytest.mark.parametrize("output", sorted(LOSSES))
@pytest.mark.parametrize("proximal_step", [float("inf"), 100.0, 1.0])
def test_the_target_is_kept(make, output, proximal_step):
    """It is not the output's activity, which a soft clamp mixes with the prediction."""
    check(make(output=output, proximal_step=proximal_step), "tanh", output)


def late(ops):
    """Clamps the output in iteration 1, after a forward pass and errors without it."""
    yield from (ops.clamp(0), ops.predict(0))
    for layer in ops.hidden:
        yield from (ops.initialise(layer), ops.predict(layer))
    for iteration in ops.iterations:
        yield from ops.settle(iteration)
        for layer in ops.hidden:
            yield ops.relax(layer, iteration)
    yield from ops.settle(len(ops.iterations))
    yield from ops.learning_phase()


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        ("sequential", {"precisions": "theorem 1", "batch": 1, "samples": 1, "output": "identity"}),
        ("sequential", {"channels": Channels(Messages(0.1, Rounding("Q2.3")))}),
        (late, {}),
        (late, {"proximal_step": float("inf")}),
    ],
    ids=["mix that follows the state", "rounded and left out", "late clamp", "late hard clamp"],
)
def test_the_target_does_not_follow_from_the_clamped_output(make, order, changes):
    """How an output was clamped, when, and with which prediction is no business of the gradient."""
    check(make(order, **{"proximal_step": 1.0} | changes), "tanh", changes.get("output", "softmax"))


def test_the_target_is_not_rounded(make):
    """Activities have a format of their own: ĥ_L is not y even under a hard clamp."""
    run = make(channels=Channels(states=Rounding("Q-1.4")), proximal_step=float("inf"))
    with open_trace(run.path) as trace:
        target, activity = (trace.table("probes/all").read(name)[0] for name in ("target_4", "activity_4"))
    assert target.tolist() == run.targets.tolist()
    assert activity.max() < 0.5


def test_traces_without_targets_are_refused(make, tmp_path):
    """Before version 4 the target had to be guessed; such traces open, and their angles are not guessed."""
    path = tmp_path / "old.h5"
    path.write_bytes(make().path.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 3
        del file["probes/all/target_4"]
    with pytest.raises(NotRecordedError, match=r"has version 3 .* keeps no targets: .* run it again"):
        analysis.backprop_angles(path)
    assert analysis.dynamic_range(path).signal.size


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "bottom-up", "red-black"])
def test_small_steps_are_backprop(make, order):
    """As ε falls the angle goes to 0 with it, and the length by a factor ε a layer (method.md)."""
    large, small = (
        analysis.backprop_angles(make(order, step_size=step, rate=1.0).path).isel(step=0)
        for step in (1e-2, 1e-3)
    )
    assert large.angle.max() < 5
    assert (small.angle < 0.5).all()
    assert large.angle.values == pytest.approx(10 * small.angle.values, rel=0.1)
    falls = np.log10(large.length_ratio / small.length_ratio).values
    assert falls == pytest.approx([3, 2, 1, 0], abs=0.05)
    assert small.length_ratio.values[3] == pytest.approx(100 / 101, rel=1e-3)  # what the soft clamp leaves


def test_layers_that_nothing_reaches_have_no_angle(make):
    """Simultaneous with T = 1: the error is two layers away from the lowest connections."""
    found = analysis.backprop_angles(make("simultaneous", iterations=1).path)
    assert np.isnan(found.angle.values[:, :2]).all()
    assert not found.length_ratio.values[:, :2].any()
    assert (found.angle.values[:, 2:] < 90).all()
    assert np.isnan(found.angle_mean.values[:2]).all()


def test_pieces_of_weights_change_nothing(make, monkeypatch):
    """Matrices that do not fit into a block are read row by row."""
    run = make()
    whole = analysis.backprop_angles(run.path)
    for module in (stream, backprop):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    assert analysis.backprop_angles(run.path).angle.values == pytest.approx(whole.angle.values, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"record": None}, r'add record = \["activity", "weight", "update", "bias", "bias_update"\]'),
        ({"record": ("activity", "weight", "update")}, "no probe with all of"),
        ({"record": None}, r"\] and samples = 8 to a \[probe.NAME\] section"),
        ({"samples": 3}, "has 3 of 8 samples of a mini-batch: expected all, set samples = 8"),
    ],
)
def test_what_is_missing_is_named(make, changes, words):
    """The error says which setting of the probe is needed."""
    with pytest.raises(NotRecordedError, match=words):
        analysis.backprop_angles(make(**changes).path)
