"""Learning on a GPU: one kernel changes the weight and keeps the books.

Where a weight is small and its mini-batch long, a product forms G_l before; see `walks_far`.

SGD, NLMS and MQ are one step, W_l += (rate/(v + r) + minimum_rate) G_l, with constants of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from pcsim.kernels import ActivationName, cuda_apply, cuda_hebbian, cuda_local
from pcsim.kernels.cuda_arrays import Argument, DeviceArray, Products
from pcsim.kernels.cuda_blocks import Tile
from pcsim.kernels.cuda_device import Kernel, Number
from pcsim.kernels.cuda_hebbian import Books, walks_far
from pcsim.kernels.cuda_launch import Launcher, extent, flat, number_of, views
from pcsim.kernels.cuda_numbers import DeviceNumber
from pcsim.kernels.steps import check_operands

Moments = tuple[DeviceArray, DeviceArray, DeviceArray, DeviceArray]
MANY_UPDATES = 1e18  # n/(n + 1) is 1 in float64, and n + 1 is n: the decay counts as it is given


@dataclass(frozen=True)
class Ledger:
    """What learning at one connection needs on the device beside the rule's state; float64, (1,) or (2,).

    Attributes:
        total: Σ|step| of the update that is running and how many blocks are done, 0 in between; (2,).
        many_updates: n of a rule without a start phase.
        mean: stands in for v_l where the rule has none: 0, or ‖f(ĥ_l)‖² for NLMS.
        corrections: 1/(1 − β₁ⁿ) and 1/(1 − β₂ⁿ) of Adam; shape (2,).
    """

    total: DeviceArray
    many_updates: DeviceArray
    mean: DeviceArray
    corrections: DeviceArray


class CudaLearning(Launcher):
    """The learning functions of `CudaKernels`.

    Args:
        products: see `Launcher`.
        tile: how the learning kernels cut a weight; chosen by the mini-batch if not given.
        product_tile: how predictions and feedback are cut; chosen by their shape if not given.
    """

    def __init__(
        self, products: Products | None = None, tile: Tile | None = None, product_tile: Tile | None = None
    ) -> None:
        super().__init__(products)
        self._tile, self._product_tile = tile, product_tile
        self._ledgers: WeakKeyDictionary[DeviceArray, Ledger] = WeakKeyDictionary()

    def sgd_step(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        error_above: DeviceArray,
        activity: DeviceArray,
        activation: ActivationName,
        rate: float,
    ) -> DeviceNumber:
        """W_l += α G_l, b_l += α g_l; return the mean |Δ| over weight and bias."""
        ledger = self._ledger(weight)
        state, constants = (ledger.mean, ledger.many_updates), (0.0, rate, 1.0)
        return self._step(weight, bias, error_above, activity, activation, state, constants, 1.0)

    def nlms_step(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        error_above: DeviceArray,
        activity: DeviceArray,
        activation: ActivationName,
    ) -> DeviceNumber:
        """SGD with α_l = 1/(‖f(ĥ_l)‖² + 1), for a mini-batch of one; the norm never leaves the device."""
        ledger = self._ledger(weight)
        norm = cuda_local.whole_norm_kernel(activation, number_of(activity))
        self.launch(norm, 1, extent(activity.size)[1], activity.flat, ledger.mean.view)
        state, constants = (ledger.mean, ledger.many_updates), (1.0, 0.0, 1.0)
        return self._step(weight, bias, error_above, activity, activation, state, constants, 1.0)

    def mq_step(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        error_above: DeviceArray,
        activity: DeviceArray,
        activation: ActivationName,
        mean_gradient: DeviceArray,
        updates: DeviceArray,
        rate: float,
        minimum_rate: float,
        r: float,
        decay: float,
    ) -> DeviceNumber:
        """(7) and (8); v_l and n are float64, shape (1,), and never leave the device."""
        state, constants = (mean_gradient, updates), (rate, minimum_rate, r)
        return self._step(weight, bias, error_above, activity, activation, state, constants, decay)

    def adam_step(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        error_above: DeviceArray,
        activity: DeviceArray,
        activation: ActivationName,
        moments: Moments,
        updates: DeviceArray,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> DeviceNumber:
        """Adam on −G_l; n, float64, shape (1,), is counted up on the device."""
        ledger, operands = self._ledger(weight), (weight, bias, error_above, activity)
        corrections, betas = ledger.corrections.view, (float(beta1), float(beta2))
        self.launch(cuda_hebbian.corrections_kernel(), 1, 1, updates.view, corrections, *betas)
        state = ledger.mean, ledger.many_updates
        books, magnitude = self._open_books(weight, bias, state, (0.0, rate, 1.0), 1.0)
        others = (*flat(*moments), corrections, float(rate), *betas, float(epsilon), books)
        self._change(cuda_hebbian.adam_kernel, cuda_apply.apply_adam_kernel, operands, activation, others)
        return magnitude

    def _step(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        error_above: DeviceArray,
        activity: DeviceArray,
        activation: ActivationName,
        state: tuple[DeviceArray, DeviceArray],
        constants: tuple[float, float, float],
        decay: float,
    ) -> DeviceNumber:
        """Change weight and bias and settle; `constants` are rate, minimum_rate and r."""
        operands = weight, bias, error_above, activity
        books, magnitude = self._open_books(weight, bias, state, constants, decay)
        if len(activity) == 1 and self._tile is None:
            check_operands(*operands)
            kernel = cuda_hebbian.one_sample_kernel(activation, number_of(weight))
            grid = cuda_hebbian.one_sample_grid(*weight.shape)
            self.launch(
                kernel, grid, cuda_hebbian.ONE_SAMPLE_THREADS, *flat(*operands), *activity.shape, books
            )
        else:
            self._change(cuda_hebbian.hebbian_kernel, cuda_apply.apply_kernel, operands, activation, (books,))
        return magnitude

    def _change(
        self,
        by_tiles: Callable[[ActivationName, Number, Tile], Kernel],
        by_elements: Callable[[Number], Kernel],
        operands: tuple[DeviceArray, DeviceArray, DeviceArray, DeviceArray],
        activation: ActivationName,
        others: Sequence[Argument],
    ) -> None:
        """Form G_l and change the weight in one kernel, or G_l by a product first; `others` both take."""
        weight, bias, error_above, activity = operands
        check_operands(*operands)
        number, tile = number_of(weight), self._tile or cuda_hebbian.tile_for(len(weight))
        if walks_far(tile, len(activity), *weight.shape):
            gradient = self.scratch("gradient", weight.shape, weight.dtype)
            bias_gradient = self.scratch("gradient", bias.shape, bias.dtype)
            self.products.hebbian(error_above, self.rates(activity, activation), gradient, bias_gradient)
            arrays, threads = flat(weight, bias, gradient, bias_gradient), extent(weight.size + bias.size)
            self.launch(by_elements(number), *threads, *arrays, *others)
        else:
            kernel, grid = by_tiles(activation, number, tile), tile.grid(*weight.shape)
            self.launch(kernel, grid, tile.threads, *flat(*operands), *activity.shape, *others)

    def _open_books(
        self,
        weight: DeviceArray,
        bias: DeviceArray,
        state: tuple[DeviceArray, DeviceArray],
        constants: tuple[float, float, float],
        decay: float,
    ) -> tuple[Books, DeviceNumber]:
        """Return the books of an update and the mean |Δ| that will be found in them."""
        cells, first = self.take(1)
        v, n, total = views(*state, self._ledger(weight).total)
        rate, minimum_rate, r = map(float, constants)  # for an int a kernel would be compiled anew
        elements, place = weight.size + bias.size, (cells.array.view, first)
        books = Books(v, n, total, elements, rate, minimum_rate, r, float(decay), *place)
        return books, DeviceNumber(((1.0, cells, first, 1),))

    def _ledger(self, weight: DeviceArray) -> Ledger:
        """Return the books of a connection, opened at its first step and closed with its weight."""
        if weight not in self._ledgers:
            many, mean = (self.zeros((1,), np.float64) for _ in range(2))
            many[...] = np.array([MANY_UPDATES])
            total, corrections = (self.zeros((2,), np.float64) for _ in range(2))
            self._ledgers[weight] = Ledger(total, many, mean, corrections)
        return self._ledgers[weight]
