"""Mini-batches one after the other, as one program: how far the next may begin before the last has learnt.

*Exact*: every operation waits for whatever it would read or overwrite, weights included, so that the numbers
are those of one mini-batch at a time. *Stale*: mini-batch b reads the weights that mini-batch b − w has left,
and w of them are under way, each with activities, errors and inboxes of its own; learning adds up in order.
A window of w means updates that are w − 1 mini-batches late, and w times the memory for activities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from pcsim.errors import ProgramError, refuse_unless
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.parallelism import Graph, makespan
from pcsim.schedule.program import Program

LEARNT = ("weight", "bias", "learner")


def repeated(program: Program, mini_batches: int, window: int = 1) -> Program:
    """Return several mini-batches as one program, to be scheduled, not to be run.

    Args:
        program: of one mini-batch.
        mini_batches: how many.
        window: w, how many mini-batches may be under way; 1 is exact.

    Raises:
        ConfigurationError: no mini-batch or no window at all.
        ProgramError: a window above 1, but a layer that learns more than once a mini-batch.
    """
    refuse_unless(mini_batches >= 1, "mini_batches", mini_batches, "1 or more")
    refuse_unless(window >= 1, "window", window, "1 or more")
    if window == 1:
        return replace(program, operations=program.operations * mini_batches)
    _check_learns_once(program)
    copies = tuple(
        operation for number in range(mini_batches) for operation in _copies(program, number, window)
    )
    return replace(program, operations=copies)


def interval(program: Program, cores: int | None, *, window: int = 1, mini_batches: int = 8) -> float:
    """Return the time from one mini-batch's end to the next one's, once the pipeline is full.

    It is the mean over the second half of twice as many mini-batches.

    Args:
        program: of one mini-batch.
        cores: P; None for as many as could be used.
        window: w, see `repeated`.
        mini_batches: in each half.

    Raises:
        ConfigurationError: as `repeated`, or fewer than one core.
        ProgramError: as `repeated`.
    """
    half, whole = (_time(program, cores, window, count) for count in (mini_batches, 2 * mini_batches))
    return (whole - half) / mini_batches


def _time(program: Program, cores: int | None, window: int, mini_batches: int) -> int:
    """Return the makespan; a layer of a copy is as wide as its original."""
    several = repeated(program, mini_batches, window)
    sizes, layers = program.network.sizes, len(program.network.sizes)
    graph = Graph(
        tuple(operation.multiplications for operation in several.operations),
        tuple(sizes[operation.layer % layers] for operation in several.operations),
        several.dependencies,
    )
    return graph.span if cores is None else makespan(graph, cores)


def _copies(program: Program, number: int, window: int) -> Iterator[Operation]:
    """Yield a mini-batch's operations, with states of their own and weights of a certain age.

    Layer l of the copy in slot s of the window is layer s (L + 1) + l. Weights are versions: mini-batch b's
    learning turns version b into b + 1, everybody else reads version b − w + 1, or the first there is.
    """
    away = number % window * len(program.network.sizes)
    age = max(number - window + 1, 0)

    def moved(place: Place, version: int) -> Place:
        if place.name in LEARNT:
            return Place(place.layer, f"{place.name} {version}")
        return Place(place.layer + away, place.name)

    for operation in program.operations:
        learns = operation.name == "learn"
        yield replace(
            operation,
            layer=operation.layer + away,
            reads=frozenset(moved(place, number if learns else age) for place in operation.reads),
            writes=frozenset(moved(place, number + 1) for place in operation.writes),
        )


def _check_learns_once(program: Program) -> None:
    learning = Counter(operation.layer for operation in program.operations if operation.name == "learn")
    for layer, times in learning.items():
        if times > 1:
            raise ProgramError(
                f"layer {layer} learns {times} times a mini-batch: expected once for a pipeline with stale "
                "weights; its iterations read what has just been learnt: use a window of 1"
            )
