"""The arithmetic on a GPU: large products by cuBLAS, everything else in Numba kernels.

Functions and their meaning are those of `pcsim.kernels.reference`; arrays are `DeviceArray`. The kernels are
in `cuda_products`, `cuda_hebbian` and `cuda_apply` (weights), `cuda_local` (activities and errors) and
`cuda_conv`. Nothing here waits for the GPU: numbers that are found, such as energies, are `DeviceNumber` and
wait when they are converted to float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Kernels, OutputName, Relaxation, cuda_local, cuda_simulator
from pcsim.kernels.cuda_arrays import DeviceArray
from pcsim.kernels.cuda_blocks import Tile
from pcsim.kernels.cuda_conv import CudaConvolution
from pcsim.kernels.cuda_launch import flat, number_of
from pcsim.kernels.cuda_learning import CudaLearning
from pcsim.kernels.cuda_numbers import DeviceNumber
from pcsim.kernels.cuda_products import Back, Relaxing, feedback_plan, predict_plan
from pcsim.kernels.dense import DenseSynapses

__all__ = ["CudaKernels", "DeviceArray", "DeviceNumber"]

# Blocks of one warp, for networks of a few neurons in the simulator: each thread is a Python thread.
SMALL_TILE = Tile(across=8, down=4, columns_each=2, rows_each=2, depth=3)
SMALL_PRODUCT_TILE = Tile(across=8, down=4, columns_each=1, rows_each=1, depth=3)


@dataclass(frozen=True)
class CudaSynapses(DenseSynapses):
    """One dense connection on a GPU, whose feedback is used where it is formed."""

    def relax_and_compare(
        self,
        activity: DeviceArray,
        error: DeviceArray,
        error_above: DeviceArray,
        weight: DeviceArray,
        prediction: DeviceArray,
        feedback: DeviceArray,
        constants: Relaxation,
    ) -> DeviceNumber:
        """See `ComparingSynapses`."""
        kernels = cast("CudaKernels", self.kernels)
        return kernels.bring_back_and_compare(
            activity, error, error_above, weight, prediction, feedback, self.activation, constants
        )


class CudaKernels(CudaLearning):
    """Kernels for one GPU, on torch's current stream; see `CudaLearning` for the arguments and learning.

    With NUMBA_ENABLE_CUDASIM=1 in the environment Numba's simulator takes the place of the GPU.
    """

    @classmethod
    def ready(cls) -> Self:
        """Return kernels for training: with small blocks in the simulator."""
        if cuda_simulator.simulated():
            return cls(tile=SMALL_TILE, product_tile=SMALL_PRODUCT_TILE)
        return cls()

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
        plan = predict_plan(activation, number_of(out), out.shape, self._product_tile)
        if plan is None:
            self.products.predict(self.rates(activity, activation), weight, bias, out)
        else:
            arrays, extents = flat(activity, weight, bias, out), (*activity.shape, len(weight))
            self.launch(plan.kernel, plan.grid, plan.block, *arrays, *extents)

    def dense(self, activation: ActivationName, batch: int) -> CudaSynapses:
        """Return what computes a dense connection."""
        return CudaSynapses(cast("Kernels", self), activation)

    def convolution(
        self, layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
    ) -> CudaConvolution:
        """Return what computes a convolutional connection for mini-batches of `batch` samples."""
        return CudaConvolution(self, layer, activation, batch, dtype)

    def fire(self, activity: DeviceArray, activation: ActivationName, out: DeviceArray) -> None:
        """Write f(ĥ_l) to `out`."""
        self.launch_each(cuda_local.rates_kernel(activation, number_of(activity)), (activity, out))

    def compare(self, activity: DeviceArray, prediction: DeviceArray, out: DeviceArray) -> DeviceNumber:
        """e_l = ĥ_l − p_l; return ½‖e_l‖² as `squared_error` would."""
        kernel = cuda_local.compare_kernel(number_of(out))
        return self.launch_and_sum(kernel, (activity, prediction, out)) * (0.5 / len(out))

    def compare_output(
        self, activity: DeviceArray, prediction: DeviceArray, output_name: OutputName, out: DeviceArray
    ) -> DeviceNumber:
        """e_L = ĥ_L − out(p_L); return ½‖e_L‖² as `squared_error` would."""
        return self.clamp_and_compare(activity, prediction, output_name, 0.0, activity, out)

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
    ) -> DeviceNumber:
        """(3), then e_L = ĥ_L − out(p_L) and ½‖e_L‖²: one kernel; mix = 0 is the hard clamp."""
        kernel = cuda_local.output_kernel(output_name, number_of(activity))
        norm = self.launch_rows(kernel, (target, prediction, activity, error), mix)
        return norm * (0.5 / len(error))

    def feedback(
        self, error_above: DeviceArray, weight: DeviceArray, precision_above: float, out: DeviceArray
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, before the gate f'(ĥ_l)."""
        plan = feedback_plan(number_of(out), out.shape, self._product_tile)
        if plan is None:
            self.products.feedback(error_above, weight, precision_above, out)
        else:
            arrays, extents = flat(error_above, weight), (*out.shape, len(weight))
            self.launch(
                plan.kernel, plan.grid, plan.block, *arrays, *extents, Back(out.flat, float(precision_above))
            )

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
        kernel = cuda_local.relax_kernel(activation, number_of(activity))
        self.launch_each(kernel, (activity, error, feedback), step, precision, activity_decay)

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
    ) -> DeviceNumber:
        """`relax`, then `compare`: one pass over memory."""
        kernel = cuda_local.relax_and_compare_kernel(activation, number_of(activity))
        arrays = (activity, error, feedback, prediction)
        norm = self.launch_and_sum(kernel, arrays, step, precision, activity_decay)
        return norm * (0.5 / len(error))

    def bring_back_and_compare(
        self,
        activity: DeviceArray,
        error: DeviceArray,
        error_above: DeviceArray,
        weight: DeviceArray,
        prediction: DeviceArray,
        feedback: DeviceArray,
        activation: ActivationName,
        constants: Relaxation,
    ) -> DeviceNumber:
        """`feedback`, then `relax_and_compare`: one kernel, if one of ours multiplies."""
        step, precision, above, decay = map(float, constants)
        plan = feedback_plan(number_of(activity), activity.shape, self._product_tile, activation)
        if plan is None:
            self.feedback(error_above, weight, above, feedback)
            return self.relax_and_compare(
                activity, error, feedback, prediction, activation, step, precision, decay
            )
        blocks = plan.grid[0] * plan.grid[1]
        cells, first = self.take(blocks)
        own, place = (activity.flat, error.flat, prediction.flat), (cells.array.view, first)
        end = Relaxing(above, *own, step, precision, decay, *place)
        extents = *activity.shape, len(weight)
        self.launch(plan.kernel, plan.grid, plan.block, *flat(error_above, weight), *extents, end)
        return DeviceNumber(((1.0, cells, first, blocks),)) * (0.5 / len(error))

    def squared_error(self, error: DeviceArray) -> DeviceNumber:
        """Return ½‖e_l‖², the mean over the batch."""
        return self._half_squared_norm(error, "identity")

    def free_energy(
        self,
        activity: DeviceArray,
        squared_error: DeviceNumber | float,
        activation: ActivationName,
        precision: float,
        activity_decay: float,
    ) -> DeviceNumber | float:
        """(1) Return γ_l ½‖e_l‖² + γ_l^decay ½‖f(ĥ_l)‖², the mean over the batch."""
        if activity_decay == 0:
            return squared_error * precision
        return self._half_squared_norm(activity, activation) * activity_decay + squared_error * precision

    def output_free_energy(
        self,
        target: DeviceArray,
        activity: DeviceArray,
        prediction: DeviceArray,
        squared_error: DeviceNumber,
        output_name: OutputName,
        precision: float,
    ) -> DeviceNumber:
        """(1) Return the output layer's share; see the reference."""
        kernel = cuda_local.output_energy_kernel(output_name, number_of(activity))
        return self.launch_rows(kernel, (target, activity, prediction), precision) * (1 / len(activity))

    def _half_squared_norm(self, values: DeviceArray, activation: ActivationName) -> DeviceNumber:
        """Return ½‖f(values)‖² / batch."""
        kernel = cuda_local.squared_norm_kernel(activation, number_of(values))
        return self.launch_and_sum(kernel, (values,)) * (0.5 / len(values))
