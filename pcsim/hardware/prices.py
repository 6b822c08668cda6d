"""What one piece of work costs on a machine, and where that number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from pcsim.errors import refuse_unless


class Term(StrEnum):
    """What can be charged.

    The first six are whole pieces of work (`WHOLE`): a published figure such as "energy a synaptic operation"
    prices one of them at once. The others are the parts that they are made of, for machines whose parts
    have prices instead.
    """

    OPERATION = "operation"
    """One operation of a layer, whatever it does: control."""
    SYNAPTIC_OPERATION = "synaptic_operation"
    """One value through one weight: a multiplication and an addition."""
    NEURON_UPDATE = "neuron_update"
    """Element-wise work on one neuron: initialise, clamp, compare or relax, once."""
    WEIGHT_UPDATE = "weight_update"
    """One weight or bias changed once."""
    REDUCTION = "reduction"
    """One value in a sum over a layer or a matrix: softmax, MQ's mean |G|, norms of NLMS and precisions."""
    MESSAGE = "message"
    """One packet sent."""

    MULTIPLICATION = "multiplication"
    ADDITION = "addition"
    """An addition, subtraction or comparison."""
    FUNCTION = "function"
    """One exponential, root, quotient or the like: tanh, sigmoid and softmax need them."""
    NEAR_READ = "near_read"
    """A byte read from memory beside the arithmetic."""
    NEAR_WRITE = "near_write"
    FAR_READ = "far_read"
    """A byte read from memory off the core or chip."""
    FAR_WRITE = "far_write"
    HOP_HORIZONTAL = "hop_horizontal"
    """A packet over one link along a row; as a time: the delay of the first packet."""
    HOP_VERTICAL = "hop_vertical"
    LINK_BIT_MM = "link_bit_mm"
    """A bit over a millimetre of wire."""


WHOLE = (
    Term.OPERATION,
    Term.SYNAPTIC_OPERATION,
    Term.NEURON_UPDATE,
    Term.WEIGHT_UPDATE,
    Term.REDUCTION,
    Term.MESSAGE,
)


class Evidence(StrEnum):
    """How a number came about, from the best to the weakest."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    PRE_SILICON = "pre-silicon simulation"
    SECOND_HAND = "second-hand"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Price:
    """What one unit of a term costs.

    Attributes:
        value: in `unit`.
        unit: "pJ" for an energy, "ns" for a time, "1" for a count of work.
        source: where the number is published, or how it was derived.
        evidence: how the source came by it.
        includes: parts of the same piece of work that this price covers, so that they are not charged again.

    Raises:
        ConfigurationError: a value that is not a finite number of 0 or more.
    """

    value: float
    unit: str
    source: str
    evidence: Evidence
    includes: frozenset[Term] = frozenset()

    def __post_init__(self) -> None:
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        good = number and 0 <= self.value < float("inf")
        refuse_unless(good, "value of a price", self.value, "a finite number of 0 or more")


def _nothing() -> Mapping[Term, Price]:
    return MappingProxyType({})


@dataclass(frozen=True)
class PriceList:
    """The prices of a machine; a term that is missing has no known price, which is not zero.

    Attributes:
        energy: pJ, by term; all in one unit.
        time: ns, by term; all in one unit.
    """

    energy: Mapping[Term, Price] = field(default_factory=_nothing)
    time: Mapping[Term, Price] = field(default_factory=_nothing)

    @property
    def energy_unit(self) -> str:
        """The unit of all energies."""
        return next((price.unit for price in self.energy.values()), "pJ")

    @property
    def time_unit(self) -> str:
        """The unit of all times."""
        return next((price.unit for price in self.time.values()), "ns")

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """How its energies came about, the best first."""
        known = {price.evidence for price in self.energy.values()}
        return tuple(one for one in Evidence if one in known)
