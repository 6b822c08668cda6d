"""How many threads the matrix products of a network deserve."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from threadpoolctl import threadpool_limits

from pcsim.engine.products import providers
from pcsim.network.connection import Dense, as_matrix
from pcsim.network.network import Network

# Multiplications of the largest product below which one thread of BLAS serves best: BLAS threads wait by
# spinning, and next to any other busy process that made the 64-128-128-10 digits network 15 times slower.
# Our own threads do not, but gain little where a product takes less than some 40 microseconds.
ONE_THREAD_BELOW = 4_000_000
ONE_THREAD_BELOW_ONLINE = 1_000_000  # with mini-batches of one: to fetch a weight takes longer than to use it
CLOSE = 1.03  # times the least time: fewer threads that come so close are chosen, for it is within the noise
WORTH_IT = 0.85  # of the time on one thread that several may take: less gain is not worth the other cores
REPETITIONS = 9
WARMING = 0.05  # seconds of work before the measurement, until all threads are awake


def suited_threads(network: Network, batch: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread if the network's products are small."""
    return (
        threadpool_limits(1, user_api="blas")
        if _largest(network, batch) < ONE_THREAD_BELOW
        else nullcontext()
    )


def choose_threads(network: Network, batch: int, say: Callable[[str], None] = lambda text: None) -> int:
    """Return how many threads the fast CPU kernels should use now, by a self-test of some 100 ms.

    Small products stay on one thread. So do those that a library does best here: only our own products give
    the same bits on any number of threads, and a choice that depends on the load must not decide results.

    Args:
        network: its largest product is timed.
        batch: samples a mini-batch.
        say: is told the outcome, if there was a test.
    """
    if _largest(network, batch) < (ONE_THREAD_BELOW if batch > 1 else ONE_THREAD_BELOW_ONLINE):
        return 1
    milliseconds = time_threads(network, batch)
    if len(milliseconds) == 1:
        return 1
    least = min(milliseconds.values())
    best = min(threads for threads, time in milliseconds.items() if time <= CLOSE * least)
    if milliseconds[best] > WORTH_IT * milliseconds[1]:
        best = 1
    timings = ", ".join(f"{count}: {time:.2f} ms" for count, time in milliseconds.items())
    say(f"threads: {best} (a product by threads: {timings})")
    return best


def numbers_to_try(most: int) -> list[int]:
    """Return which numbers of threads are timed: powers of two, and as many as there may be."""
    return [2**n for n in range(most.bit_length()) if 2**n < most] + [most]


def time_threads(network: Network, batch: int) -> dict[int, float]:
    """Return the median milliseconds of the largest prediction, by threads; one only for a library's."""
    from pcsim.kernels.cpu import CpuKernels
    from pcsim.kernels.passes import BLOCKS
    from pcsim.kernels.products import OwnProducts

    largest = max(network.connections, key=lambda connection: connection.multiplications)
    rng, dtype = np.random.default_rng(0), network.dtype
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    weight = as_matrix(rng.random(largest.weight_shape).astype(dtype))
    bias = np.zeros(len(weight), dtype)
    milliseconds: dict[int, float] = {}
    in_passes = batch == 1 and isinstance(largest, Dense)
    for threads in numbers_to_try(min(cores, BLOCKS) if in_passes else cores):
        kernels = CpuKernels(threads)
        synapses = largest.synapses(kernels, batch, dtype)
        placed = synapses.place(weight)
        activity = kernels.mini_batch((batch, largest.inputs), dtype)
        out = kernels.mini_batch((batch, largest.outputs), dtype)
        activity[...] = rng.random(activity.shape)
        seconds: list[float] = []
        begun = time.perf_counter()
        while len(seconds) < REPETITIONS or time.perf_counter() < begun + WARMING:
            start = time.perf_counter()
            synapses.predict(activity, placed, bias, out)
            seconds.append(time.perf_counter() - start)
        milliseconds[threads] = 1e3 * float(np.median(seconds[-REPETITIONS:]))
        if set(providers(largest, weight, batch, kernels).values()) != {OwnProducts.name}:
            break
    return milliseconds


def _largest(network: Network, batch: int) -> int:
    return max(connection.multiplications for connection in network.connections) * batch
