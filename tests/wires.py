"""Channels of test runs in a line each."""

from pcsim.schedule.channel import Channels, Faults, Messages, Rounding


def wired(threshold=None, prediction=None, error=None, state=None, rounding="nearest", **faults):
    """Return channels: a threshold of all messages, formats of predictions, errors and activities, faults."""
    one, other, kept = (Rounding(name, rounding) for name in (prediction, error, state))
    return Channels(Messages(threshold, one), Messages(threshold, other), Faults(**faults), kept)
