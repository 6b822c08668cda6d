"""How long the operations of a program take on a core of a mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pcsim.hardware.charge import duration, unpriced_of
from pcsim.hardware.chip import Chip
from pcsim.hardware.machine import Machine
from pcsim.hardware.prices import Evidence, Price, Term
from pcsim.hardware.traffic import Traffic
from pcsim.hardware.work import Counts, Setting, Work, work_of
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program


@dataclass(frozen=True, eq=False)
class Durations:
    """How long each operation of a program takes, whole mini-batch, in ns.

    Attributes:
        fixed: of the operation on every tile, however small; (operations,).
        shared: of the operation on a core that holds the whole layer; a tile takes its neurons' share.
        addition: of adding one number of a part sum to another.
    """

    fixed: NDArray[np.float64]
    shared: NDArray[np.float64]
    addition: float = 0.0


def priced_durations(program: Program, setting: Setting) -> Durations:
    """Return durations by a machine's prices in time; what has no price takes no time and must be named."""
    prices = setting.machine.prices.time
    control = prices[Term.OPERATION].value if Term.OPERATION in prices else 0.0
    known: dict[Operation, float] = {}  # operations of other iterations are the same work
    whole = []
    for operation in program.operations:
        same = replace(operation, iteration=0)
        if same not in known:
            counts = work_of(operation, setting).counts
            shared = Work({piece: parts for piece, parts in counts.items() if piece is not Term.OPERATION})
            known[same] = duration(shared, prices)
        whole.append(known[same])
    addition = prices[Term.ADDITION].value if Term.ADDITION in prices else 0.0
    return Durations(np.full(len(whole), control), np.array(whole, np.float64), addition)


def unpriced_on_mesh(program: Program, setting: Setting, chip: Chip, traffic: Traffic) -> tuple[str, ...]:
    """Name what takes no time on the mesh only because its time has no price; as in `charge.unpriced_of`.

    Args:
        program: what is simulated.
        setting: with the machine's prices.
        chip: with width and latencies of its links, which need no price.
        traffic: of the program on that chip.
    """
    prices = dict(setting.machine.prices.time)
    known = {
        Term.MESSAGE: chip.link_bytes_per_ns,
        Term.HOP_HORIZONTAL: chip.hop_ns_horizontal,
        Term.HOP_VERTICAL: chip.hop_ns_vertical,
    }
    for term, number in known.items():
        if number is not None and term not in prices:
            prices[term] = Price(0.0, "ns", "the chip", Evidence.ASSUMED)
    journey = {
        Term.MESSAGE: float(traffic.packets),
        Term.NEAR_WRITE: float(traffic.packets + traffic.local),
        Term.ADDITION: float(traffic.merged_values),
        Term.HOP_HORIZONTAL: float(traffic.hops_horizontal),
        Term.HOP_VERTICAL: float(traffic.hops_vertical),
    }
    works = [Work(_without_message(work_of(one, setting))) for one in program.operations]
    names = unpriced_of([*works, Work({Term.MESSAGE: {}}, journey)], prices)
    unlimited = traffic.hops and Term.MESSAGE not in {*prices, *names}
    return (*names, "width of links") if unlimited else names


def _without_message(work: Work) -> dict[Term, Counts]:
    return {whole: counts for whole, counts in work.counts.items() if whole is not Term.MESSAGE}


def chip_of(machine: Machine, itemsize: int) -> Chip | None:
    """Return a machine's chip; a link of unknown width passes a packet in the time of its price.

    Args:
        machine: with or without a chip.
        itemsize: bytes of a value: a packet carries one if the machine does not say how many bytes it
            carries.
    """
    chip, price = machine.chip, machine.prices.time.get(Term.MESSAGE)
    if chip is None or chip.link_bytes_per_ns is not None or price is None or not price.value:
        return chip
    return replace(chip, link_bytes_per_ns=(machine.packet_bytes or itemsize) / price.value)
