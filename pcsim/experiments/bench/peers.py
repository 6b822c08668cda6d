"""Other libraries as contestants, each set up as its own documentation trains.

They are imported by name at run time, in worker processes only: pcsim itself never imports them, and they
may be missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from pcsim.architecture import ConvLayer, parse
from pcsim.experiments.bench.contestant import BATCHES, Contestant, Samples
from pcsim.experiments.bench.plan import Contender, Workload

Untyped = Any  # what a library without types gives


class Torch:
    """Backprop in PyTorch as its tutorials write it: eager, Sequential, CrossEntropyLoss, an optimizer."""

    def __init__(self, contender: Contender, workload: Workload, samples: Samples) -> None:
        torch = importlib.import_module("torch")
        torch.set_num_threads(workload.threads)
        nn = torch.nn
        self._device = contender.backend or "cpu"
        self._torch, self._loss = torch, nn.CrossEntropyLoss()
        self._model = _torch_model(nn, workload).to(self._device)
        parameters = self._model.parameters()
        self._optimizer = (
            torch.optim.Adam(parameters, lr=1.8e-5)
            if contender.rule == "adam"
            else torch.optim.SGD(parameters, lr=0.01)
        )
        self._inputs, self._labels = (torch.from_numpy(part) for part in (samples.inputs, samples.labels))
        self._step = 0

    def steps(self, count: int) -> None:
        """Train."""
        for _ in range(count):
            batch = self._step % BATCHES
            self._optimizer.zero_grad()
            inputs, labels = self._inputs[batch].to(self._device), self._labels[batch].to(self._device)
            self._loss(self._model(inputs), labels).backward()
            self._optimizer.step()
            self._step += 1
        if self._device == "cuda":  # which is only told what to do by all that
            self._torch.cuda.synchronize()

    def finite(self) -> bool:
        """Look at the parameters."""
        return all(bool(self._torch.isfinite(p).all()) for p in self._model.parameters())

    def facts(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing to let go of."""


def _torch_model(nn: Untyped, workload: Workload) -> Untyped:
    """Return the network as a tutorial would write it; images come in flat and are unfolded first."""
    layers: list[Untyped] = []
    if not workload.layers:
        for below, above in pairwise(workload.sizes):
            layers += [nn.Linear(below, above), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    architecture = parse(workload.layers)
    layers.append(nn.Unflatten(1, architecture.input))
    for size, layer in zip(architecture.sizes, architecture.layers, strict=False):
        if isinstance(layer, ConvLayer):
            layers += [nn.Conv2d(layer.image[0], layer.channels, layer.kernel, layer.stride), nn.ReLU()]
        else:
            flatten = [nn.Flatten()] if isinstance(layers[-2], nn.Conv2d) else []
            layers += [*flatten, nn.Linear(size, layer.neurons), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Jax:
    """Anything that JAX compiles: a state, and a step that makes the next one from a mini-batch."""

    def __init__(self, state: Untyped, step: Callable[..., Untyped], batches: list[tuple[Any, ...]]) -> None:
        self._state, self._advance, self._batches, self._step = state, step, batches, 0

    def steps(self, count: int) -> None:
        """Train; calls only queue work, so wait for it at the end."""
        for _ in range(count):
            self._state = self._advance(self._state, *self._batches[self._step % BATCHES])
            self._step += 1
        importlib.import_module("jax").block_until_ready(self._state)

    def finite(self) -> bool:
        """Look at all floating arrays of the state."""
        leaves = importlib.import_module("jax").tree_util.tree_leaves(self._state)
        arrays = [np.asarray(leaf) for leaf in leaves]
        return all(bool(np.isfinite(a).all()) for a in arrays if np.issubdtype(a.dtype, np.floating))

    def facts(self) -> dict[str, object]:
        """Return where it runs: on a GPU, if JAX can."""
        return {"device": importlib.import_module("jax").devices()[0].device_kind}

    def close(self) -> None:
        """Nothing to let go of."""


def jax_backprop(contender: Contender, workload: Workload, samples: Samples) -> Jax:
    """Backprop and SGD in one compiled function whose parameters are updated in place (donated)."""
    jax = importlib.import_module("jax")
    jnp = importlib.import_module("jax.numpy")
    rng = np.random.default_rng(0)
    parameters = [
        (jnp.asarray(_weight(rng, below, above)), jnp.zeros(above))
        for below, above in pairwise(workload.sizes)
    ]

    def loss(parameters: Untyped, inputs: Untyped, targets: Untyped) -> Untyped:
        activity = inputs
        for weight, bias in parameters[:-1]:
            activity = jax.nn.relu(activity @ weight + bias)
        weight, bias = parameters[-1]
        return -(targets * jax.nn.log_softmax(activity @ weight + bias)).sum(axis=-1).mean()

    def step(parameters: Untyped, inputs: Untyped, targets: Untyped) -> Untyped:
        gradients = jax.grad(loss)(parameters, inputs, targets)
        return jax.tree_util.tree_map(lambda value, slope: value - 0.01 * slope, parameters, gradients)

    return Jax(parameters, jax.jit(step, donate_argnums=0), _on_device(jnp, samples))


def fabricpc(contender: Contender, workload: Workload, samples: Samples) -> Jax:
    """FabricPC: the graph of its demos, and the compiled step that its `train` runs (donated buffers).

    That step is not public; where it is missing, the public one is taken, which does not donate.
    """
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    jnp = importlib.import_module("jax.numpy")
    structure, parameters = _fabricpc_graph(contender, workload)
    trainer = importlib.import_module("fabricpc.training.trainer")
    optimizer = optax.sgd(0.01)
    if hasattr(trainer, "_make_step"):
        compiled = trainer._make_step(structure, optimizer, algorithm="pc", with_state=False, donate=True)
    else:
        compiled = trainer.make_train_step(structure, optimizer, algorithm="pc")
    key = jax.random.PRNGKey(0)

    def step(state: Untyped, inputs: Untyped, targets: Untyped) -> Untyped:
        return compiled(*state, {"x": inputs, "y": targets}, key)[:2]

    return Jax((parameters, optimizer.init(parameters)), step, _on_device(jnp, samples))


def _fabricpc_graph(contender: Contender, workload: Workload) -> tuple[Untyped, Untyped]:
    """Return the graph, and its initial parameters."""
    fabric = importlib.import_module("fabricpc")
    fabric.setup_jax()
    activations = importlib.import_module("fabricpc.core.activations")
    assembly = importlib.import_module("fabricpc.graph_assembly")
    linear = importlib.import_module("fabricpc.nodes").Linear
    edge = importlib.import_module("fabricpc.core.topology").Edge
    relu = activations.ReLUActivation()
    first, *hidden, last = workload.sizes
    nodes = [linear(shape=(first,), name="layer0")]
    nodes += [linear(shape=(n,), activation=relu, name=f"layer{i + 1}") for i, n in enumerate(hidden)]
    nodes.append(
        linear(
            shape=(last,),
            activation=activations.SoftmaxActivation(),
            energy=importlib.import_module("fabricpc.core.energy").CrossEntropyEnergy(),
            name="output",
        )
    )
    inference = importlib.import_module("fabricpc.core.inference").InferenceSGD
    structure = assembly.graph(
        nodes=nodes,
        edges=[edge(source=below, target=above.slot("in")) for below, above in pairwise(nodes)],
        task_map=assembly.TaskMap(x=nodes[0], y=nodes[-1]),
        inference=inference(eta_infer=0.05, infer_steps=contender.iterations),
    )
    initialize = importlib.import_module("fabricpc.graph_initialization").initialize_params
    return structure, initialize(structure, importlib.import_module("jax").random.PRNGKey(0))


def _weight(rng: np.random.Generator, below: int, above: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a weight as JAX's examples lay it out, (inputs, outputs)."""
    bound = below**-0.5
    return rng.uniform(-bound, bound, (below, above)).astype(np.float32)


def _on_device(jnp: Untyped, samples: Samples) -> list[tuple[Any, ...]]:
    """Return the mini-batches as arrays of JAX: where they come from is no part of a step."""
    return [
        (jnp.asarray(inputs), jnp.asarray(targets))
        for inputs, targets in zip(samples.inputs, samples.targets, strict=True)
    ]


BUILDERS: dict[str, Callable[[Contender, Workload, Samples], Contestant]] = {
    "torch": Torch,
    "jax": jax_backprop,
    "fabricpc": fabricpc,
}
