"""Where two columns differ, in words of the network: training step, iteration, layer, neuron."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pcsim.tracing.table_reader import TableReader

# What says where a row belongs, beside the dimensions of its numbers.
TELLING = ("step", "epoch", "training_steps", "kind", "name", "layer", "target", "iteration")


@dataclass(frozen=True)
class Place:
    """Where two columns differ.

    Attributes:
        table: its name.
        column: its name.
        row: in the table.
        at: what that means: `step`, `iteration`, `layer`, `sample`, `neuron`, …, as far as there are such.
        a: the value there in A.
        b: the value in B.
    """

    table: str
    column: str
    row: int
    at: dict[str, int | str]
    a: float | int | str
    b: float | int | str


def place_of(a: TableReader, b: TableReader, name: str, index: tuple[int, ...]) -> Place:
    """Say what an index means."""
    row, *rest = index
    at: dict[str, int | str] = {}
    for column in TELLING:
        if column in a.columns and column != name and a.dims(column) == (a.unlimited,):
            part = slice(row, row + 1)
            at[column] = (a.decode(column, part) if a.flags(column) else a.read(column, part))[0].item()
    for dim, position in zip(a.dims(name)[1:], rest, strict=True):
        plain = dim.rstrip("0123456789").rstrip("_")  # neuron_2 is a neuron of layer 2
        at[plain] = a.coordinate(dim)[position].item()
    _, _, layer = name.rpartition("_")
    if a.name.startswith("probes/") and layer.isdecimal():
        at["layer"] = int(layer)
    return Place(a.name, name, row, at, _value(a, name, index), _value(b, name, index))


def _value(table: TableReader, name: str, index: tuple[int, ...]) -> float | int | str:
    """Return one number of a column, or the word that a code stands for."""
    if table.flags(name):
        return str(table.decode(name, slice(index[0], index[0] + 1))[0])
    number: float | int = table.column(name)[index].item()
    return number


def when(place: Place) -> tuple[float, float, float]:
    """Return the order of places in time: step, iteration, layer; what comes after all iterations is last."""

    def number(name: str, otherwise: float) -> float:
        value = place.at.get(name, otherwise)
        return float(value) if isinstance(value, int | float) else otherwise

    step = number("step", number("training_steps", math.inf))
    if place.column == "step":
        step = min(float(place.a), float(place.b))
    layer = number("layer", number("connection", math.inf))
    return step, number("iteration", math.inf), layer
