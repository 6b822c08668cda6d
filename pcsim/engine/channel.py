"""Channels at work: what senders remember, what they round, and what the links do to messages.

Each link has random numbers of its own, drawn in the order of sending. So a static program meets the same
faults on every engine, whatever its timing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcsim.engine.state import Facts, put
from pcsim.errors import ConfigurationError
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.channel import Channels, Faults, Rounding
from pcsim.schedule.message import Fate
from pcsim.schedule.number_format import round_nearest, round_stochastic

Mask = npt.NDArray[np.bool_]
Link = tuple[int, int]  # source and target


@dataclass(frozen=True, slots=True)
class Letter:
    """What a sender puts on its link.

    Attributes:
        values: (batch, n) as sent; None where only time is simulated, or nothing is sent at all.
        entries: which of them are sent; None if all are.
        sent: how many of the values are sent; where only time is simulated all of them, as nobody knows which
            pass a threshold.
        numbers: that an event-driven link carries: of a thresholded message all that are sent, else those
            that are not zero.
        bytes: size on the link.
        unsent: whether the sender is dead.
    """

    values: Array | None
    entries: Mask | None
    sent: int
    numbers: int
    bytes: int
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class Roundoff:
    """What a number format does to the numbers of one message, or of one activity; all 0 without a format.

    Attributes:
        rounding_error: root mean square of what rounding changes them by.
        root_mean_square: of the numbers before.
        largest: of their absolute values before.
    """

    rounding_error: float = 0.0
    root_mean_square: float = 0.0
    largest: float = 0.0


EXACT = Roundoff()


@dataclass
class Carried:
    """What all messages came to since the engine was made; an engine without a clock keeps this.

    Attributes:
        messages: sent.
        values: numbers in them, had all entries been sent.
        nonzero_values: that an event-driven link would carry.
        bytes: of the messages.
        received: messages that have arrived.
        lost: messages that have not.
        unsent: messages that a dead core did not send.
    """

    messages: int = 0
    values: int = 0
    nonzero_values: int = 0
    bytes: int = 0
    received: int = 0
    lost: int = 0
    unsent: int = 0

    def count(self, letter: Letter, values: int, lost: bool) -> None:
        """Add one message, of so many values."""
        self.unsent += letter.unsent
        self.messages += not letter.unsent
        self.values += 0 if letter.unsent else values
        self.received += not letter.unsent and not lost
        self.lost += not letter.unsent and lost
        self.nonzero_values += letter.numbers
        self.bytes += letter.bytes


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with one message; see `Faults`."""

    lost: bool = False
    copied: bool = False
    delayed: bool = False
    stepped_aside: bool = False

    @property
    def fate(self) -> Fate:
        """What becomes of the message; a second copy has a fate of its own."""
        if self.lost:
            return Fate.LOST
        if self.stepped_aside:
            return Fate.REORDERED
        return Fate.DELAYED if self.delayed else Fate.ARRIVES


class Rounder:
    """Brings arrays into a number format; holds the random numbers of stochastic rounding."""

    def __init__(self, settings: Rounding, *stream: int) -> None:
        self._number, self._stochastic = settings.number, settings.rounding == "stochastic"
        self.random = np.random.default_rng([settings.seed, *stream])

    def __call__(self, values: Array) -> Array:
        """Return the values in the format; the very array if there is none."""
        if self._number is None:
            return values
        if self._stochastic:
            return round_stochastic(values, self._number, self.random)
        return round_nearest(values, self._number)


class Channel:
    """One link in one direction: what its sender has sent, and the link's own chances.

    Attributes:
        sent: (batch, n), the values as last sent, if there is a threshold; zeros at first.
    """

    def __init__(
        self,
        settings: Channels,
        link: Link,
        shape: tuple[int, int],
        dtype: np.dtype[np.floating],
        buffer: Array | None,
    ) -> None:
        self._messages = settings.on(link)
        self._faults = settings.faults
        self._link, self._shape, self._dtype = link, shape, dtype
        self.sent = None if buffer is None or self._messages.threshold is None else np.zeros_like(buffer)
        self.rounder = Rounder(self._messages.numbers, 0, *link)
        self.random = np.random.default_rng([settings.faults.seed, 1, *link])
        self._silent = _silent_lines(settings.faults, link, shape[1])

    def send(self, payload: Array | None, step: int) -> Letter:
        """Say what of a message goes on the link, and remember it.

        Args:
            payload: (batch, n) what the sender has to say; None where only time is simulated.
            step: training step.
        """
        silent = self._silent_at(step)
        if self.dead_at(step):
            return Letter(None, None, 0, 0, 0, unsent=True)
        entries = None if silent is None else np.broadcast_to(~silent, self._shape)
        if payload is None:
            numbers = int(np.prod(self._shape)) if entries is None else int(np.count_nonzero(entries))
            return Letter(None, entries, numbers, numbers, self._bytes(numbers))
        values = self.rounder(payload)
        if self.sent is not None:
            changed = _changed(values, self.sent, self._messages.threshold or 0.0)
            entries = changed if entries is None else changed & entries
            np.copyto(self.sent, values, where=entries)
            numbers = int(np.count_nonzero(entries))
            return Letter(values, entries, numbers, numbers, self._bytes(numbers))
        sent = values.size if entries is None else int(np.count_nonzero(entries))
        nonzero = values != 0 if entries is None else (values != 0) & entries
        return Letter(values, entries, sent, int(np.count_nonzero(nonzero)), self._bytes(sent))

    def dead_at(self, step: int) -> bool:
        """Tell whether the sender sends nothing at all in a training step."""
        silent = self._silent_at(step)
        return silent is not None and bool(silent.all())

    def _silent_at(self, step: int) -> Mask | None:
        """Return the lines that are silent in a training step; None if none has died yet."""
        dead = self._faults.dead
        return self._silent if dead is not None and step >= dead.step else None

    def roundoff(self, payload: Array | None, letter: Letter) -> Roundoff:
        """Say what the link's number format has done to what the sender had to say."""
        if self._messages.numbers.format is None or payload is None or letter.values is None:
            return EXACT
        return roundoff(payload, letter.values)

    def mishap(self) -> Mishap:
        """Draw what goes wrong with the next message: one number for each fault that can happen."""
        faults = self._faults
        rates = (faults.loss, faults.duplication, faults.delay, faults.reorder)
        return Mishap(*(bool(rate) and self.random.random() < rate for rate in rates))

    def _bytes(self, entries: int) -> int:
        return self._messages.bytes(entries, self._shape[1], self._dtype)


class ChannelSet:
    """All channels of a network, and the formats in which its layers keep their activities.

    Raises:
        ConfigurationError: a format or layer that the network cannot have, or units on a GPU.
    """

    def __init__(
        self, settings: Channels, network: Network, batch: int, units: Sequence[Layer] | None = None
    ) -> None:
        settings.check(network)
        if settings.active and units and not isinstance(units[0].activity, np.ndarray):
            raise ConfigurationError(
                "messages, states and faults of another kind need arrays on the CPU: "
                "expected --backend cpu or reference"
            )
        self.settings, self._units = settings, units
        sizes = network.sizes
        links = [link for below in range(network.top) for link in ((below, below + 1), (below + 1, below))]
        self.links: dict[Link, Channel] = {}
        if settings.carry:
            self.links = {
                link: Channel(
                    settings,
                    link,
                    (batch, sizes[max(link)]),  # predictions are about the layer above
                    network.dtype,
                    units[max(link)].activity if units else None,
                )
                for link in links
            }
        rounds = settings.states.format is not None
        self.states = [Rounder(settings.states, 2, layer) for layer in range(len(sizes))] if rounds else []

    def prepare_inboxes(self) -> None:
        """Put zeros into every inbox, which is what a receiver has before the first message."""
        if self.links and self._units:
            for unit, kind in _doors(self._units):
                about = self._units[unit.traits.index + (kind is MessageKind.ERROR)].activity
                unit.inbox[kind] = unit.kernels.mini_batch(about.shape, about.dtype)

    def keep_measured(self, unit: Layer) -> Roundoff:
        """Round the activity of a layer that has just been written, and say what that did."""
        exact = unit.activity.copy()
        self.keep(unit)
        return roundoff(exact, unit.activity)

    def keep(self, unit: Layer) -> None:
        """Round the activity of a layer that has just been written."""
        unit.activity[...] = self.states[unit.traits.index](unit.activity)

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return copies of what senders and receivers remember, and the random states; empty if inactive."""
        arrays = {name: np.array(array) for name, array in self._arrays()}
        randoms = {name: random.bit_generator.state for name, random in self._randoms()}
        return arrays, randoms

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: arrays that are not these channels'.
        """
        for name, array in self._arrays():
            put(array, arrays, name)
        for name, random in self._randoms():
            random.bit_generator.state = facts[name]

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        for (source, target), channel in self.links.items():
            if channel.sent is not None:
                yield f"sent_{source}_{target}", channel.sent
        if self.links:
            for unit, kind in _doors(self._units or ()):
                yield f"inbox_{kind}_{unit.traits.index}", unit.inbox[kind]

    def _randoms(self) -> Iterator[tuple[str, np.random.Generator]]:
        for (source, target), channel in self.links.items():
            yield f"rounding_{source}_{target}", channel.rounder.random
            yield f"faults_{source}_{target}", channel.random
        for layer, rounder in enumerate(self.states):
            yield f"state_{layer}", rounder.random


def roundoff(exact: Array, rounded: Array) -> Roundoff:
    """Compare numbers before and after rounding, both (batch, n)."""
    before = np.asarray(exact, dtype=np.float64)
    error = np.asarray(rounded, dtype=np.float64) - before
    error_power, power = (float(np.vdot(values, values)) / values.size for values in (error, before))
    return Roundoff(math.sqrt(error_power), math.sqrt(power), float(np.abs(before).max()))


def put_into(letter_values: Array, entries: Mask | None, inbox: Array) -> None:
    """Bring a receiver's copy up to date, in place."""
    np.copyto(inbox, letter_values, where=True if entries is None else entries)


def _doors(units: Sequence[Layer]) -> Iterator[tuple[Layer, MessageKind]]:
    """Yield where messages come in: predictions at all layers but the lowest, errors at all but the top."""
    for unit in units:
        if unit.traits.index > 0:
            yield unit, MessageKind.PREDICTION
        if unit.connection is not None:
            yield unit, MessageKind.ERROR


def _changed(values: Array, sent: Array, threshold: float) -> Mask:
    """Return which entries differ by more than θ; for θ = 0 in any bit, which −0 and 0 do."""
    if threshold == 0:
        whole = np.dtype(f"u{values.dtype.itemsize}")
        return np.asarray(values.view(whole) != sent.view(whole))
    return ~(np.abs(values - sent) <= threshold)  # NaN is sent too


def _silent_lines(faults: Faults, link: Link, width: int) -> Mask | None:
    """Return which lines of a link a dead core leaves silent, (n,); None if its sender does not die."""
    dead = faults.dead
    if dead is None or dead.layer != link[0]:
        return None
    order = np.random.default_rng([faults.seed, 3, *link]).permutation(width)
    silent = np.zeros(width, dtype=bool)
    silent[order[: round(dead.share * width)]] = True
    return silent
