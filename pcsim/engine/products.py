"""Who multiplies each product of a network's training steps, found out before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsim.kernels import Array, Kernels
from pcsim.network.connection import Connection, as_matrix
from pcsim.network.network import Network

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels


def settle_products(network: Network, batch: int, kernels: Kernels) -> dict[str, str]:
    """Let the self-test find out now which products are the fastest; other processes read its result.

    Args:
        network: its connections.
        batch: samples a mini-batch, as one process has them.
        kernels: others than those of the CPU leave all products to one library.

    Returns:
        Names of providers by product and shape, `{"predict 64x3072x1024": "torch"}`.
    """
    from pcsim.kernels.cpu import CpuKernels

    if not isinstance(kernels, CpuKernels):
        return {}
    found: dict[str, str] = {}
    for index, (connection, (weight, _)) in enumerate(
        zip(network.connections, network.parameters, strict=True)
    ):
        unused = () if index else ("feedback",)  # nothing comes back to the input, which is clamped
        found |= providers(connection, as_matrix(weight), batch, kernels, unused)
    return found


def providers(
    connection: Connection, weight: Array, batch: int, kernels: CpuKernels, unused: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return who computes the products of a connection, as `settle_products` does.

    A library is asked for those of a dense connection; for a single sample only Adam asks it, see
    `pcsim.kernels.online`. Convolutions always learn by our own.
    """
    from pcsim.kernels.cpu_conv import CpuConvolution

    synapses = connection.synapses(kernels, batch, weight.dtype)
    products: tuple[str, ...] = ("predict", "feedback", "hebbian") if batch > 1 else ("hebbian",)
    if isinstance(synapses, CpuConvolution):
        batch, products = synapses.width, ("predict", "feedback")
    outputs, inputs = weight.shape
    return {
        f"{product} {batch}x{inputs}x{outputs}": kernels.provider(product, batch, weight).name
        for product in products
        if product not in unused
    }
