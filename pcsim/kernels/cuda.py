"""The arithmetic on a GPU: products by cuBLAS, everything else in Numba kernels, one pass over memory each.

Functions and their meaning are those of `pcsim.kernels.reference`; arrays are `DeviceArray`. The kernels are
in `cuda_hebbian` (weights) and `cuda_local` (activities and errors). Nothing here waits for the GPU but what
returns a Python number: the energies, for observers.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Kernels, OutputName, cuda_local, reference
from pcsim.kernels.cuda_arrays import DeviceArray
from pcsim.kernels.cuda_conv import CudaConvolution
from pcsim.kernels.cuda_device import WARP
from pcsim.kernels.cuda_launch import DeviceScalar, number_of, views
from pcsim.kernels.cuda_learning import CudaLearning
from pcsim.kernels.dense import DenseSynapses

__all__ = ["CudaKernels", "DeviceArray", "DeviceScalar"]


class CudaKernels(CudaLearning):
    """Kernels for one GPU, on torch's current stream; see `CudaLearning` for the arguments and learning.

    With NUMBA_ENABLE_CUDASIM=1 in the environment Numba's simulator takes the place of the GPU.
    """

    def copy(self, values: DeviceArray, out: DeviceArray) -> None:
        """Out = values, (batch, n)."""
        out[...] = values

    def copy_and_count(self, values: DeviceArray, out: DeviceArray) -> int:
        """Out = values, (batch, n); return how many of them are not zero, counted on the host."""
        out[...] = values
        return int(np.count_nonzero(out.copy()))

    def output(self, name: OutputName, prediction: DeviceArray) -> DeviceArray:
        """Return out(p_L), in an array that the next call for this shape overwrites."""
        said, unused = (self.scratch(use, prediction.shape, prediction.dtype) for use in ("said", "unused"))
        self.clamp_and_compare(prediction, prediction, name, 1.0, said, unused)
        return said

    def predict(
        self,
        activity: DeviceArray,
        weight: DeviceArray,
        bias: DeviceArray,
        activation: ActivationName,
        out: DeviceArray,
    ) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l."""
        rates = activity
        if activation != "identity":
            rates = self.scratch("rates", activity.shape, activity.dtype)
            self.fire(activity, activation, rates)
        self.predict_from_rates(rates, weight, bias, out)

    def dense(self, activation: ActivationName, batch: int) -> DenseSynapses:
        """Return what computes a dense connection."""
        return DenseSynapses(cast("Kernels", self), activation)

    def convolution(
        self, layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
    ) -> CudaConvolution:
        """Return what computes a convolutional connection for mini-batches of `batch` samples."""
        return CudaConvolution(self, layer, activation, batch, dtype)

    def predict_from_rates(
        self, rates: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
    ) -> None:
        """`predict` where f(ĥ_l) is at hand already, from `relax_and_compare`."""
        self.products.predict(rates, weight, bias, out)

    def fire(self, activity: DeviceArray, activation: ActivationName, out: DeviceArray) -> None:
        """Write f(ĥ_l) to `out`."""
        self.launch_each(cuda_local.rates_kernel(activation, number_of(activity)), (activity, out))

    def compare(self, activity: DeviceArray, prediction: DeviceArray, out: DeviceArray) -> None:
        """e_l = ĥ_l − p_l; nothing is returned that the host would wait for."""
        self.launch_each(cuda_local.compare_kernel(), (activity, prediction, out))

    def compare_output(
        self, activity: DeviceArray, prediction: DeviceArray, output_name: OutputName, out: DeviceArray
    ) -> None:
        """e_L = ĥ_L − out(p_L)."""
        self.clamp_and_compare(activity, prediction, output_name, 0.0, activity, out)

    def soft_clamp(
        self,
        target: DeviceArray,
        prediction: DeviceArray,
        output_name: OutputName,
        mix: float,
        out: DeviceArray,
    ) -> None:
        """(3) ĥ_L = (1 − m) y + m out(p_L)."""
        unused = self.scratch("unused", out.shape, out.dtype)
        self.clamp_and_compare(target, prediction, output_name, mix, out, unused)

    def clamp_and_compare(
        self,
        target: DeviceArray,
        prediction: DeviceArray,
        output_name: OutputName,
        mix: float,
        activity: DeviceArray,
        error: DeviceArray,
        message: DeviceArray | None = None,
    ) -> None:
        """(3), then e_L = ĥ_L − out(p_L) into error and message: one kernel; mix = 0 is the hard clamp."""
        kernel = cuda_local.output_kernel(output_name, number_of(activity))
        batch, width = activity.shape
        threads = min(-(-width // WARP) * WARP, cuda_local.ROW_THREADS)
        sent = error if message is None else message
        self.launch(kernel, batch, threads, *views(target, prediction, activity, error, sent), mix)

    def feedback(
        self, error_above: DeviceArray, weight: DeviceArray, precision_above: float, out: DeviceArray
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, before the gate f'(ĥ_l)."""
        self.products.feedback(error_above, weight, precision_above, out)

    def relax(
        self,
        activity: DeviceArray,
        error: DeviceArray,
        feedback: DeviceArray,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> None:
        """(2) ĥ_l += k ( f'(ĥ_l) ⊙ W_lᵀγ_{l+1}e_{l+1} − γ_l e_l − γ_l^decay f'(ĥ_l) ⊙ f(ĥ_l) ), in place."""
        kernel = cuda_local.relax_kernel(activation, number_of(activity), compares=False, fires=False)
        arrays = (activity, error, feedback, error, error, error)
        self.launch_each(kernel, arrays, step, precision, activity_decay)

    def relax_and_compare(
        self,
        activity: DeviceArray,
        error: DeviceArray,
        feedback: DeviceArray,
        prediction: DeviceArray,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
        message: DeviceArray | None = None,
        rates: DeviceArray | None = None,
    ) -> None:
        """`relax`, then e_l = ĥ_l − p_l into error and message, and f(ĥ_l) into rates: one pass over memory.

        The message is the copy of the error that is sent down; rates serve `predict_from_rates`.
        """
        fires = rates is not None
        kernel = cuda_local.relax_kernel(activation, number_of(activity), compares=True, fires=fires)
        sent, fired = error if message is None else message, error if rates is None else rates
        arrays = (activity, error, feedback, prediction, sent, fired)
        self.launch_each(kernel, arrays, step, precision, activity_decay)

    def squared_error(self, error: DeviceArray) -> float:
        """Return ½‖e_l‖², the mean over the batch; waits for the device."""
        return self._half_squared_norm(error, "identity")

    def free_energy(
        self,
        activity: DeviceArray,
        squared_error: float,
        activation: ActivationName,
        precision: float,
        activity_decay: float,
    ) -> float:
        """(1) Return γ_l ½‖e_l‖² + γ_l^decay ½‖f(ĥ_l)‖², the mean over the batch; waits for the device."""
        energy = precision * squared_error
        if activity_decay != 0:
            energy += activity_decay * self._half_squared_norm(activity, activation)
        return energy

    def output_free_energy(
        self,
        target: DeviceArray,
        activity: DeviceArray,
        prediction: DeviceArray,
        squared_error: float,
        output_name: OutputName,
        precision: float,
    ) -> float:
        """(1) Return the output layer's share, worked out on the host: for observers, never in a step."""
        arrays = (target.copy(), activity.copy(), prediction.copy())
        return reference.output_free_energy(*arrays, squared_error, output_name, precision)

    def _half_squared_norm(self, values: DeviceArray, activation: ActivationName) -> float:
        """Return ½‖f(values)‖² / batch."""
        norm = self.scratch("squared norm", (1,), "float64")
        self.launch_squared_norm(values, activation, norm)
        return 0.5 * float(DeviceScalar(norm)) / len(values)
