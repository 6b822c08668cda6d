"""How many threads the matrix products of a network deserve."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits

from pcsim.network.network import Network

# Multiplications of the largest product below which one thread serves best: BLAS threads wait by spinning,
# and next to any other busy process that made the 64-128-128-10 digits network 15 times slower.
ONE_THREAD_BELOW = 4_000_000


def suited_threads(network: Network, batch: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread if the network's products are small."""
    largest = max(connection.multiplications for connection in network.connections) * batch
    return threadpool_limits(1, user_api="blas") if largest < ONE_THREAD_BELOW else nullcontext()
