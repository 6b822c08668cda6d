"""How long the operations of a program take on a core of a mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pcsim.hardware.charge import duration
from pcsim.hardware.chip import Chip
from pcsim.hardware.machine import Machine
from pcsim.hardware.prices import Term
from pcsim.hardware.work import Setting, Work, work_of
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
