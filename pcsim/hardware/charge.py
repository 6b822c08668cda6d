"""The bill: what a mini-batch costs on a machine, in energy and in time, and where it goes.

A published figure prices a whole piece of work (a synaptic operation, a neuron update, …) or one of its parts
(a multiplication, a byte read, …). A piece whose own price is known is charged by it, and those of its
parts that the price does not include are charged on top. A piece without a price of its own is charged by its
parts. What has no price is listed and charged to nobody: it is not taken as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any, NamedTuple

from pcsim.errors import refuse_unless
from pcsim.hardware.machine import Machine
from pcsim.hardware.prices import WHOLE, Price, Term
from pcsim.hardware.work import Counts, Setting, Used, Work, work_of
from pcsim.network.layer import MessageKind
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program

Done = Sequence[tuple[Operation, Used]]  # the operations of one mini-batch, in the order of the program
Worked = Sequence[tuple[Operation, Work]]

_LEVEL = {
    Term.NEAR_READ: "near memory",
    Term.NEAR_WRITE: "near memory",
    Term.FAR_READ: "far memory",
    Term.FAR_WRITE: "far memory",
    Term.MESSAGE: "network",
    Term.HOP_HORIZONTAL: "network",
    Term.HOP_VERTICAL: "network",
    Term.LINK_BIT_MM: "network",
}
_ORDER = {term: index for index, term in enumerate(Term)}


@dataclass(frozen=True)
class Charge:
    """One term of a piece of work beside its price, None if it has none."""

    term: Term
    count: float
    price: Price | None

    @property
    def cost(self) -> float:
        """Count times price; 0 for a term that is listed as unpriced."""
        return 0.0 if self.price is None else self.count * self.price.value


@dataclass(frozen=True)
class Row:
    """What one kind of work of one layer costs with a mini-batch, all iterations together.

    Attributes:
        layer: who does it.
        operation: in which it is done.
        target: who receives the message; −1 if the work is not about one.
        whole: the piece of work, one of `WHOLE`.
        term: that piece itself, or the part of it that has the price.
        count: how often.
        energy_price: pJ each; None: unpriced, and then no part of the energy.
        energy: pJ.
        time_price: ns each; None: unpriced, or included in another row's.
        time: ns of the layer's or the link's time, whether or not anybody waits for it.
    """

    layer: int
    operation: str
    target: int
    whole: Term
    term: Term
    count: float
    energy_price: float | None
    energy: float
    time_price: float | None
    time: float

    @property
    def level(self) -> str:
        """Where it goes: arithmetic, near memory, far memory or network."""
        return _LEVEL.get(self.term, "arithmetic")


@dataclass(frozen=True)
class Bill:
    """What a mini-batch costs on a machine.

    Attributes:
        machine: whose prices these are.
        batch: samples in the mini-batch.
        rows: sorted; energies add up to `energy`.
        latency: ns from the first operation to the last, layers working at the same time where the program
            lets them; None if the machine has no price in time at all, or the order no fixed list.
        unpriced_energy: pieces of work, or parts of them, that happen and have no price.
        unpriced_time: the same for time.
        far: whether the weights are far.
        mapped: whether hops are those of a mapping.
        misfit: by how much the network does not fit the machine's cores; None if it does, or there are none.
        untimed: why there is no latency although the machine has prices in time; None if there is, or nobody
            knows.
    """

    machine: Machine
    batch: int
    rows: tuple[Row, ...]
    latency: float | None
    unpriced_energy: tuple[str, ...]
    unpriced_time: tuple[str, ...]
    far: bool
    mapped: bool = False
    misfit: str | None = None
    untimed: str | None = None

    @property
    def energy(self) -> float:
        """Energy of a mini-batch, pJ: the sum of all rows, without what is unpriced."""
        return fsum(row.energy for row in self.rows)

    @property
    def energy_delay_product(self) -> float | None:
        """Energy times latency of a mini-batch, pJ · ns; None without a latency."""
        return None if self.latency is None else self.energy * self.latency

    def by(self, key: Callable[[Row], str]) -> dict[str, float]:
        """Return pJ by whatever `key` says of a row, in the order of the rows' keys.

        Sums of exact sums: the parts add up to `energy` but for one rounding each.
        """
        parts: dict[str, list[float]] = {}
        for row in self.rows:
            parts.setdefault(key(row), []).append(row.energy)
        return {name: fsum(parts[name]) for name in sorted(parts)}

    def to_dict(self) -> dict[str, Any]:
        """Return the bill fit for JSON; energies in the machine's unit of energy, times in that of time."""
        return {
            "energy": self.energy,
            "energy_a_sample": self.energy / self.batch,
            "latency": self.latency,
            "energy_delay_product": self.energy_delay_product,
            "by_layer": self.by(lambda row: str(row.layer)),
            "by_operation": self.by(lambda row: row.operation),
            "by_term": self.by(lambda row: row.term),
            "by_level": self.by(lambda row: row.level),
            "by_link": self.by(
                lambda row: f"{row.layer}-{row.target}" if row.target >= 0 else "within layers"
            ),
            "unpriced_energy": list(self.unpriced_energy),
            "unpriced_time": list(self.unpriced_time),
            "weights": "far" if self.far else "near",
            "mapped": self.mapped,
            "misfit": self.misfit,
            "untimed": self.untimed,
            "rows": [asdict(row) | {"level": row.level} for row in self.rows],
        }

    def count(self, term: Term) -> float:
        """Return how often a term occurs in the rows, priced or not."""
        return fsum(row.count for row in self.rows if row.term is term)


def charges(whole: Term, counts: Counts, prices: Mapping[Term, Price]) -> list[Charge]:
    """Put prices beside the counts of one piece of work, by the rule at the top of this module.

    Returns:
        What is charged and, with no price, what is not; parts that a price includes are in neither.
    """
    priced = [term for term in counts if term in prices]  # at 0, too: its parts are included all the same
    if not priced:
        return [Charge(whole, counts[whole], None)] if counts.get(whole) else []
    included = frozenset().union(*(prices[term].includes for term in priced))
    return [
        Charge(term, counts[term], prices.get(term))
        for term in sorted(counts, key=_ORDER.__getitem__)
        if counts[term] and term not in included and (term in prices or term is not whole)
    ]


def duration(work: Work, prices: Mapping[Term, Price]) -> float:
    """Return how long a layer is busy with an operation, ns; what is unpriced takes no time."""
    return fsum(
        charge.cost
        for whole in WHOLE
        if whole in work.counts and whole is not Term.MESSAGE
        for charge in charges(whole, work.counts[whole], prices)
    )


def travel(work: Work, prices: Mapping[Term, Price]) -> float:
    """Return how long the operation's message is under way, ns: its packets in turn, the first one's hops."""
    return fsum(charge.cost for charge in charges(Term.MESSAGE, _in_time(Term.MESSAGE, work), prices))


def _in_time(whole: Term, work: Work) -> Counts:
    """Return what of a piece of work takes time."""
    return work.journey if whole is Term.MESSAGE else work.counts.get(whole, {})


def unpriced_of(works: Iterable[Work], prices: Mapping[Term, Price]) -> tuple[str, ...]:
    """Name what of these works takes time that has no price."""
    pieces = ((whole, _in_time(whole, work)) for work in works for whole in WHOLE if whole in work.counts)
    return _unpriced(pieces, prices)


def dense(program: Program, batch: int) -> Done:
    """Return a program's operations as a machine does them that does not look at the numbers."""
    return [(operation, Used.all_of(operation, program.network, batch)) for operation in program.operations]


def _worked(done: Done, setting: Setting) -> Worked:
    """Count the work of each operation; that of other iterations with the same numbers is the same."""
    known: dict[object, Work] = {}
    worked = []
    for operation, used in done:
        places = operation.reads, operation.writes, operation.sends
        what = operation.name, operation.layer, operation.multiplications, places, used
        if what not in known:
            known[what] = work_of(operation, setting, used)
        worked.append((operation, known[what]))
    return worked


def _end(worked: Worked, prices: Mapping[Term, Price]) -> float:
    """Return when the last operation or message ends, ns, if they begin as soon as they can.

    As in the event engine: one unit a layer, which does its operations in their order; a link carries one
    message after the other; an operation waits for the messages that it reads.
    """
    free: dict[int, float] = {}
    carried: dict[tuple[int, int], float] = {}
    arrived: dict[Place, float] = {}
    last = 0.0
    times: dict[int, tuple[float, float]] = {}
    for operation, work in worked:
        if id(work) not in times:
            times[id(work)] = duration(work, prices), travel(work, prices)
        busy, way = times[id(work)]
        layer = operation.layer
        inbox = (arrived.get(Place.inbox(layer, kind), 0.0) for kind in _inboxes(operation))
        free[layer] = max(free.get(layer, 0.0), *inbox, 0.0) + busy
        last = max(last, free[layer])
        if operation.sends is not None:
            link = layer, operation.target
            carried[link] = max(free[layer], carried.get(link, 0.0)) + way
            arrived[Place.inbox(operation.target, operation.sends)] = carried[link]
            last = max(last, carried[link])
    return last


def _inboxes(operation: Operation) -> list[MessageKind]:
    return [kind for kind in MessageKind if Place.inbox(operation.layer, kind) in operation.reads]


def charge(setting: Setting, mini_batches: Sequence[Done], *, ordered: bool = True) -> Bill:
    """Charge the mean of mini-batches to `setting.machine`.

    Args:
        setting: network, batch, learning rule and machine.
        mini_batches: what was done in each of them; see `dense`.
        ordered: whether their lists are programs, so that a latency follows from them.

    Raises:
        ConfigurationError: no mini-batch at all.
    """
    refuse_unless(len(mini_batches) > 0, "mini_batches", mini_batches, "at least one")
    machine = setting.machine
    worked = [_worked(done, setting) for done in mini_batches]
    counts = _tally(worked)
    rows = tuple(row for key in sorted(counts) for row in _rows(key, counts[key], machine))
    known = ordered and bool(machine.prices.time)
    return Bill(
        machine,
        setting.batch,
        rows,
        fsum(_end(one, machine.prices.time) for one in worked) / len(worked) if known else None,
        _unpriced(((WHOLE[key.order], one.energy) for key, one in counts.items()), machine.prices.energy),
        _unpriced(((WHOLE[key.order], one.time) for key, one in counts.items()), machine.prices.time),
        setting.weights_are_far,
        bool(setting.ways),
        None if setting.ways else setting.misfit,
    )


class _Key(NamedTuple):
    layer: int
    operation: str
    target: int
    order: int  # of the whole piece among WHOLE


class _Tally(NamedTuple):
    """Mean counts of one piece of work of one operation: in energy, and in time."""

    energy: dict[Term, float]
    time: dict[Term, float]


def _tally(mini_batches: Sequence[Worked]) -> dict[_Key, _Tally]:
    """Add up the counts of all operations, by who does them in which piece of work."""
    gathered: dict[_Key, list[tuple[Counts, Counts]]] = {}
    for operation, work in (pair for worked in mini_batches for pair in worked):
        for order, whole in enumerate(WHOLE):
            if whole in work.counts:
                target = operation.target if whole is Term.MESSAGE else -1
                key = _Key(operation.layer, operation.name, target, order)
                gathered.setdefault(key, []).append((work.counts[whole], _in_time(whole, work)))
    number = len(mini_batches)
    return {
        key: _Tally(_mean((one for one, _ in pairs), number), _mean((one for _, one in pairs), number))
        for key, pairs in gathered.items()
    }


def _mean(counts: Iterable[Counts], number: int) -> dict[Term, float]:
    parts: dict[Term, list[float]] = {}
    for one in counts:
        for term, count in one.items():
            parts.setdefault(term, []).append(count)
    return {term: fsum(numbers) / number for term, numbers in parts.items()}


def _rows(key: _Key, tally: _Tally, machine: Machine) -> list[Row]:
    """Return a row for each term that is charged, or would be if it had a price."""
    whole = WHOLE[key.order]
    energy = {one.term: one for one in charges(whole, tally.energy, machine.prices.energy)}
    time = {one.term: one for one in charges(whole, tally.time, machine.prices.time)}
    rows = []
    for term in sorted({*energy, *time}, key=_ORDER.__getitem__):
        in_energy, in_time = energy.get(term), time.get(term)
        rows.append(
            Row(
                key.layer,
                key.operation,
                key.target,
                whole,
                term,
                tally.energy.get(term, 0.0),
                in_energy.price.value if in_energy and in_energy.price else None,
                in_energy.cost if in_energy else 0.0,
                in_time.price.value if in_time and in_time.price else None,
                in_time.cost if in_time else 0.0,
            )
        )
    return rows


def _unpriced(pieces: Iterable[tuple[Term, Counts]], prices: Mapping[Term, Price]) -> tuple[str, ...]:
    """Name what has no price, each once: a piece of work, or a part "of" it."""
    names: dict[tuple[int, int], str] = {}
    for whole, counts in pieces:
        for one in charges(whole, counts, prices):
            if one.price is None:
                name = str(whole) if one.term is whole else f"{one.term} of {whole}"
                names[_ORDER[whole], _ORDER[one.term]] = name
    return tuple(names[order] for order in sorted(names))
