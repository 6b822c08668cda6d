"""Backpropagation in torch, on the same network: the baseline that inference learning is compared with.

It is no predictive coding: nothing is local, there are no messages and no iterations. It stands beside the
other engines so that a run with it starts from the same weights, sees the same mini-batches and leaves the
same trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pcsim.engine.checks import set_targets
from pcsim.engine.observer import Observer, Statistics
from pcsim.engine.state import Facts, learnt, relearn
from pcsim.errors import ConfigurationError
from pcsim.kernels import ActivationName, Array
from pcsim.kernels.reference import LEAK
from pcsim.learning import SGD, Adam
from pcsim.network.connection import Connection, Dense
from pcsim.network.network import Network

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


class BackpropEngine:
    """Runs mini-batches forward and backward; the parameters share memory with the network's.

    Args:
        network: trained in place.
        rule: SGD or Adam, by torch.optim with the same constants.
        batch: samples a mini-batch.
        statistics: gets the loss as the output layer's free energy.
        observers: are told that steps begin and end; there are no operations to tell of.
        threads: of torch's products; as many as torch takes now if not given.

    Attributes:
        observers: as given.
        threads: see above.

    Raises:
        ConfigurationError: another learning rule, or torch is not installed.
    """

    def __init__(
        self,
        network: Network,
        rule: object,
        batch: int,
        statistics: Statistics,
        observers: Sequence[Observer] = (),
        threads: int | None = None,
    ) -> None:
        self.layers = network.layers(batch)
        self._network, self._statistics, self.observers = network, statistics, tuple(observers)
        self._step = 0
        check_rule(rule)
        import torch

        self._torch = torch
        self.threads = threads or torch.get_num_threads()
        self._parameters = [
            tuple(torch.from_numpy(array).requires_grad_() for array in pair) for pair in network.parameters
        ]
        flat = [array for pair in self._parameters for array in pair]
        self._optimizer = _optimizer(rule, flat)
        for unit, pair in zip(self.layers, self._parameters, strict=False):
            unit.magnitude = _Magnitude(self._optimizer, pair)

    def step(self, inputs: Array, targets: Array) -> None:
        """Run one mini-batch: forward, backward, update.

        Raises:
            ShapeError: arrays of another shape than the network's ends.
        """
        set_targets(self.layers, inputs, targets)
        for observer in self.observers:
            observer.begin_step(self._step)
        with torch_takes(self.threads):
            self._learn(self._torch.from_numpy(inputs), self._torch.from_numpy(targets))
        self._step += 1
        for observer in self.observers:
            observer.end_step()

    def _learn(self, inputs: Tensor, targets: Tensor) -> None:
        """Go forward and backward, and update."""
        self._optimizer.zero_grad(set_to_none=True)
        loss, said = self._loss(self.forward(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        squared_error = 0.5 * float(((targets - said.detach()) ** 2).sum()) / len(targets)
        self._statistics.note(0, self._network.top, squared_error, float(loss.detach()))

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return what decides the mini-batches to come."""
        arrays = learnt(self.layers)
        for name, moments in self._moments():
            arrays |= {f"{key}_{name}": value.numpy().copy() for key, value in moments.items()}
        return arrays, {"step": self._step}

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: arrays that are not this network's.
        """
        relearn(self.layers, arrays)
        self._step = facts["step"]
        for name, parameter in self._named():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if (full := f"{key}_{name}") in arrays:
                    self._optimizer.state[parameter][key] = self._torch.from_numpy(arrays[full].copy())

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for index, (weight, bias) in enumerate(self._parameters):
            yield f"weight_{index}", weight
            yield f"bias_{index}", bias

    def _moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, parameter in self._named():
            yield name, self._optimizer.state.get(parameter, {})

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the prediction that reaches the output layer, (batch, n_L)."""
        activity = inputs
        for connection, pair in zip(self._network.connections, self._parameters, strict=True):
            activity = _predict(connection, activity, *pair)
        return activity

    def _loss(self, prediction: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, summed over outputs, mean over the batch, and what the network says."""
        functional, output = self._torch.nn.functional, self._network.traits[-1].output
        if output == "softmax":
            return functional.cross_entropy(prediction, targets), prediction.softmax(1)
        if output == "sigmoid":
            loss = functional.binary_cross_entropy_with_logits(prediction, targets, reduction="sum")
            return loss / len(targets), prediction.sigmoid()
        return 0.5 * ((targets - prediction) ** 2).sum() / len(targets), prediction


class _Magnitude:
    """The mean |Δ| of the last update of a connection, worked out when somebody asks."""

    def __init__(self, optimizer: torch.optim.Optimizer, pair: Sequence[Tensor]) -> None:
        self._optimizer, self._pair = optimizer, pair

    def __float__(self) -> float:
        changes = [self._change(parameter) for parameter in self._pair]
        elements = sum(parameter.numel() for parameter in self._pair)
        return float(sum(float(change.abs().sum()) for change in changes)) / elements

    def _change(self, parameter: Tensor) -> Tensor:
        """Return Δ from the gradient and the optimizer's state, both still those of the last update."""
        constants, state = self._optimizer.param_groups[0], self._optimizer.state[parameter]
        if "exp_avg" not in state:
            assert parameter.grad is not None
            return constants["lr"] * parameter.grad  # type: ignore[no-any-return]
        beta1, beta2 = constants["betas"]
        first = state["exp_avg"] / (1 - beta1 ** float(state["step"]))
        second = state["exp_avg_sq"] / (1 - beta2 ** float(state["step"]))
        return constants["lr"] * first / (second.sqrt() + constants["eps"])  # type: ignore[no-any-return]


def _predict(connection: Connection, activity: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the prediction of a connection, (batch, n_{l+1}); images go flat from layer to layer."""
    from torch.nn import functional

    if isinstance(connection, Dense):
        return functional.linear(_activation(connection.activation)(activity), weight, bias)
    layer = connection.layer
    images = activity.reshape(len(activity), *layer.image)
    made = functional.conv2d(images, weight, bias, layer.stride)
    made = _activation(connection.after)(made)
    if layer.pool == "max":
        made = functional.max_pool2d(made, layer.pool_size)
    elif layer.pool == "average":
        made = functional.avg_pool2d(made, layer.pool_size)
    return made.flatten(1)


def _activation(name: ActivationName) -> Callable[[Tensor], Tensor]:
    from torch import nn

    known: dict[ActivationName, Callable[[Tensor], Tensor]] = {
        "relu": nn.functional.relu,
        "tanh": nn.functional.tanh,
        "sigmoid": nn.functional.sigmoid,
        "leaky_relu": lambda activity: nn.functional.leaky_relu(activity, LEAK),
        "gelu": nn.functional.gelu,
        "identity": lambda activity: activity,
    }
    return known[name]


@contextmanager
def torch_takes(threads: int) -> Iterator[None]:
    """Let torch take so many threads: others in the process, our kernels above all, have it take one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_threads() -> int:
    """Return how many threads torch takes for a product."""
    import torch

    return torch.get_num_threads()


def check_rule(rule: object) -> None:
    """Refuse what the baseline cannot do.

    Raises:
        ConfigurationError: a learning rule other than SGD and Adam, or torch is not installed.
    """
    if find_spec("torch") is None:
        raise ConfigurationError("engine backprop: needs torch; install pcsim[torch]")
    if not isinstance(rule, SGD | Adam):
        raise ConfigurationError(
            f"engine backprop: learning rule {type(rule).__name__}: expected sgd or adam; set learning.rule"
        )


def _optimizer(rule: object, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Return torch's optimizer with the constants of our rule."""
    from torch import optim

    if isinstance(rule, SGD):
        return optim.SGD(parameters, lr=rule.rate)
    assert isinstance(rule, Adam)  # `check_rule` has seen to it
    return optim.Adam(parameters, lr=rule.rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)
