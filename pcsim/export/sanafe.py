"""A recorded training step for SANA-FE, an independent simulator of neuromorphic chips.

SANA-FE (Boyle et al., IEEE TCAD 2025, https://github.com/SLAM-Lab/SANA-FE) simulates spikes on a mesh of
cores and prices them. Here it replays what was recorded: each number of a message that is not zero, or with
a threshold was sent, is a spike. pcsim never imports it; it runs on its own on the two files arch.yaml and
net.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pcsim.errors import TraceError
from pcsim.export.mapped import mapping_of
from pcsim.export.options import Options, Outcome, Prices, Progress
from pcsim.export.recorded import Model, read_model
from pcsim.export.sanafe_architecture import arch_lines, unpriced
from pcsim.export.sanafe_count import Count, count
from pcsim.export.sanafe_mesh import CYCLE_COLUMNS, CYCLE_ROWS, Mesh
from pcsim.export.sanafe_network import Replay, build, net_lines
from pcsim.export.sanafe_traffic import Traffic, read_traffic
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.settings import machine_of

NO_PRICES = Prices()


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write `arch.yaml` and `net.yaml` for one training step, the last recorded one unless it is named.

    Raises:
        ConfigurationError: the mapping is none, or that of another network.
        TraceError: the trace has no events, or convolutions.
    """
    model = read_model(trace)
    _require_dense(trace, model)
    prices = options.prices or NO_PRICES
    mapping = _mapping(model, options.mapping, prices)
    traffic = read_traffic(trace, model.sizes, options.step)
    progress(0.1)
    replay = build(mapping, traffic)
    mesh = Mesh.around(mapping)
    counted = count(replay, traffic, prices)
    progress(0.3)
    _save(out / "arch.yaml", arch_lines(replay, prices, mesh))
    _save(out / "net.yaml", net_lines(replay, traffic, mesh))
    manifest = {
        "step": traffic.step,
        "samples": traffic.batch,
        "timesteps": traffic.timesteps,
        "messages": len(traffic.messages),
        "edges": replay.edges,
        "mesh": [mesh.rows, mesh.columns],
        "timing_models": ["simple", "detailed", *(["cycle"] if mesh.cycle_accurate else [])],
        "mapping": mapping.to_json(),
        "prices": asdict(prices),
        "count": counted.to_dict(),
    }
    notes = (*_notes(model, prices, mesh), *_other_clock(trace, prices))
    return Outcome(notes, manifest, _summary(traffic, replay, counted, prices))


def row_order(sizes: tuple[int, ...], machine: str = "none") -> Mapping:
    """Place each layer on a core of its own, row by row, on the smallest mesh that is about square."""
    columns = math.ceil(math.sqrt(len(sizes)))
    chip = Chip(math.ceil(len(sizes) / columns), columns)
    tiles = tuple(Tile(layer, 0, size, layer) for layer, size in enumerate(sizes))
    return Mapping(machine, chip, sizes, tiles, "row")


def _require_dense(trace: TraceReader, model: Model) -> None:
    for layer, kind in enumerate(model.connections):
        if kind != "dense":
            raise TraceError(
                f"{trace.path}: the connection from layer {layer} to {layer + 1} is {kind}: who an error "
                "is for depends on its pooling, which edges of SANA-FE cannot say: expected dense ones"
            )


def _mapping(model: Model, path: Path | None, prices: Prices) -> Mapping:
    if path is None:
        return row_order(model.sizes, prices.machine)
    return mapping_of(path, model.sizes)


def _save(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _notes(model: Model, prices: Prices, mesh: Mesh) -> tuple[str, ...]:
    notes = [
        "A packet is one number that is not zero or, with a threshold, that was sent; the trace says how "
        "many these are and not which, so they are spread evenly over samples and neurons.",
        "SANA-FE has no multicast, no payload and no learning: an error goes to each core by itself, all "
        "packets are alike, and products before sending and weight updates are not in the replay.",
    ]
    if missing := unpriced(prices):
        notes.append(f"No price, so 0 in arch.yaml: {', '.join(missing)}.")
    if (prices.packet_bytes or 0) > np.dtype(model.dtype).itemsize:
        notes.append(
            f"A packet of {prices.machine} has {prices.packet_bytes} bytes; here each number pays for one of "
            "its own."
        )
    if not mesh.cycle_accurate:
        notes.append(
            f"SANA-FE's cycle-accurate model knows a mesh of {CYCLE_ROWS}x{CYCLE_COLUMNS} only, and these "
            'cores need more: run the timing models "simple" and "detailed".'
        )
    return tuple(notes)


def _other_clock(trace: TraceReader, prices: Prices) -> Iterator[str]:
    """Warn where the run took its times from another machine: nobody should compare them."""
    clock = machine_of(trace.attributes)
    if clock not in (None, prices.machine):
        yield (
            f"The trace's clock was {clock}, and this is priced as {prices.machine}: of the recorded times "
            "only which messages start together is used. --hardware takes another machine."
        )


def _summary(traffic: Traffic, replay: Replay, counted: Count, prices: Prices) -> tuple[str, ...]:
    chip = replay.mapping.chip
    return (
        f"training step {traffic.step}: {len(traffic.messages)} messages, {traffic.batch} samples, "
        f"{traffic.timesteps:,} timesteps, {replay.edges:,} edges, {len(replay.mapping.cores)} cores on "
        f"{chip.rows}x{chip.columns}",
        f"machine: {prices.machine}; prices: {prices.source or 'none'}",
        f"by our count: {counted.packets:,} packets, {counted.hops:,} hops, "
        f"{counted.energy['total'] * 1e6:.4g} µJ, busiest cores {counted.busy * 1e3:.4g} ms",
    )
