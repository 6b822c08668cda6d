"""Draws sequential.svg and simultaneous.svg: one mini-batch in time, from the event engine's own timeline.

Run it after a change to the orders: `python docs/drawings/schedules.py docs/drawings`. The tests compare
what it draws with the pictures that are there.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pcsim
from pcsim.experiments.simulate import simulate_one
from pcsim.kernels import reference
from pcsim.network.layer import Layer
from pcsim.schedule.orders import ORDERS

LAYERS = (64, 24, 24, 24, 10)
ITERATIONS = 2
UNIT, ROW, LEFT, ABOVE, BELOW = 34, 52, 92, 52, 58  # pixels
BOX = 24
COLOURS = {
    "clamp": "#6b7280",
    "initialise": "#6b7280",
    "predict": "#2563a8",
    "compare": "#c2410c",
    "relax": "#15803d",
    "learn": "#7c3aed",
}
LETTERS = {"clamp": "clamp", "initialise": "init", "predict": "p", "compare": "e", "learn": "ΔW"}
TITLES = {
    "sequential": "Sequential: errors reach layer 1 in the first iteration; layers work one after the other",
    "simultaneous": "Simultaneous: layers work at once; errors move down one layer an iteration",
}


def timeline(order: str) -> tuple[Sequence[pcsim.Event], dict[int, list[bool]]]:
    """Simulate one mini-batch of digits: an operation takes one time unit, a message none.

    Returns:
        The events, and for each layer whether the first, second, … error that it formed was zero.
    """
    zero = defaultdict(list)

    def watched(ops: pcsim.Operations) -> Iterator[pcsim.Operation]:
        for operation in ORDERS[order](ops):
            compares = operation.name == "compare"
            yield replace(operation, action=watching(operation.action)) if compares else operation

    @cache  # one action stays one action, or the program could not see what only repeats itself
    def watching(action: Callable[[Layer], Any]) -> Callable[[Layer], Any]:
        def look(unit: Layer) -> Any:  # noqa: ANN401 - whatever the operation sends
            said = action(unit)
            zero[unit.traits.index].append(not unit.error.any())
            return said

        return look

    experiment = pcsim.Experiment(
        pcsim.Network.dense(LAYERS, activation="tanh", seed=1),
        pcsim.load_dataset("digits"),
        pcsim.SGD(0.1),
        pcsim.Schedule(watched, iterations=ITERATIONS),
        batch=32,
    )
    return simulate_one(experiment, reference)[0], zero


def draw(order: str) -> str:
    """Return the SVG: time to the right, layers upwards, a box an operation, an arrow a message."""
    events, zero = timeline(order)
    width = LEFT + UNIT * max(25, *(event.end for event in events)) + 16  # one scale for both pictures
    height = ABOVE + ROW * len(LAYERS) + BELOW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" '
            f'height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#1f2937">',
            *_head(order, width, height),
            *(_arrow(event) for event in events if event.kind == "message"),
            *(
                _box(event, event.name == "compare" and zero[event.layer].pop(0))
                for event in events
                if event.kind == "operation"
            ),
            *_legend(height),
            "</svg>\n",
        ]
    )


def _head(order: str, width: float, height: float) -> Iterator[str]:
    """Background, title, and a line and a name for each layer."""
    yield f"<title>{TITLES[order]}</title>"
    yield '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" '
    yield 'orient="auto-start-reverse"><path d="M0 0 L6 3 L0 6 z" fill="context-stroke"/></marker></defs>'
    yield f'<rect width="{width:g}" height="{height}" rx="6" fill="#ffffff"/>'
    yield f'<text x="16" y="28" font-size="15" font-weight="bold">{TITLES[order]}</text>'
    for layer in range(len(LAYERS)):
        name = {0: "layer 0, input", len(LAYERS) - 1: f"layer {layer}, output"}.get(layer, f"layer {layer}")
        yield f'<line x1="{LEFT}" x2="{width - 12:g}" y1="{_y(layer)}" y2="{_y(layer)}" stroke="#e5e7eb"/>'
        first, _, second = name.partition(", ")
        yield f'<text x="16" y="{_y(layer) + (4 if not second else -2)}">{first}</text>'
        if second:
            yield f'<text x="16" y="{_y(layer) + 12}" fill="#6b7280">{second}</text>'


def _box(event: pcsim.Event, silent: bool) -> str:
    """One operation; hollow where the error that it forms is zero everywhere."""
    colour, x, y = COLOURS[event.name], LEFT + UNIT * event.start + 2, _y(event.layer) - BOX / 2
    text = f"t={event.iteration}" if event.name == "relax" else LETTERS[event.name]
    wide = UNIT * (event.end - event.start) - 4
    fill, ink, dash = ("#ffffff", colour, ' stroke-dasharray="3 2"') if silent else (colour, "#ffffff", "")
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{BOX}" rx="4" fill="{fill}" '
        f'stroke="{colour}"{dash}/>'
        f'<text x="{x + wide / 2:g}" y="{y + 16:g}" text-anchor="middle" fill="{ink}" '
        f'font-size="{10 if len(text) > 3 else 12}">{text}</text>'
    )


def _arrow(event: pcsim.Event) -> str:
    """One message: up a prediction, down an error; dashed if it is zero everywhere."""
    up = event.target > event.layer
    colour, shift, gap = ("#2563a8", -4, -BOX / 2) if up else ("#c2410c", 4, BOX / 2)
    x = LEFT + UNIT * event.end + shift / 2
    zero = ' stroke-dasharray="3 3" opacity="0.6"' if not event.nonzero_values else ""
    return (
        f'<line x1="{x:g}" y1="{_y(event.layer):g}" x2="{x:g}" y2="{_y(event.target) - gap:g}" '
        f'stroke="{colour}" stroke-width="1.6" marker-end="url(#tip)"{zero}/>'
    )


def _legend(height: float) -> Iterator[str]:
    entries = [
        ("predict", "p", "predict"),
        ("compare", "e", "compare"),
        ("relax", "t=1", "relax, iteration 1"),
        ("learn", "ΔW", "learn"),
    ]
    x, y = 16, height - 36
    for name, text, said in entries:
        yield f'<rect x="{x}" y="{y}" width="30" height="20" rx="4" fill="{COLOURS[name]}"/>'
        yield f'<text x="{x + 15}" y="{y + 14}" text-anchor="middle" fill="#ffffff">{text}</text>'
        yield f'<text x="{x + 36}" y="{y + 14}">{said}</text>'
        x += 56 + 6 * len(said)
    said = "dashed: an error that is still zero; arrows: messages"
    yield f'<text x="{x}" y="{y + 14}" fill="#6b7280">{said}</text>'


def _y(layer: int) -> float:
    return ABOVE + ROW * (len(LAYERS) - 1 - layer) + ROW / 2


if __name__ == "__main__":
    for schedule in TITLES:
        (Path(sys.argv[1]) / f"{schedule}.svg").write_text(draw(schedule))
