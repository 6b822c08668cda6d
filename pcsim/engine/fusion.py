"""Two operations of one layer in one pass over its weights, where the program allows it and the layer can.

When a layer has relaxed, nothing but a prediction can follow from its new activity. Where nobody needs the
old prediction in between, the two may follow each other at once, and one pass brings errors back through a
line of the weight and sends the new activity up through the same line while it is in cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pcsim.kernels import Array
from pcsim.network.layer import Layer
from pcsim.schedule.operation import Action, Operation, Relax
from pcsim.schedule.program import Program


@dataclass(frozen=True)
class RelaxAndPredict:
    """The action of relaxing by a given step and of predicting at once."""

    step: float

    def __call__(self, unit: Layer) -> Array:
        """Move the activity of a layer and form its prediction."""
        return unit.relax_and_predict(self.step)


def formed(unit: Layer) -> Array:
    """Return the prediction that the layer's relaxation has formed."""
    return unit.outgoing


def actions(program: Program, layers: Sequence[Layer]) -> Mapping[int, Action]:
    """Return what fused operations do where each keeps its own place, by their identities.

    A relaxation forms the prediction, too, which the prediction then only hands over. A layer does its
    operations in the order of the list; what others do meanwhile changes neither its activity nor its weight.
    """
    operations, found = program.operations, dict[int, Action]()
    for relaxation, prediction in pairs(program, layers).items():
        relax = operations[relaxation].action
        assert isinstance(relax, Relax)
        found[id(operations[relaxation])] = RelaxAndPredict(relax.step)
        found[id(operations[prediction])] = formed
    return found


def pairs(program: Program, layers: Sequence[Layer]) -> dict[int, int]:
    """Return for each relaxation that takes its layer's next prediction along the index of that prediction.

    Args:
        program: whose operations are looked at.
        layers: which of them can do both in one pass.
    """
    found = {}
    for index, operation in enumerate(program.operations):
        if isinstance(operation.action, Relax) and layers[operation.layer].can_relax_and_predict:
            prediction = _free_to_follow(program.operations, index)
            if prediction is not None:
                found[index] = prediction
    return found


def _free_to_follow(operations: Sequence[Operation], index: int) -> int | None:
    """Return the layer's next prediction if it could come right after this operation."""
    for other in range(index + 1, len(operations)):
        operation = operations[other]
        if operation.layer == operations[index].layer and operation.action is Layer.predict:
            passed = operations[index + 1 : other]
            return other if all(_independent(one, operation) for one in passed) else None
    return None


def _independent(one: Operation, other: Operation) -> bool:
    """Return whether it makes no difference which of two operations comes first."""
    touched = one.changes & (other.reads | other.changes)
    return not touched and not one.reads & other.changes
