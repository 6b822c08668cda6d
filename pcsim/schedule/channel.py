"""What happens to numbers on their way: which are sent, in which format, and what goes wrong.

These are the settings; `pcsim.engine.channel` does it. They hold for all links of a network alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from pcsim.errors import ConfigurationError, refuse_unless
from pcsim.network.network import Network
from pcsim.schedule.number_format import NumberFormat, RoundingName

RATES = ("loss", "duplication", "delay", "reorder")
IN_TIME = ("duplication", "delay", "reorder")  # what only a clock can tell


def _is_seed(number: object) -> bool:
    return isinstance(number, int) and number >= 0


@dataclass(frozen=True)
class Rounding:
    """A number format and how values are brought into it.

    Attributes:
        format: float16, bfloat16, float32 or Qm.n (`NumberFormat.parse`); None leaves values as they are.
        rounding: "nearest" or "stochastic".
        seed: of stochastic rounding.

    Raises:
        ConfigurationError: one of these is none.
    """

    format: str | None = None
    rounding: RoundingName = "nearest"
    seed: int = 0

    def __post_init__(self) -> None:
        names = get_args(RoundingName)
        refuse_unless(self.rounding in names, "rounding", self.rounding, f"one of {', '.join(names)}")
        refuse_unless(_is_seed(self.seed), "seed", self.seed, "a whole number from 0")
        if self.format is not None:
            NumberFormat.parse(self.format)

    @property
    def number(self) -> NumberFormat | None:
        """The format; None if values stay as they are."""
        return None if self.format is None else NumberFormat.parse(self.format)


@dataclass(frozen=True)
class Messages:
    """What of a message is sent, and in which format.

    With a threshold θ a layer sends an entry only if it differs by more than θ from what it sent last; the
    receiver keeps its copy up to date. The new value is sent, not the difference, so no rounding enters and
    θ = 0 gives the very bits of sending all. An entry then carries its address besides its value.

    Attributes:
        threshold: θ; None sends all entries.
        numbers: the format; of a rounded message the rounded value is compared and sent.

    Raises:
        ConfigurationError: θ is below 0 or not finite.
    """

    threshold: float | None = None
    numbers: Rounding = Rounding()

    def __post_init__(self) -> None:
        good = self.threshold is None or 0 <= self.threshold < float("inf")
        refuse_unless(good, "messages.threshold", self.threshold, "0 or more")

    @property
    def active(self) -> bool:
        """Whether anything else is sent than the sender's numbers, all of them."""
        return self.threshold is not None or self.numbers.format is not None

    def bits(self, entries: int, width: int, dtype: np.dtype[np.floating]) -> int:
        """Return the size of a message in bits.

        Args:
            entries: how many are sent, of the whole mini-batch.
            width: n, the neurons that an address tells apart: it takes ⌈log2 n⌉ bits.
            dtype: of the network; its numbers are sent if no format is given.
        """
        number = self.numbers.number
        one = 8 * dtype.itemsize if number is None else number.bits
        return entries * (one if self.threshold is None else one + (width - 1).bit_length())

    def bytes(self, entries: int, width: int, dtype: np.dtype[np.floating]) -> int:
        """Return the size of a message in whole bytes; see `bits`."""
        return -(-self.bits(entries, width, dtype) // 8)


@dataclass(frozen=True)
class Dead:
    """A core that sends nothing any more: a layer, or a share of its lines.

    A layer's lines are the entries of its messages: one a neuron for its error, one a neuron of the layer
    above for its prediction. Which are silent is drawn once, by the seed of `Faults`.

    Attributes:
        layer: whose.
        share: of its lines, rounded to whole ones; 1 silences the layer.
        step: the first training step, counted from 0, in which it sends nothing.

    Raises:
        ConfigurationError: a value out of range.
    """

    layer: int
    share: float = 1.0
    step: int = 0

    def __post_init__(self) -> None:
        refuse_unless(_is_seed(self.layer), "faults.dead_layer", self.layer, "a layer")
        refuse_unless(0 < self.share <= 1, "faults.dead_share", self.share, "above 0, at most 1")
        refuse_unless(_is_seed(self.step), "faults.dead_step", self.step, "a whole number from 0")


@dataclass(frozen=True)
class Faults:
    """What goes wrong with messages, each independently with a probability.

    Attributes:
        loss: a message does not arrive; the receiver notices that it is missing, and goes on with the one
            before.
        duplication: a message goes over its link twice.
        delay: a message takes `delay_time` longer, and those behind it on the link wait.
        reorder: a message steps aside for `delay_time`, and those behind it may overtake it.
        delay_time: in the hardware's time units.
        dead: a core that has died.
        seed: of all of this.

    Raises:
        ConfigurationError: a probability outside [0, 1], a time below 0, or delays without a time.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    delay_time: float = 0.0
    dead: Dead | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            refuse_unless(0 <= rate <= 1, f"faults.{name}", rate, "a probability from 0 to 1")
        time = self.delay_time
        refuse_unless(0 <= time < float("inf"), "faults.delay_time", time, "0 or more")
        held = bool(self.delay or self.reorder)
        refuse_unless(not held or time > 0, "faults.delay_time", time, "above 0 where messages are held back")
        refuse_unless(_is_seed(self.seed), "faults.seed", self.seed, "a whole number from 0")

    @property
    def active(self) -> bool:
        """Whether anything can go wrong."""
        return self.dead is not None or any(getattr(self, name) for name in RATES)

    def check_timeless(self) -> None:
        """Refuse faults that an engine without a clock cannot have.

        Raises:
            ConfigurationError: names the first of them.
        """
        for name in IN_TIME:
            if getattr(self, name):
                raise ConfigurationError(
                    f"faults.{name} depends on when messages arrive: use the event engine (--engine event)"
                )


@dataclass(frozen=True)
class Channels:
    """All that happens to numbers between layers, and to the activities that layers keep.

    Predictions and errors have settings of their own, because their sizes differ by orders of magnitude.

    Attributes:
        predictions: which entries of a prediction are sent, and in which format.
        errors: the same of an error.
        faults: what goes wrong on the way.
        states: the format in which layers keep their activity: it is rounded whenever it was written.
    """

    predictions: Messages = Messages()
    errors: Messages = Messages()
    faults: Faults = Faults()
    states: Rounding = Rounding()

    def on(self, link: tuple[int, int]) -> Messages:
        """Return the settings of a link, (source, target): errors go down, predictions up."""
        return self.errors if link[0] > link[1] else self.predictions

    @property
    def carry(self) -> bool:
        """Whether a message is anything else than its sender's numbers, all of them, once."""
        return self.predictions.active or self.errors.active or self.faults.active

    @property
    def active(self) -> bool:
        """Whether anything happens at all."""
        return self.carry or self.states.format is not None

    @property
    def thresholded(self) -> bool:
        """Whether some messages leave out entries that hardly changed."""
        return self.predictions.threshold is not None or self.errors.threshold is not None

    @property
    def formatted(self) -> bool:
        """Whether some messages have a number format of their own."""
        return any(one.numbers.format is not None for one in (self.predictions, self.errors))

    @property
    def round(self) -> bool:
        """Whether messages or activities have a number format of their own."""
        return self.formatted or self.states.format is not None

    def check(self, network: Network) -> None:
        """Refuse what a network cannot have.

        Raises:
            ConfigurationError: a format beyond the network's dtype, or a dead layer that is not there.
        """
        for rounding in (self.predictions.numbers, self.errors.numbers, self.states):
            if rounding.number is not None:
                rounding.number.check_holds(network.dtype)
        dead = self.faults.dead
        if dead is not None and dead.layer > network.top:
            raise ConfigurationError(
                f"faults.dead_layer = {dead.layer}: expected a layer from 0 to {network.top}"
            )

    def describe(self) -> dict[str, Any]:
        """Return the settings, fit for JSON."""
        return asdict(self)


PLAIN = Channels()  # everything is sent as it is, and arrives
