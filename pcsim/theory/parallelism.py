"""Closed forms of work, span and messages of every static order, for a dense network of equal widths.

The network has L connections (L + 1 layers of n neurons, L − 1 of them hidden), the schedule T iterations,
T ≥ 1. Derivations are in docs/parallelism.md. The tests hold every formula against the programs and against
the event simulator, for many L and T.

Work is counted in products of n² multiplications. A span is in products too: one takes n multiplications'
time on the n cores of its layer. Messages carry n values a sample each; a program sends one for every product
but those of backpropagation's gradients, because whatever is worth a product is worth telling and vice versa.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.errors import ConfigurationError, nearest, refuse_unless

STATIC = ("simultaneous", "sequential", "red-black", "bottom-up", "incremental")
BACKPROP = "backprop"


@dataclass(frozen=True)
class Counts:
    """What a mini-batch of one order costs, whatever the width.

    Attributes:
        products: with a weight matrix, outer products included; T₁ on one core in units of n².
        span: products on the longest way through the dependencies; T∞ in units of n.
        operations: on the longest way, if every operation takes one unit.
        layer_time: products one after the other where every layer has a core of its own; units of n².
        messages: sent.
    """

    products: int
    span: int
    operations: int
    layer_time: int
    messages: int

    @property
    def parallelism(self) -> float:
        """T₁/T∞ in layers that are busy at a time, on average: no more layers than that can be of use."""
        return self.products / self.span


def counts(order: str, depth: int, iterations: int) -> Counts:
    """Return the closed forms.

    Args:
        order: a static order, or "backprop", which has no iterations.
        depth: L, connections of the network, 2 at least.
        iterations: T, 1 at least.

    Raises:
        ConfigurationError: an unknown order, L below 2, T below 1.
    """
    refuse_unless(depth >= 2, "depth", depth, "2 connections or more")
    refuse_unless(iterations >= 1, "iterations", iterations, "1 or more")
    L, T = depth, iterations
    if order == BACKPROP:
        return Counts(3 * L - 1, 2 * L, 3 * L + 2, 2 * L, 2 * L)
    if order == "incremental":
        products = T * (4 * L - 2)
        return Counts(products, L - 1 + 4 * T, 2 * L - 1 + 8 * T, L - 1 + 4 * T, products)
    products = 2 * L + 2 * T * (L - 1)
    if order == "simultaneous" or (L == 2 and order in STATIC):
        return Counts(products, L + 1 + 2 * T, 2 * L + 3 + 4 * T, L + 1 + 2 * T, products)
    match order:
        case "sequential":
            return Counts(products, 2 * L - 2 + 3 * T, 4 * L - 3 + 5 * T, 2 * L - 2 + 3 * T, products)
        case "red-black":
            return Counts(products, L + 1 + 3 * T, 2 * L + 3 + 5 * T, L + 1 + 4 * T, products)
        case "bottom-up":
            return Counts(products, 2 * L - 2 + 3 * T, 3 * L + 5 * T, 2 * L - 2 + 4 * T, products)
    raise ConfigurationError(f"order '{order}': {nearest(order, (*STATIC, BACKPROP))}")
