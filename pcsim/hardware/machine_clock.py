"""The event engine's clock, made from a machine's prices in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pcsim.errors import ConfigurationError
from pcsim.hardware.charge import charges, duration, unpriced_of
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.machine import Machine
from pcsim.hardware.prices import Price, Term
from pcsim.hardware.work import Setting, work_of
from pcsim.schedule.operation import Operation, Operations

_NO_DELAY = Links()


def clock_of(setting: Setting, vocabulary: Operations, links: Links = _NO_DELAY) -> Hardware:
    """Return a clock on which operations and messages take what the machine's prices say, in ns.

    Every operation of the built-in vocabulary takes the time of its own work (see `charge.duration`); one of
    a user's own name that of its multiplications. Messages take their packets' time and one hop along a row.

    Args:
        setting: network, batch, learning rule and machine.
        vocabulary: the operations of the schedule.
        links: latency that is added to messages, and jitter.

    Raises:
        ConfigurationError: a machine without any price in time.
    """
    machine = setting.machine
    prices = machine.prices.time
    if not prices:
        raise ConfigurationError(
            f"hardware '{machine.name}' has no prices in time: expected a machine that has some; "
            "`pcsim energy --list` says which do"
        )
    known = list(operations_of(vocabulary))
    works = {(one.name, one.layer): work_of(one, setting) for one in known}
    product = prices.get(Term.SYNAPTIC_OPERATION) or prices.get(Term.MULTIPLICATION)
    value, byte, hop = _message_times(machine)
    return Hardware(
        time_per_operation=_value(prices.get(Term.OPERATION)),
        time_per_multiplication=_value(product),
        time_per_value=value,
        time_per_byte=byte,
        links=_with_hop(links, hop),
        operation_times={key: duration(work, prices) for key, work in works.items()},
        unpriced=unpriced_of(works.values(), prices),
        unit="ns" if machine.prices.time_unit == "ns" else "",
    )


def operations_of(vocabulary: Operations) -> Iterator[Operation]:
    """Yield every operation that a built-in order can use, once a layer."""
    top = vocabulary.top
    yield vocabulary.clamp(0)
    yield vocabulary.clamp(top)
    yield vocabulary.compare_target(0)
    for layer in range(1, top + 1):
        yield vocabulary.initialise(layer)
        yield vocabulary.compare(layer)
    for layer in vocabulary.senders:
        yield vocabulary.predict(layer)
        yield vocabulary.learn(layer, 0)
        if vocabulary.refreshing:
            yield vocabulary.tell_norm(layer, 0)
            yield vocabulary.take_norm(layer + 1, 0)
    for layer in vocabulary.hidden if vocabulary.iterations else ():
        yield vocabulary.relax(layer, 1)


def _message_times(machine: Machine) -> tuple[float, float, float]:
    """Return what a value, a byte and a hop add to a message's time.

    The value or the byte pays for its share of a packet, the byte for its way into the inbox.
    """
    each = {Term.MESSAGE: 1.0, Term.NEAR_WRITE: 1.0, Term.HOP_HORIZONTAL: 1.0}
    cost = {one.term: one.cost for one in charges(Term.MESSAGE, each, machine.prices.time)}
    packet, written, hop = (cost.get(term, 0.0) for term in each)
    if machine.passed_bytes is None:
        return packet, written, hop
    return 0.0, packet / machine.passed_bytes + written, hop


def _with_hop(links: Links, hop: float) -> Links:
    """Add one hop along a row to the latency of every link."""
    single = {link: time + hop for link, time in links.link_latency.items()}
    return replace(links, latency=links.latency + hop, link_latency=single)


def _value(price: Price | None) -> float:
    return 0.0 if price is None else price.value
