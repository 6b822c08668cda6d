"""What the messages of operations come to on their links: how many values, in how many bytes.

Dense: every value is sent. Events: zeros are not sent; with a threshold the entries that pass it are, zeros
or not. Both are in the format of the model's messages; addresses come with a threshold only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pcsim.hardware.charge import Done
from pcsim.hardware.work import Used
from pcsim.network.network import Network
from pcsim.schedule.channel import Channels, Messages
from pcsim.schedule.operation import Operation


def dense_of(operations: Iterable[Operation], network: Network, batch: int, channels: Channels) -> Done:
    """Return operations as a machine does them that looks neither at the numbers nor at a threshold."""
    return [
        (one, with_values(one, used, used.values, network, without_threshold(channels)))
        for one in operations
        for used in [Used.all_of(one, network, batch)]
    ]


def without_threshold(channels: Channels) -> Channels:
    """Return the same channels, of messages that are sent whole."""
    return replace(channels, predictions=_whole(channels.predictions), errors=_whole(channels.errors))


def with_values(
    operation: Operation, used: Used, values: float, network: Network, channels: Channels
) -> Used:
    """Return the same work with a message of so many values, if the operation sends one.

    Args:
        operation: whose work it is.
        used: what of it is about numbers that are not zero.
        values: sent, of the whole mini-batch.
        network: between whose layers the message goes.
        channels: format and threshold of its link.
    """
    if operation.sends is None:
        return used
    link = operation.layer, operation.target
    size = channels.on(link).bytes(int(values), network.sizes[max(link)], network.dtype)
    return replace(used, values=values, bytes=size)


def _whole(messages: Messages) -> Messages:
    return replace(messages, threshold=None)
