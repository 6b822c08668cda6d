"""The chip as SANA-FE describes one, arch.yaml: a mesh of tiles with one core each, and all prices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pcsim.export.options import Prices
from pcsim.export.sanafe_mesh import Mesh
from pcsim.export.sanafe_network import COMPARTMENTS, Replay

# What a replay is charged for, as machine files call it.
TERMS = ("message", "hop_horizontal", "hop_vertical", "synaptic_operation", "addition", "neuron_update")
PICO, NANO = 1e-12, 1e-9
LINK_BUFFER = 8  # packets that fit into a router's buffer, as in SANA-FE's cycle-accurate model


def unpriced(prices: Prices) -> tuple[str, ...]:
    """Return what a replay is charged for and has no price."""
    kinds = {"energy": prices.energy, "time": prices.time}
    return tuple(f"{kind}.{term}" for kind, known in kinds.items() for term in TERMS if term not in known)


def arch_lines(replay: Replay, prices: Prices, mesh: Mesh) -> Iterator[str]:
    """Yield arch.yaml. SANA-FE wants a number for everything: what has no price is 0 there, and marked."""
    yield f"# Machine: {prices.machine}; prices: {prices.source or 'none'}. Joules and seconds."
    yield "architecture:"
    yield "  name: pcsim"
    yield f"  attributes: {{width: {mesh.columns}, height: {mesh.rows}, link_buffer_size: {LINK_BUFFER}}}"
    yield "  tile:"
    for (inputs, receivers), tiles in _alike(replay, mesh):
        yield f"    - name: tile[{tiles[0]}..{tiles[-1]}]"
        yield "      attributes:"
        for direction in ("north", "south", "east", "west"):
            term = "hop_vertical" if direction in ("north", "south") else "hop_horizontal"
            yield from _price(prices, 8, f"energy_{direction}_hop", f"latency_{direction}_hop", term)
        yield "      core:"
        yield "        - name: core"
        neurons = max(1, inputs + receivers)
        yield f"          attributes: {{buffer_position: soma, max_neurons_supported: {neurons}}}"
        yield from _core(prices, inputs, receivers)


def _alike(replay: Replay, mesh: Mesh) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Yield runs of tiles that need the same, with what they need."""
    for load, tiles in groupby(range(mesh.rows * mesh.columns), lambda tile: _load(replay, mesh.core(tile))):
        yield load, list(tiles)


def _load(replay: Replay, core: int | None) -> tuple[int, int]:
    """Return how many neurons of a core send, and how many receive."""
    return (0, 0) if core is None else (replay.inputs[core], replay.receivers[core])


def _core(prices: Prices, inputs: int, receivers: int) -> Iterator[str]:
    """Yield the parts of a core.

    A machine's price of a message is for the whole packet, sent and received; SANA-FE's axon out charges it.
    Neurons that only send take the first dendrite, which nothing ever reaches.
    """
    last = max(0, receivers - 1) // COMPARTMENTS
    free = "energy_access_neuron: 0, latency_access_neuron: 0, energy_spike_out: 0, latency_spike_out: 0"
    yield "          axon_in:"
    yield "            - name: axon_in"
    yield "              # part of axon_out"
    yield "              attributes: {energy_message_in: 0, latency_message_in: 0}"
    yield "          synapse:"
    for name, term in (("weight", "synaptic_operation"), ("sum", "addition")):
        yield f"            - name: {name}"
        yield "              attributes:"
        yield "                model: current_based"
        yield from _price(prices, 16, "energy_process_spike", "latency_process_spike", term)
    yield "          dendrite:"
    for name in ("unused", f'"inbox[0..{last}]"'):
        yield f"            - name: {name}"
        yield "              attributes: {model: accumulator, energy_update: 0, latency_update: 0}"
    yield "          soma:"
    yield f'            - name: "receiver[0..{last}]"'
    yield "              attributes:"
    yield "                model: leaky_integrate_fire"
    yield from (f"                {one}" for one in free.split(", "))
    yield from _price(prices, 16, "energy_update_neuron", "latency_update_neuron", "neuron_update")
    if inputs:
        yield f'            - name: "input[0..{inputs - 1}]"'
        updates = "energy_update_neuron: 0, latency_update_neuron: 0"
        yield f"              attributes: {{model: input, {updates}, {free}}}"
    yield "          axon_out:"
    yield "            - name: axon_out"
    yield "              attributes:"
    yield from _price(prices, 16, "energy_message_out", "latency_message_out", "message")


def _price(prices: Prices, indent: int, energy: str, latency: str, term: str) -> Iterator[str]:
    """Yield an energy and a latency."""
    for name, known, unit in ((energy, prices.energy, PICO), (latency, prices.time, NANO)):
        number = f"{known[term] * unit:.9g}" if term in known else f"0  # {term} has no price"
        yield f"{' ' * indent}{name}: {number}"
