"""The things a layer can do, each with what it reads, writes and sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from pcsim.errors import ProgramError
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.channel import PLAIN, Channels
from pcsim.schedule.precisions import Refreshing

Action = Callable[[Layer], "Array | None"]  # returns the payload if the operation sends


@dataclass(frozen=True, order=True)
class Place:
    """Something that can be read or written: `name` at `layer`.

    Names are activity, error, weight, bias, learner, target, inbox.prediction and inbox.error, memory: what a
    convolution keeps of its last prediction, and norm_below: what the layer below has told of its activity.
    """

    layer: int
    name: str

    @classmethod
    def inbox(cls, layer: int, kind: MessageKind) -> Place:
        """Return the place in a layer's inbox that holds the latest message of a kind."""
        return cls(layer, f"inbox.{kind}")

    def __str__(self) -> str:
        """Name the place as an error message would."""
        return f"layer {self.layer}'s {self.name}"


@dataclass(frozen=True)
class Operation:
    """One layer does one thing, once.

    Attributes:
        name: initialise, clamp, predict, compare, relax, learn, compare_target, tell_norm, take_norm, or a
            user's own.
        layer: who does it.
        iteration: inference iterations begun so far; 0 is the forward sweep.
        reads: places whose values may influence what it writes and sends.
        writes: places that it may change.
        sends: the kind of message it sends, if any: predictions go up, errors down.
        multiplications: in products with the weights, for one sample.
        values: in the message, for one sample.
        action: what it does to its layer; returns the payload if it sends.
    """

    name: str
    layer: int
    iteration: int
    reads: frozenset[Place]
    writes: frozenset[Place]
    sends: MessageKind | None = None
    multiplications: int = 0
    values: int = 0
    action: Action = field(compare=False, repr=False, kw_only=True)

    @property
    def target(self) -> int:
        """The layer that receives what this operation sends."""
        return self.layer + 1 if self.sends is MessageKind.PREDICTION else self.layer - 1

    @cached_property
    def forms_error(self) -> bool:
        """Whether it leaves a new error at its layer."""
        return Place(self.layer, "error") in self.writes

    @cached_property
    def moves_activity(self) -> bool:
        """Whether it leaves a new activity at its layer."""
        return Place(self.layer, "activity") in self.writes

    @property
    def delivers(self) -> frozenset[Place]:
        """The place in the neighbour's inbox that its message reaches; empty if it sends none."""
        return frozenset() if self.sends is None else frozenset({Place.inbox(self.target, self.sends)})

    @property
    def changes(self) -> frozenset[Place]:
        """All places that hold something new afterwards: what it writes and where its message arrives."""
        return self.writes | self.delivers

    def silent(self) -> Operation:
        """Return the same operation keeping its result to itself: no message is sent."""
        return replace(self, sends=None, values=0)

    def __str__(self) -> str:
        """Name the operation as an error message would."""
        return f"{self.name}(layer {self.layer})"


def _places(layer: int, names: str) -> frozenset[Place]:
    return frozenset(Place(layer, name) for name in names.split())


@dataclass(frozen=True)
class Relax:
    """The action of relaxing by a given step; two of the same step are the same action."""

    step: float

    def __call__(self, unit: Layer) -> None:
        """Move the activity of a layer."""
        unit.relax(self.step)


@dataclass(frozen=True)
class Operations:
    """The vocabulary of an order: makes operations of one network with given step sizes.

    Attributes:
        network: whose layers act.
        step_sizes: k of each inference iteration; their number is T.
        refreshing: how precisions follow from the state; None where they are constants of the network.
        channels: what happens to numbers; of this an order sees whether layers round their activities.
    """

    network: Network
    step_sizes: tuple[float, ...]
    refreshing: Refreshing | None = None
    channels: Channels = PLAIN

    @property
    def top(self) -> int:
        """L, the index of the output layer."""
        return self.network.top

    @property
    def hidden(self) -> range:
        """The layers that relax, bottom to top: 1, …, L − 1."""
        return range(1, self.top)

    @property
    def senders(self) -> range:
        """The layers that own a connection, bottom to top: 0, …, L − 1."""
        return range(self.top)

    @property
    def iterations(self) -> range:
        """The inference iterations, counted from 1 to T; 0 is the forward sweep."""
        return range(1, len(self.step_sizes) + 1)

    def initialise(self, layer: int) -> Operation:
        """ĥ_l = p_l, in the forward sweep."""
        reads, writes = _places(layer, "inbox.prediction"), _places(layer, "activity")
        return Operation("initialise", layer, 0, reads, writes, action=Layer.initialise)

    def clamp(self, layer: int, iteration: int = 0) -> Operation:
        """ĥ_0 = x, or ĥ_L towards y; a soft clamp looks at the prediction too."""
        if layer not in (0, self.top):
            raise ProgramError(f"clamp(layer {layer}): expected the input, 0, or the output, {self.top}")
        soft = layer == self.top and self.network.soft_clamp
        reads, action = _places(layer, "target inbox.prediction" if soft else "target"), Layer.clamp
        if soft and self.refreshing:
            reads, action = reads | _places(layer, "norm_below"), Layer.clamp_by_norm
        return Operation("clamp", layer, iteration, reads, _places(layer, "activity"), action=action)

    def predict(self, layer: int, iteration: int = 0) -> Operation:
        """Send p_{l+1} up."""
        self._check_sender("predict", layer)
        connection = self.network.connections[layer]
        return Operation(
            "predict",
            layer,
            iteration,
            _places(layer, "activity weight bias"),
            self._memory(layer),
            MessageKind.PREDICTION,
            connection.multiplications,
            connection.outputs,
            action=Layer.predict,
        )

    def compare(self, layer: int, iteration: int = 0) -> Operation:
        """Form e_l and send it down."""
        if layer not in range(1, self.top + 1):
            raise ProgramError(f"compare(layer {layer}): expected a layer from 1 to {self.top}")
        return Operation(
            "compare",
            layer,
            iteration,
            _places(layer, "activity inbox.prediction"),
            _places(layer, "error"),
            MessageKind.ERROR,
            values=self.network.sizes[layer],
            action=Layer.compare,
        )

    def relax(self, layer: int, iteration: int) -> Operation:
        """Move ĥ_l by the step of this iteration, one of 1, …, T (t + 1 in the paper's count)."""
        if layer not in self.hidden or iteration not in self.iterations:
            raise ProgramError(
                f"relax(layer {layer}) in iteration {iteration}: expected one of the hidden layers "
                f"1 to {self.top - 1} and an iteration from 1 to {len(self.step_sizes)}"
            )
        step = self.step_sizes[iteration - 1]
        reads = _places(layer, "activity error weight inbox.error") | self._memory(layer)
        return Operation(
            "relax",
            layer,
            iteration,
            reads | _places(layer, "norm_below") if self.refreshing else reads,
            _places(layer, "activity"),
            multiplications=self.network.connections[layer].multiplications,
            action=self.refreshing.relax(self.network, layer, step) if self.refreshing else Relax(step),
        )

    def tell_norm(self, layer: int, iteration: int) -> Operation:
        """Send N_l = ‖f(ĥ_l)‖² + 1 up, ahead of the prediction from the same activity."""
        reads, kind = _places(layer, "activity"), MessageKind.PREDICTION
        return Operation("tell_norm", layer, iteration, reads, frozenset(), kind, action=Layer.tell_norm)

    def take_norm(self, layer: int, iteration: int) -> Operation:
        """Keep N_{l−1}, which has just come, before the prediction takes its place."""
        reads, writes = _places(layer, "inbox.prediction"), _places(layer, "norm_below")
        return Operation("take_norm", layer, iteration, reads, writes, action=Layer.take_norm)

    def learn(self, layer: int, iteration: int) -> Operation:
        """Update W_l and b_l."""
        self._check_sender("learn", layer)
        return Operation(
            "learn",
            layer,
            iteration,
            _places(layer, "activity inbox.error weight bias learner") | self._memory(layer),
            _places(layer, "weight bias learner"),
            multiplications=self.network.connections[layer].multiplications,
            action=Layer.learn,
        )

    def compare_target(self, iteration: int) -> Operation:
        """Send y − out(p_L) down, for a last connection that learns from y itself."""
        return Operation(
            "compare_target",
            self.top,
            iteration,
            _places(self.top, "target inbox.prediction"),
            frozenset(),
            MessageKind.ERROR,
            values=self.network.sizes[self.top],
            action=Layer.compare_target,
        )

    def forward_sweep(self) -> Iterator[Operation]:
        """Clamp the input and let every layer take over its prediction; the output is clamped too."""
        yield self.clamp(0)
        for layer in self.senders:
            yield self.predict(layer)
            if layer + 1 < self.top:
                yield self.initialise(layer + 1)
        yield from self.settle(0)

    def settle(self, iteration: int) -> Iterator[Operation]:
        """Bring all predictions, the soft clamp and all errors up to date with the activities.

        What has not changed is not computed or sent again: the program leaves it out.
        """
        for layer in self.senders:
            yield self.predict(layer, iteration)
        yield self.clamp(self.top, iteration)
        for layer in range(1, self.top + 1):
            yield self.compare(layer, iteration)

    def learning_phase(self, iteration: int | None = None) -> Iterator[Operation]:
        """Let every connection learn, after the last iteration if no other is given.

        Where the last connection is to learn from y itself, the output says first how far it is from y. With
        a hard clamp it has said so already, unless it had to round y.
        """
        iteration = len(self.step_sizes) if iteration is None else iteration
        differs = self.network.soft_clamp or self.channels.states.format is not None
        if self.network.learn_output_from == "label" and differs:
            yield self.compare_target(iteration)
        for layer in self.senders:
            yield self.learn(layer, iteration)

    def _check_sender(self, name: str, layer: int) -> None:
        """Refuse a layer that owns no connection."""
        if layer not in self.senders:
            raise ProgramError(f"{name}(layer {layer}): expected a layer from 0 to {self.top - 1}")

    def _memory(self, layer: int) -> frozenset[Place]:
        """Return where a layer keeps what its connection needs of its last prediction, if it does."""
        return _places(layer, "memory") if self.network.connections[layer].remembers else frozenset()
