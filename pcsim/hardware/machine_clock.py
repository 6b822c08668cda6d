"""The event engine's clock, made from a machine's prices in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pcsim.errors import ConfigurationError
from pcsim.hardware.charge import charges, duration, unpriced_of
from pcsim.hardware.clock import Hardware, Links
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
        links: latency that is added to every message, and jitter.

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
    return Hardware(
        time_per_operation=_value(prices.get(Term.OPERATION)),
        time_per_multiplication=_value(product),
        time_per_byte=_time_per_byte(setting),
        links=_with_hops(links, setting),
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
    for layer in vocabulary.hidden if vocabulary.iterations else ():
        yield vocabulary.relax(layer, 1)


def _time_per_byte(setting: Setting) -> float:
    """Return what a byte of a message adds to its time: its share of a packet, and its way into the inbox."""
    machine = setting.machine
    share = 1 / (machine.packet_bytes or setting.network.dtype.itemsize)
    counts = {Term.MESSAGE: share, Term.NEAR_WRITE: 1.0}
    return sum(one.cost for one in charges(Term.MESSAGE, counts, machine.prices.time))


def _with_hops(links: Links, setting: Setting) -> Links:
    """Add one hop along a row to the latency of every link."""
    hop = _value(setting.machine.prices.time.get(Term.HOP_HORIZONTAL))
    single = {link: time + hop for link, time in links.link_latency.items()}
    return replace(links, latency=links.latency + hop, link_latency=single)


def _value(price: Price | None) -> float:
    return 0.0 if price is None else price.value
