"""Ways of messages under a mapping: the same hops and additions as the traffic counted tile by tile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcsim.hardware.charge import charge, dense
from pcsim.hardware.chip import Chip
from pcsim.hardware.machine import load_machine
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.placement import place
from pcsim.hardware.prices import Term
from pcsim.hardware.traffic import traffic_of
from pcsim.hardware.ways import Way, ways_of
from pcsim.hardware.work import UPDATES, Setting, work_of
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

CHIP = Chip(rows=3, columns=3, neurons_per_core=5)
NETWORK = Network.dense([12, 9, 4], seed=1)


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "incremental"])
@pytest.mark.parametrize("placement", ["row", "snake", "traffic"])
def test_hops_and_additions_are_those_of_the_traffic(order, placement):
    """Charged hops, links in bits and additions of part sums are what the tiles' packets come to."""
    program = Program.build(NETWORK, Schedule(order, iterations=2))
    mapping = place(program, CHIP, 2, placement, "test")
    traffic = traffic_of(program, mapping, 2)
    machine = replace(load_machine("unit"), hop_mm=1.0)
    setting = Setting(NETWORK, 2, UPDATES["sgd"], machine, ways_of(program, mapping, 2))
    bill = charge(setting, [dense(program, 2)], ordered=False)
    assert bill.mapped
    works = list(_messages(program, setting))
    hops = sum(one[Term.HOP_HORIZONTAL] + one[Term.HOP_VERTICAL] for one in works)
    assert 4 * hops == pytest.approx(traffic.bytes_times_hops)
    assert sum(one[Term.LINK_BIT_MM] for one in works) == pytest.approx(8 * traffic.bytes_times_hops)
    assert sum(one.get(Term.ADDITION, 0) for one in works) == pytest.approx(traffic.merged_values)
    assert traffic.merged_values > 0


def _messages(program, setting):
    """Yield the counts of every message of a program."""
    for operation in program.operations:
        work = work_of(operation, setting)
        if Term.MESSAGE in work.counts:
            yield work.counts[Term.MESSAGE]


def test_ways_by_hand():
    """4-2-1 on a row of four cores: layer 0 in two tiles on cores 0 and 1, layers 1 and 2 on core 3.

    A prediction of layer 0 has two part sums, over 3 and 2 links, put together by one addition a value; its
    first packets have 3 hops at most. The error back is one multicast to cores 0 and 1 over 3 links. Layers
    1 and 2 share a core: nothing crosses a link.
    """
    network = Network.dense([4, 2, 1], output="identity")
    program = Program.build(network, Schedule("sequential", iterations=1))
    tiles = (Tile(0, 0, 2, 0), Tile(0, 2, 4, 1), Tile(1, 0, 2, 3), Tile(2, 0, 1, 3))
    mapping = Mapping("test", Chip(1, 4), network.sizes, tiles, "by hand")
    ways = ways_of(program, mapping, batch=3)
    assert ways[0, 1] == Way(sent=2, arrived=2, across=5, down=0, added=1, first=(3, 0))
    assert ways[1, 0] == Way(sent=1, arrived=2, across=3, down=0, added=0, first=(3, 0))
    assert ways[1, 2] == ways[2, 1] == Way(sent=1, arrived=1, across=0, down=0, added=0, first=(0, 0))
