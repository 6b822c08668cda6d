"""The training loop: epochs of mini-batches through an engine, a test after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pcsim.engine.observer import Statistics
from pcsim.errors import DataError, NonFiniteError, ShapeError
from pcsim.kernels import Array, Kernels, reference
from pcsim.network.layer import Layer
from pcsim.network.learner import takes_one_step
from pcsim.network.network import Network
from pcsim.training.data import Dataset, Split, batches, check_batch

TEST_BATCH = 1000  # samples a forward pass; bounds memory, changes nothing else


class Engine(Protocol):
    """What the loop needs of an engine."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The units that it runs."""
        ...

    def step(self, inputs: Array, targets: Array) -> None:
        """Run one mini-batch."""
        ...


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: counted from 1.
        training_steps: mini-batches so far, all epochs.
        test_accuracy: share of test samples whose largest output is right; NaN without classes.
        test_loss: half the squared distance of output and target, mean over test samples.
        energy: free energy after the last iteration, mean over the epoch's mini-batches.
        seconds: since training began; compiling and self-tests that the first step brings about are a part.
        validation_accuracy: as test_accuracy, of the validation samples; NaN without any.
        validation_loss: as test_loss, of the validation samples; NaN without any.
    """

    epoch: int
    training_steps: int
    test_accuracy: float
    test_loss: float
    energy: float
    seconds: float
    validation_accuracy: float = math.nan
    validation_loss: float = math.nan


@dataclass(frozen=True)
class Position:
    """How far a training has come, and what decides how it goes on beside the engine's state.

    Attributes:
        epochs: results so far.
        order: state of the random numbers that order the samples; None at the start.
    """

    epochs: tuple[Epoch, ...] = ()
    order: Mapping[str, Any] | None = None


def evaluate(
    network: Network, dataset: Dataset, kernels: Kernels = reference, split: Split = "test"
) -> tuple[float, float]:
    """Return accuracy and loss on the test set, or on another part of the data; see `Epoch`."""
    right, loss, samples = 0, 0.0, len(dataset.splits[split][0])
    predict = network.predictor(kernels)
    for start in range(0, samples, TEST_BATCH):
        rows = np.arange(start, min(start + TEST_BATCH, samples))
        targets = dataset.targets(rows, network.dtype, split)
        outputs = predict(dataset.inputs(rows, network.dtype, split))
        right += int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())
        loss += 0.5 * float(((outputs - targets) ** 2).sum())
    return (right / samples if dataset.classes else float("nan")), loss / samples


def _postponing(layers: Sequence[Layer]) -> AbstractContextManager[None]:
    """Allow updates to wait, unless a learning rule of a user's own may look at what it has changed."""
    patient = all(takes_one_step(unit.learner) for unit in layers[:-1])
    return layers[0].kernels.postponing() if patient else nullcontext()


def _validate(network: Network, dataset: Dataset, kernels: Kernels) -> tuple[float, float]:
    """Return accuracy and loss on the validation set; NaN if there is none."""
    if "validation" not in dataset.splits:
        return math.nan, math.nan
    return evaluate(network, dataset, kernels, "validation")


def check_fit(network: Network, dataset: Dataset, batch: int) -> None:
    """Check that a data set can train a network.

    Raises:
        ShapeError: the data have another width than the network's input or output.
        DataError: there are fewer training samples than one mini-batch, or targets that the output
            function cannot reach.
    """
    ends = (("input", network.sizes[0], dataset.features), ("output", network.sizes[-1], dataset.outputs))
    for end, width, given in ends:
        if width != given:
            raise ShapeError(
                f"data set {dataset.name} has {given} values at the {end}, the network {width}: "
                f"expected as many; change network.layers{_hint(dataset) if end == 'output' else ''}"
            )
    check_batch(dataset, batch)
    low, high = dataset.target_range()
    output = network.traits[-1].output
    if output == "sigmoid" and not 0 <= low <= high <= 1:
        raise DataError(
            f"data set {dataset.name} has targets from {low:g} to {high:g}: expected values in [0, 1] for "
            "a sigmoid output; change network.output"
        )
    if output == "softmax" and not dataset.classes:
        raise DataError(
            f"data set {dataset.name} has values as targets: expected classes for a softmax output; "
            "set network.output to sigmoid or identity"
        )


def _hint(dataset: Dataset) -> str:
    """Say that labels count from 0, if the lowest one is another: that makes classes that nothing is in."""
    lowest = int(dataset.train_targets.min()) if dataset.classes else 0
    return f", or labels: they start at {lowest}, expected at 0" if lowest else ""


def train(
    network: Network,
    dataset: Dataset,
    engine: Engine,
    statistics: Statistics,
    *,
    batch: int,
    epochs: int,
    seed: int = 0,
    shuffle: bool = True,
    after_step: Callable[[int], None] = lambda step: None,
    after_epoch: Callable[[Position], None] = lambda position: None,
    start: Position = Position(),
) -> Sequence[Epoch]:
    """Train a network in place.

    Args:
        network: its parameters change.
        dataset: what it learns.
        engine: runs a mini-batch with the network's layers.
        statistics: an observer of that engine.
        batch: samples a mini-batch; a last short one is dropped.
        epochs: passes through the training set.
        seed: of the order of samples.
        shuffle: whether each epoch draws a new order.
        after_step: called with the index of each mini-batch, from 0. With mini-batches of one what the last
            sample has taught a weight may still wait: it is in the weight once `engine.layers` show it or
            `Network.predict` has used it.
        after_epoch: called with where the training stands; its last epoch is the one that has ended.
        start: where to go on; network and engine must be as they were there.

    Raises:
        ShapeError: data and network do not fit.
        NonFiniteError: activities or energy became infinite or NaN.
    """
    check_fit(network, dataset, batch)
    rng = np.random.default_rng([seed, 1])  # another stream than the initial weights'
    if start.order is not None:
        rng.bit_generator.state = start.order
    results = list(start.epochs)
    steps, before = (results[-1].training_steps, results[-1].seconds) if results else (0, 0.0)
    begun = time.perf_counter() - before
    for epoch in range(len(results) + 1, epochs + 1):
        energies = []
        with _postponing(engine.layers):
            for inputs, targets in batches(dataset, batch, rng, shuffle, network.dtype):
                with np.errstate(all="ignore"):  # what overflows is found and named by the check
                    engine.step(inputs, targets)
                statistics.check_finite()
                energies.append(statistics.settled_energy)
                after_step(steps)
                steps += 1
        network.gather(engine.layers)
        with np.errstate(all="ignore"):
            accuracy, loss = evaluate(network, dataset, engine.layers[0].kernels)
            held_out = _validate(network, dataset, engine.layers[0].kernels)
        if not np.isfinite(loss):
            raise NonFiniteError("test output", steps - 1, network.top, 0)
        seconds = time.perf_counter() - begun
        results.append(Epoch(epoch, steps, accuracy, loss, float(np.mean(energies)), seconds, *held_out))
        after_epoch(Position(tuple(results), rng.bit_generator.state))
    return results
