"""What all engines check at their doors."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType

from pcsim.errors import ProgramError, ShapeError, misshapen, refuse_unless
from pcsim.kernels import Array
from pcsim.network.layer import Layer
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program, Reaction


def check_parts(plan: Program | Reaction, kind: type | UnionType, layers: Sequence[Layer] | None) -> None:
    """Refuse what is no program, or no layers.

    Raises:
        ConfigurationError: says what to give instead.
        ShapeError: layers of another network.
    """
    program = "a pcsim.Program, as from pcsim.Program.build(network, schedule)"
    refuse_unless(isinstance(plan, kind), "program", plan, program)
    if layers is not None:
        good = isinstance(layers, Sequence) and all(isinstance(unit, Layer) for unit in layers)
        refuse_unless(good, "layers", layers, "layers, as from network.layers(batch, pcsim.MQ(1e-3))")
        sizes, expected = tuple(unit.traits.size for unit in layers), plan.network.sizes
        if sizes != expected:
            raise ShapeError(f"layers of {sizes} neurons: expected those of the program, {expected}")


def set_targets(layers: Sequence[Layer], inputs: Array, targets: Array) -> None:
    """Hand x to the input layer and y to the output layer; forget norms, which another program may have told.

    Raises:
        ShapeError: an array is not (batch, n) of its layer; broadcasting would hide a mistake.
    """
    for name, layer, array in (("inputs", layers[0], inputs), ("targets", layers[-1], targets)):
        if getattr(array, "shape", None) != layer.activity.shape:
            raise misshapen(name, array, str(layer.activity.shape))
        layer.target = layer.kernels.load(array, layer.target)
    for layer in layers:
        if layer.norm_below:
            layer.norm_below[0] = 0


def checked_payload(operation: Operation, payload: Array | None, shape: tuple[int, ...]) -> Array:
    """Return the payload of a sending operation.

    Raises:
        ProgramError: there is none, or it has another shape than the receiver expects.
    """
    if payload is None:
        raise ProgramError(f"{operation} sends its {operation.sends} but its action returned no payload")
    if payload.shape != shape:
        raise ProgramError(f"{operation} sends an array of shape {payload.shape}: expected {shape}")
    return payload
