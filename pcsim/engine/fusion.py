"""Two operations of one layer in one pass over memory, where the program allows it and the layer can.

When a layer has relaxed, nothing but a prediction can follow from its new activity. Where nobody needs the
old prediction in between, the two may follow each other at once, and one pass brings errors back through a
line of the weight and sends the new activity up through the same line while it is in cache. A layer that has
relaxed or was clamped may be compared with its prediction on the way, too, if that stays the same in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.operation import Action, Operation, Place, Relax
from pcsim.schedule.program import Program


@dataclass(frozen=True)
class RelaxAndPredict:
    """The action of relaxing by a given step and of predicting at once."""

    step: float

    def __call__(self, unit: Layer) -> Array:
        """Move the activity of a layer and form its prediction."""
        return unit.relax_and_predict(self.step)


@dataclass(frozen=True)
class RelaxAndCompare:
    """The action of relaxing by a given step and of comparing at once."""

    step: float

    def __call__(self, unit: Layer) -> Array:
        """Move the activity of a layer and form its error."""
        return unit.relax_and_compare(self.step)


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
            prediction = _free_to_follow(program.operations, index, Layer.predict)
            if prediction is not None:
                found[index] = prediction
    return found


def all_pairs(program: Program, layers: Sequence[Layer]) -> dict[int, tuple[int, Action]]:
    """Return `comparisons`, and where a prediction can be taken along, rather that."""
    found = comparisons(program, layers)
    for relaxation, prediction in pairs(program, layers).items():
        relax = program.operations[relaxation].action
        assert isinstance(relax, Relax)
        found[relaxation] = prediction, RelaxAndPredict(relax.step)
    return found


def comparisons(program: Program, layers: Sequence[Layer]) -> dict[int, tuple[int, Action]]:
    """Return for each operation that takes its layer's next comparison along its index, and what does both.

    Arguments are those of `pairs`. This is for who runs a program in list order: messages that an operation
    needs are in the inbox then, and not only when it is its turn.
    """
    found: dict[int, tuple[int, Action]] = {}
    for index, operation in enumerate(program.operations):
        action, unit = operation.action, layers[operation.layer]
        both: Action
        if isinstance(action, Relax):
            both = RelaxAndCompare(action.step)
        elif action is Layer.clamp:  # the input's, too, which has nothing to compare
            both = Layer.clamp_and_compare
        else:
            continue
        comparison = _free_to_follow(program.operations, index, Layer.compare)
        if comparison is not None and unit.can_compare_on_the_way:
            found[index] = comparison, both
    return found


def _free_to_follow(operations: Sequence[Operation], index: int, action: Action) -> int | None:
    """Return the layer's next operation of this action if it could come right after this one."""
    for other in range(index + 1, len(operations)):
        operation = operations[other]
        if operation.layer == operations[index].layer and operation.action is action:
            passed = operations[index + 1 : other]
            return other if all(_independent(one, operation) for one in passed) else None
    return None


def _independent(one: Operation, other: Operation) -> bool:
    """Return whether it makes no difference which of two operations comes first."""
    changes = _changes(other)
    return not one.changes & (other.reads | changes) and not one.reads & changes


def _changes(operation: Operation) -> frozenset[Place]:
    """Return what may hold something new afterwards.

    Of a comparison that is also the inbox below, whether it is told or not: an error and what was told of it
    may be one array; see `Program.tells_what_it_keeps`.
    """
    if operation.action is not Layer.compare:
        return operation.changes
    return operation.changes | {Place.inbox(operation.layer - 1, MessageKind.ERROR)}
