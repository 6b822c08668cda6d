"""Kernels that learn from a gradient that a product has formed: one thread an element of weight or bias.

They take over where a weight has too few tiles for its mini-batch; see `walks_far`. Arrays are flat.
Steps and books are those of `pcsim.kernels.cuda_hebbian`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pcsim.kernels.cuda_device import Kernel, Number, View, block_sum, cuda
from pcsim.kernels.cuda_hebbian import Books, adam_change, close_books, step_size


@cache
def apply_kernel(number: Number) -> Kernel:
    """(7) W_l += s G_l, b_l += s g_l with s = rate/(v + r) + minimum_rate, then (8).

    Arguments: weight, bias, G_l, g_l, books.
    """
    add_up, close, step_of = block_sum(number), close_books(), step_size(number)

    def apply(
        weight: View,
        bias: View,
        gradient: View,
        bias_gradient: View,
        books: Books,
    ) -> None:
        i, weights = cuda.grid(1), weight.size
        scale, norm = step_of(books), number(0)
        if i < weights:
            norm = abs(gradient[i])
            weight[i] += scale * gradient[i]
        elif i < weights + bias.size:
            norm = abs(bias_gradient[i - weights])
            bias[i - weights] += scale * bias_gradient[i - weights]
        norm = add_up(norm)
        if cuda.threadIdx.x == 0:
            close(np.float64(norm), books)

    return cuda.jit(apply)


@cache
def apply_adam_kernel(number: Number) -> Kernel:
    """Adam on −G_l; its Σ|step| is one before the rate.

    Arguments: weight, bias, G_l, g_l, then the first and second moments of weight and of bias, corrections
    (2,) = 1/(1 − β₁ⁿ), 1/(1 − β₂ⁿ), float64, rate, beta1, beta2, epsilon, books.
    """
    add_up, close, change = block_sum(number), close_books(), adam_change(number)

    def apply_adam(
        weight: View,
        bias: View,
        gradient: View,
        bias_gradient: View,
        first: View,
        second: View,
        bias_first: View,
        bias_second: View,
        corrections: View,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        books: Books,
    ) -> None:
        i, weights, norm = cuda.grid(1), weight.size, number(0)
        alpha, keep1, keep2 = number(rate), number(1 - beta1), number(1 - beta2)
        c1, c2, small = number(corrections[0]), number(corrections[1]), number(epsilon)
        if i < weights:
            one, two, step = change(first[i], second[i], gradient[i], keep1, keep2, c1, c2, small)
            norm = abs(step)
            first[i], second[i] = one, two
            weight[i] += alpha * step
        elif i < weights + bias.size:
            j = i - weights
            one, two, step = change(
                bias_first[j], bias_second[j], bias_gradient[j], keep1, keep2, c1, c2, small
            )
            norm = abs(step)
            bias_first[j], bias_second[j] = one, two
            bias[j] += alpha * step
        norm = add_up(norm)
        if cuda.threadIdx.x == 0:
            close(np.float64(norm), books)

    return cuda.jit(apply_adam)
