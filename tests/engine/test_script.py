"""Following a script is the same as going through the queue again: events, counts, observers and bits."""

import numpy as np
import pytest

import pcsim
from pcsim.engine.event import EventEngine
from pcsim.engine.observer import Statistics
from pcsim.hardware.clock import Hardware, Links
from pcsim.schedule.channel import Channels, Faults

SLOW = Hardware(
    time_per_operation=1.0, time_per_multiplication=0.01, time_per_byte=0.02, links=Links(latency=0.7)
)


def mini_batches(count=3, batch=4):
    """Return inputs and targets."""
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(batch, 6)), np.eye(3)[rng.integers(0, 3, batch)]) for _ in range(count)]


def hurried(ops):
    """Relax and compare without new predictions: a quick layer sends many errors to a slow one below.

    Each is read three times, and must be the same although others have come meanwhile.
    """
    yield from ops.forward_sweep()
    for iteration in ops.iterations:
        for layer in (*ops.hidden, *ops.hidden, *ops.hidden):
            yield ops.relax(layer, iteration)
        for layer in ops.hidden:
            yield ops.compare(layer, iteration)
    yield from ops.learning_phase()


def made(order, hardware=SLOW, backend="reference", batch=4, **options):
    """Return an engine and its statistics on a network that starts the same each time.

    The first hidden layer is large, so that it lags behind where it need not wait.
    """
    network = pcsim.Network.dense([6, 50, 4, 4, 3], dtype="float64", seed=2)
    program = pcsim.Program.build(network, pcsim.Schedule(order, iterations=3, step_size=0.2))
    seen = Statistics(3, network.top)
    layers = network.layers(batch, pcsim.MQ(1e-2), pcsim.make_kernels(backend, "float64"))
    return EventEngine(program, layers, hardware, batch, [seen], **options), seen


@pytest.mark.parametrize(("backend", "batch"), [("reference", 4), ("cpu", 4), ("cpu", 1)])
@pytest.mark.parametrize("cores", [None, (0, 0, 1, 1, 1)], ids=["a core each", "two cores"])
@pytest.mark.parametrize(
    "order", ["sequential", "simultaneous", "bottom-up", "red-black", "incremental", hurried]
)
def test_script_and_queue_tell_the_same(order, cores, backend, batch):
    """One engine follows its script; the other is made anew from the state and asks the queue each time.

    A mini-batch of one on the CPU has relaxations that form the next prediction, too.
    """
    options = {"cores": cores, "backend": backend, "batch": batch}
    follows, seen = made(order, **options)
    for inputs, targets in mini_batches(batch=batch):
        asks, seen_anew = made(order, **options)
        asks.restore(*follows.state())
        for engine in (follows, asks):
            engine.step(inputs, targets)
        assert follows.timeline == asks.timeline
        assert follows.totals == asks.totals
        np.testing.assert_array_equal(seen.free_energy, seen_anew.free_energy)
        for one, other in zip(follows.layers[:-1], asks.layers[:-1], strict=True):
            np.testing.assert_array_equal(one.weight, other.weight)
    assert follows._script is not None
    assert follows.totals.in_flight == 0


def test_zeros_are_counted_each_time():
    """The number of non-zero values is the message's own, not that of the first mini-batch."""
    engine, _ = made("sequential")
    (inputs, targets), *_ = mini_batches()
    engine.step(inputs, targets)
    first = [event.nonzero_values for event in engine.timeline if event.kind == "message"]
    engine.step(np.full_like(inputs, -9.0), targets)
    second = [event.nonzero_values for event in engine.timeline if event.kind == "message"]
    assert len(first) == len(second)
    assert engine.totals.nonzero_values == sum(first) + sum(second)
    for message in engine.layers[1].inbox.values():
        assert np.count_nonzero(message) in second


def test_messages_keep_their_buffers_and_cannot_be_changed():
    """From the second mini-batch on nothing is allocated; a message that has come is its sender's word."""
    engine, _ = made("sequential")
    places = []
    for inputs, targets in mini_batches():
        engine.step(inputs, targets)
        places.append([message.ctypes.data for unit in engine.layers for message in unit.inbox.values()])
    assert places[1] == places[2]
    with pytest.raises(ValueError, match="read-only"):
        engine.layers[1].inbox[pcsim.MessageKind.PREDICTION][...] = 0


@pytest.mark.parametrize(
    ("hardware", "channels"),
    [(Hardware(links=Links(jitter=0.1)), Channels()), (SLOW, Channels(faults=Faults(loss=0.1)))],
    ids=["jitter", "faults"],
)
def test_chance_needs_the_queue(hardware, channels):
    """Where chance decides when messages come, or whether, each mini-batch finds its own way."""
    engine, _ = made("sequential", hardware, channels=channels)
    for inputs, targets in mini_batches(2):
        engine.step(inputs, targets)
    assert engine._script is None
