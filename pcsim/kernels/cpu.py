"""The arithmetic on a CPU, fast: products by the best library at hand, everything else in compiled loops.

Functions and their meaning are those of `pcsim.kernels.reference`. What is linear on either side of 0 (relu,
leaky relu, identity) goes through one fused loop; the curved activations share the reference's code.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

from pcsim.kernels import ActivationName, Array, OutputName, loops, products, reference

LEAKS: dict[ActivationName, float] = {"relu": 0.0, "leaky_relu": reference.LEAK, "identity": 1.0}
BLOCK_BYTES = 2**21  # of a gradient that is used while it is hot; smaller blocks make BLAS repack too often
WORTH_A_THREAD = 4_000_000  # multiplications of a product below which waking another thread costs too much


Result = TypeVar("Result")


class CpuKernels:
    """Kernels for one process; keeps scratch arrays by shape and remembers the fastest provider by shape.

    Products are split by neurons over threads of our own, each of which calls a library on one thread:
    the libraries' own threads wait by spinning and slow each other down when they are mixed.

    Args:
        threads: how many threads share a large product.
        choices: which library does which product; the self-test of this machine if not given.
    """

    free_energy = staticmethod(reference.free_energy)

    def __init__(self, threads: int = 1, choices: products.Choices | None = None) -> None:
        self.threads = threads
        self.choices = choices or products.Choices()
        self._chosen: dict[tuple[str, int, tuple[int, ...], str], products.Provider] = {}
        self._scratch: dict[tuple[str, tuple[int, ...], str], Array] = {}
        products.one_thread_a_library()
        self._pool = (
            ThreadPoolExecutor(threads - 1, initializer=products.one_thread_a_library)
            if threads > 1
            else None
        )

    def output(self, name: OutputName, prediction: Array) -> Array:
        """Return out(p_L); for softmax a scratch array that the next call overwrites."""
        if name != "softmax":
            return reference.output(name, prediction)
        out = self._array("output", prediction.shape, prediction.dtype)
        loops.softmax(prediction, out)
        return out

    def compare_output(self, activity: Array, prediction: Array, output_name: OutputName, out: Array) -> None:
        """e_L = ĥ_L − out(p_L)."""
        self.compare(activity, self.output(output_name, prediction), out)

    def soft_clamp(
        self, target: Array, prediction: Array, output_name: OutputName, mix: float, out: Array
    ) -> None:
        """(3) ĥ_L = (1 − m) y + m out(p_L)."""
        output = self.output(output_name, prediction)
        loops.soft_clamp(np.ascontiguousarray(target).ravel(), output.ravel(), mix, out.ravel())

    def predict(
        self, activity: Array, weight: Array, bias: Array, activation: ActivationName, out: Array
    ) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l."""
        rates = self._rates(activation, activity)
        provider = self._choose("predict", len(activity), weight)

        def part(first: int, last: int) -> None:
            provider.predict(rates, weight, bias, out, first, last)

        self._share(part, weight.shape[0], len(activity) * weight.size)

    def compare(self, activity: Array, prediction: Array, out: Array) -> None:
        """e_l = ĥ_l − p_l."""
        loops.compare(activity.ravel(), prediction.ravel(), out.ravel())

    def feedback(self, error_above: Array, weight: Array, precision_above: float, out: Array) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, before the gate f'(ĥ_l)."""
        provider = self._choose("feedback", len(error_above), weight)

        def part(first: int, last: int) -> Array:
            share = out if first == 0 else self._array(f"feedback {first}", out.shape, out.dtype)
            provider.feedback(error_above, weight, share, first, last)
            return share

        # Each thread sums over its own outputs; the sums are added in a fixed order.
        for share in self._share(part, weight.shape[0], len(error_above) * weight.size)[1:]:
            out += share
        if precision_above != 1:
            loops.scaled_copy(out.ravel(), precision_above, out.ravel())

    def relax(
        self,
        activity: Array,
        error: Array,
        feedback: Array,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> None:
        """(2) ĥ_l += k ( f'(ĥ_l) ⊙ W_lᵀγ_{l+1}e_{l+1} − γ_l e_l − γ_l^decay f'(ĥ_l) ⊙ f(ĥ_l) )."""
        leak = LEAKS.get(activation)
        if leak is None:
            reference.relax(activity, error, feedback, activation, step, precision, activity_decay)
        else:
            flat = (activity.ravel(), error.ravel(), feedback.ravel())
            loops.relax(*flat, step, precision, activity_decay, leak)

    def sgd_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """W_l += α G_l, b_l += α g_l; return the mean |Δ| over weight and bias."""
        return abs(rate) * self._hebbian_step(weight, bias, error_above, activity, activation, rate)

    def nlms_step(
        self, weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName
    ) -> float:
        """SGD with α_l = 1/(‖f(ĥ_l)‖² + 1); see the reference."""
        rates = self._rates(activation, activity).ravel()
        rate = 1 / (float(loops.squared_norm(rates)) + 1)
        return rate * self._hebbian_step(weight, bias, error_above, activity, activation, rate)

    def mq_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        mean_gradient: Array,
        rate: float,
        minimum_rate: float,
        r: float,
        decay: float,
    ) -> float:
        """(7) and (8) in one pass: no gradient of the whole matrix ever exists."""
        scale = rate / (float(mean_gradient[0]) + r) + minimum_rate
        mean = self._hebbian_step(weight, bias, error_above, activity, activation, scale)
        mean_gradient[0] = decay * mean_gradient[0] + (1 - decay) * mean
        return scale * mean

    def adam_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        moments: tuple[Array, Array, Array, Array],
        updates: int,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> float:
        """Adam on −G_l, block by block; return the mean |Δ|."""
        constants = (rate, beta1, beta2, 1 / (1 - beta1**updates), 1 / (1 - beta2**updates), epsilon)
        first, second, bias_first, bias_second = moments
        mean = 1 / len(activity)

        def apply(rows: slice, total: Array, bias_total: Array) -> float:
            flat = (array[rows].ravel() for array in (weight, first, second))
            changed_weight, changed_first, changed_second = flat
            norm = loops.adam(changed_weight, total.ravel(), changed_first, changed_second, mean, *constants)
            own = (bias[rows], bias_total, bias_first[rows], bias_second[rows])
            return float(norm) + float(loops.adam(*own, mean, *constants))

        norm = self._by_blocks(weight, error_above, self._rates(activation, activity), apply)
        return norm / (weight.size + bias.size)

    def squared_error(self, error: Array) -> float:
        """Return ½‖e_l‖², the mean over the batch."""
        return 0.5 * float(loops.squared_norm(error.ravel())) / len(error)

    def output_free_energy(
        self,
        target: Array,
        activity: Array,
        prediction: Array,
        squared_error: float,
        output_name: OutputName,
        precision: float,
    ) -> float:
        """(1) Return the output layer's share of the free energy; see the reference."""
        if output_name != "softmax":
            return reference.output_free_energy(
                target, activity, prediction, squared_error, output_name, precision
            )
        return float(loops.softmax_energy(target, activity, prediction, precision)) / len(activity)

    def _hebbian_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """Add rate · [G, g] to weight and bias; return the mean |[G, g]|."""
        batch = len(activity)
        rates = self._rates(activation, activity)
        elements = weight.size + bias.size
        if batch == 1:
            return self._rank_one_step(weight, bias, error_above[0], rates[0], rate) / elements

        def apply(rows: slice, total: Array, bias_total: Array) -> float:
            return float(loops.update(weight[rows], bias[rows], total, bias_total, rate / batch))

        return self._by_blocks(weight, error_above, rates, apply) / (batch * elements)

    def _rank_one_step(self, weight: Array, bias: Array, error: Array, rates: Array, rate: float) -> float:
        def part(first: int, last: int) -> float:
            rows = slice(first, last)
            return float(loops.update_rank_one(weight[rows], bias[rows], error[rows], rates, rate))

        return sum(self._share(part, len(weight), weight.size))

    def _by_blocks(
        self,
        weight: Array,
        error_above: Array,
        rates: Array,
        apply: Callable[[slice, Array, Array], float],
    ) -> float:
        """Form Σ e_{l+1} f(ĥ_l)ᵀ over the batch by blocks of rows; hand each to `apply` while it is hot."""
        rows, columns = weight.shape
        provider = self._choose("hebbian", len(rates), weight)
        bias_total = self._array("bias total", (rows,), weight.dtype)
        loops.sum_rows(error_above, bias_total)
        height = max(1, min(rows, BLOCK_BYTES // (columns * weight.itemsize)))

        def part(first: int, last: int) -> float:
            block = self._array(f"block {first}", (height, columns), weight.dtype)
            norm = 0.0
            for start in range(first, last, height):
                chosen = slice(start, min(start + height, last))
                total = block[: chosen.stop - start]
                provider.hebbian(error_above, rates, total, chosen.start, chosen.stop)
                norm += apply(chosen, total, bias_total[chosen])
            return norm

        return sum(self._share(part, rows, len(rates) * weight.size))

    def _share(self, part: Callable[[int, int], Result], size: int, work: int) -> list[Result]:
        """Run a part for each thread over equal ranges of `size`, or all of it on this thread."""
        if self._pool is None or work < WORTH_A_THREAD or size < self.threads:
            return [part(0, size)]
        bounds = [size * thread // self.threads for thread in range(self.threads + 1)]
        others = [self._pool.submit(part, first, last) for first, last in pairwise(bounds[1:])]
        return [part(0, bounds[1]), *(other.result() for other in others)]

    def _rates(self, activation: ActivationName, activity: Array) -> Array:
        """Return f(ĥ); a scratch array that the next call overwrites."""
        leak = LEAKS.get(activation)
        if leak == 1:
            return activity
        if leak is None:
            return reference.activate(activation, activity)
        rates = self._array("rates", activity.shape, activity.dtype)
        loops.rectify(activity.ravel(), leak, rates.ravel())
        return rates

    def _array(self, use: str, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Array:
        key = use, shape, dtype.char
        if key not in self._scratch:
            self._scratch[key] = np.empty(shape, dtype)
        return self._scratch[key]

    def _choose(self, product: str, batch: int, weight: Array) -> products.Provider:
        """Return the fastest provider of a product of this shape, measured at the first call ever."""
        key = product, batch, weight.shape, weight.dtype.char
        if key not in self._chosen:
            outputs, inputs = weight.shape
            self._chosen[key] = self.choices.best(product, batch, inputs, outputs, weight.dtype.name)
        return self._chosen[key]
