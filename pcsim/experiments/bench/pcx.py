"""PCX (github.com/liukidar/pcx, PyPI `pcx`) as a contestant, trained as in its tutorials.

One compiled function does the forward initialisation, T times the gradient of the energy by the activities
with a step of SGD, and the gradient by the weights with a step of theirs. Its models are classes that
inherit from the library's, so they are made once it is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from pcsim.experiments.bench.contestant import BATCHES, Samples
from pcsim.experiments.bench.plan import Contender, Workload

Untyped = Any


class Pcx:
    """A model, its two optimizers and the compiled step."""

    def __init__(self, contender: Contender, workload: Workload, samples: Samples) -> None:
        jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
        px, pxc, pxf, pxnn, pxu = (
            importlib.import_module(name)
            for name in ("pcx", "pcx.predictive_coding", "pcx.functional", "pcx.nn", "pcx.utils")
        )
        px.RKG.seed(0)
        self._jax, self._layer_parameter, self._step = jax, pxnn.LayerParam, 0
        self._iterations = contender.iterations
        self._batches = [
            (jax.numpy.asarray(x), jax.numpy.asarray(y))
            for x, y in zip(samples.inputs, samples.targets, strict=True)
        ]
        self._model = _model(px, pxc, pxnn, jax.nn.relu, workload.sizes)
        forward, self._train = _functions(jax, pxc, pxf, pxnn, pxu)
        with pxu.step(self._model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(*self._batches[0], model=self._model)
        # The energy is a mean over the batch, so the activities' rate is scaled by it, as the tutorials do.
        self._optimizers = {
            "optim_h": pxu.Optim(
                lambda: optax.sgd(0.05 * workload.batch),
                pxu.M_hasnot(pxc.VodeParam, frozen=True)(self._model),
            ),
            "optim_w": pxu.Optim(lambda: optax.sgd(0.01), pxu.M(pxnn.LayerParam)(self._model)),
        }

    def steps(self, count: int) -> None:
        """Train; calls only queue work, so wait for it at the end."""
        for _ in range(count):
            inputs, targets = self._batches[self._step % BATCHES]
            self._train(self._iterations, inputs, targets, model=self._model, **self._optimizers)
            self._step += 1
        self._jax.block_until_ready(self._weights())

    def finite(self) -> bool:
        """Look at the weights."""
        return all(bool(np.isfinite(np.asarray(weight)).all()) for weight in self._weights())

    def _weights(self) -> list[Untyped]:
        return [p for layer in self._model.layers for p in (layer.nn.weight.get(), layer.nn.bias.get())]

    def facts(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing to let go of."""


def _model(
    px: Untyped, pxc: Untyped, pxnn: Untyped, activation: Callable[..., Untyped], sizes: tuple[int, ...]
) -> Untyped:
    """Return a classifier: squared errors at hidden layers, cross-entropy at the clamped output."""

    class Classifier(pxc.EnergyModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.activation = px.static(activation)
            self.layers = [pxnn.Linear(below, above) for below, above in pairwise(sizes)]
            self.vodes = [pxc.Vode() for _ in sizes[1:-1]] + [pxc.Vode(pxc.ce_energy)]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Untyped, y: Untyped) -> Untyped:
            for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
                x = vode(self.activation(layer(x)))
            self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return self.vodes[-1].get("u")

    return Classifier()


def _functions(
    jax: Untyped, pxc: Untyped, pxf: Untyped, pxnn: Untyped, pxu: Untyped
) -> tuple[Callable[..., Untyped], Callable[..., Untyped]]:
    """Return the forward pass over a batch, and the compiled training step."""
    per_sample = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
    movable = pxu.M(pxu.M_hasnot(pxc.VodeParam, frozen=True)).to([False, True])
    weights = pxu.M(pxnn.LayerParam).to([False, True])

    def forward(x: Untyped, y: Untyped, *, model: Untyped) -> Untyped:
        return model(x, y)

    def energy(x: Untyped, *, model: Untyped) -> Untyped:
        answer = model(x, None)
        return jax.lax.pmean(model.energy().sum(), "batch"), answer

    forward_all = pxf.vmap({"model": per_sample}, in_axes=(0, 0), out_axes=0)(forward)
    energy_all = pxf.vmap({"model": per_sample}, in_axes=(0,), out_axes=(None, 0), axis_name="batch")(energy)
    by_activities = pxf.value_and_grad({"model": movable}, has_aux=True)(energy_all)
    by_weights = pxf.value_and_grad({"model": weights}, has_aux=True)(energy_all)

    def train(
        iterations: int, x: Untyped, y: Untyped, *, model: Untyped, optim_h: Untyped, optim_w: Untyped
    ) -> None:
        model.train()
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward_all(x, y, model=model)
        for _ in range(iterations):
            with pxu.step(model, clear_params=pxc.VodeParam.Cache):
                _, gradient = by_activities(x, model=model)
            optim_h.step(model, gradient["model"])
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, gradient = by_weights(x, model=model)
        optim_w.step(model, gradient["model"])

    return forward_all, pxf.jit(static_argnums=0)(train)


def build(contender: Contender, workload: Workload, samples: Samples) -> Pcx:
    """Return PCX, ready to train."""
    return Pcx(contender, workload, samples)
