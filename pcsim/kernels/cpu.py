"""The arithmetic on a CPU, fast: the fastest products at hand, everything else in compiled loops.

Functions and their meaning are those of `pcsim.kernels.reference`. What is linear on either side of 0 (relu,
leaky relu, identity) goes through one fused loop; the curved activations share the reference's code.

Arrays of a mini-batch have the shape (batch, n) and lie in memory neuron by neuron, as `mini_batch` makes
them; any other layout is rearranged on the way in and out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.errors import ShapeError
from pcsim.kernels import (
    ActivationName,
    Array,
    OutputName,
    elementwise,
    loops,
    online,
    passes,
    products,
    reference,
)
from pcsim.kernels.cpu_conv import CpuConvolution
from pcsim.kernels.crew import Crew, one_thread_a_library
from pcsim.kernels.dense import DenseSynapses
from pcsim.kernels.layout import LEAKS, by_neuron, flat, neuron_by_neuron, put_back, roomy, roomy_copy
from pcsim.kernels.online import OnlineSynapses, RectifiedSynapses, by_lines
from pcsim.kernels.scratch import Scratch
from pcsim.kernels.steps import AddingSteps, check_operands


@dataclass(frozen=True)
class RowSynapses(DenseSynapses):
    """One dense connection with mini-batches of several samples."""

    kernels: CpuKernels

    def place(self, weight: Array) -> Array:
        """Return the weight row by row, as the products read it: a copy only after online learning."""
        return weight if weight.flags.c_contiguous else roomy_copy(weight)

    def settled(self, weight: Array) -> Array:
        """Return the weight after what it has learnt online, if that was put off."""
        return self.kernels.settled(weight)


class CpuKernels(AddingSteps):
    """Kernels for one process; keeps scratch arrays by shape and remembers the fastest provider by shape.

    Products are split by neurons over threads of our own; in each our loops or a library's one thread
    multiply: the libraries' own threads wait by spinning and slow each other down when they are mixed.

    Args:
        threads: how many threads share a large product.
        choices: who does which product; the self-test of this machine if not given.
    """

    to_device = staticmethod(reference.to_device)
    load = staticmethod(reference.load)
    snapshot = staticmethod(reference.snapshot)
    free_energy = staticmethod(reference.free_energy)

    def __init__(self, threads: int = 1, choices: products.Choices | None = None) -> None:
        self.threads = threads
        self.choices = choices or products.Choices()
        self._chosen: dict[tuple[str, int, tuple[int, ...], str], products.Provider] = {}
        self.scratch = Scratch()
        self.postponed = online.Postponed()
        self.crew = Crew(threads)
        one_thread_a_library()

    def mini_batch(self, shape: tuple[int, int], dtype: np.dtype[np.floating]) -> Array:
        """Return zeros of shape (batch, n), neuron by neuron in memory."""
        array = roomy(shape[::-1], dtype)
        array[...] = 0
        return array.T

    def copy(self, values: Array, out: Array) -> None:
        """Out = values, (batch, n); sample by sample, as data comes, it is turned over in small blocks."""
        if (
            len(values) > 1
            and values.dtype == out.dtype
            and values.flags.c_contiguous
            and neuron_by_neuron(out)
        ):
            blocks = elementwise.number_of_blocks(values.size)
            self.crew.share(elementwise.turn_over, values.size * elementwise.WORK, values, out.T, blocks)
        else:
            out[...] = values

    def copy_and_count(self, values: Array, out: Array) -> int:
        """Out = values, (batch, n); return how many of them are not zero: one pass."""
        into = flat(out)
        count = loops.copy_and_count(flat(values), into)
        put_back(into, out)
        return count

    def output(self, name: OutputName, prediction: Array) -> Array:
        """Return out(p_L); for softmax a scratch array that the next call overwrites."""
        if name != "softmax":
            return reference.output(name, prediction)
        given = by_neuron(prediction)
        out = self.scratch("output", given.shape, given.dtype)
        loops.softmax(given, out)
        return out.T

    def compare_output(
        self, activity: Array, prediction: Array, output_name: OutputName, out: Array
    ) -> float:
        """e_L = ĥ_L − out(p_L); return ½‖e_L‖² as `squared_error` would."""
        return self.compare(activity, self.output(output_name, prediction), out)

    def soft_clamp(
        self, target: Array, prediction: Array, output_name: OutputName, mix: float, out: Array
    ) -> None:
        """(3) ĥ_L = (1 − m) y + m out(p_L)."""
        into = flat(out)
        loops.soft_clamp(flat(target), flat(self.output(output_name, prediction)), mix, into)
        put_back(into, out)

    def predict(
        self, activity: Array, weight: Array, bias: Array, activation: ActivationName, out: Array
    ) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l."""
        weight = np.ascontiguousarray(weight)  # who has learnt online predicts for many samples, too
        rates, into = self.rates(activation, activity), by_neuron(out)
        provider = self.provider("predict", len(activity), weight)
        provider.predict(rates, weight, bias, into, self.crew)
        put_back(into, out)

    def dense(self, activation: ActivationName, batch: int) -> DenseSynapses:
        """Return what computes a dense connection; a mini-batch of one is driven by events."""
        if batch > 1:
            return RowSynapses(self, activation)
        return (RectifiedSynapses if activation in LEAKS else OnlineSynapses)(self, activation)

    def convolution(
        self, layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
    ) -> CpuConvolution:
        """Return what computes a convolutional connection for mini-batches of `batch` samples."""
        return CpuConvolution(self, self.scratch, layer, activation, batch, dtype)

    def compare(self, activity: Array, prediction: Array, out: Array) -> float:
        """e_l = ĥ_l − p_l; return ½‖e_l‖² as `squared_error` would, while the error is in cache."""
        into = flat(out)
        norm = elementwise.COMPARE(self.crew, flat(activity), flat(prediction), into)
        put_back(into, out)
        return 0.5 * norm / len(out)

    def feedback(self, error_above: Array, weight: Array, precision_above: float, out: Array) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, before the gate f'(ĥ_l)."""
        error, into = by_neuron(error_above), by_neuron(out)
        provider = self.provider("feedback", len(error_above), weight)
        provider.feedback(error, weight, into, 0, self.crew)
        if precision_above != 1:
            loops.scaled_copy(into.ravel(), precision_above, into.ravel())
        put_back(into, out)

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
            return
        into = flat(activity)
        descent = loops.Descent(step, precision, activity_decay, leak)
        elementwise.RELAX(self.crew, into, flat(error), flat(feedback), descent)
        put_back(into, activity)

    def relax_and_compare(
        self,
        activity: Array,
        error: Array,
        feedback: Array,
        prediction: Array,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> float:
        """`relax`, then `compare`."""
        leak = LEAKS.get(activation)
        if leak is None:
            self.relax(activity, error, feedback, activation, step, precision, activity_decay)
            return self.compare(activity, prediction, error)
        moved, formed = flat(activity), flat(error)
        descent = loops.Descent(step, precision, activity_decay, leak)
        back, expected = flat(feedback), flat(prediction)
        norm = elementwise.RELAX_AND_COMPARE(self.crew, moved, formed, back, expected, descent)
        put_back(moved, activity)
        put_back(formed, error)
        return 0.5 * norm / len(error)

    def clamp_and_compare(
        self,
        target: Array,
        prediction: Array,
        output_name: OutputName,
        mix: float,
        activity: Array,
        error: Array,
    ) -> float:
        """The clamp, then `compare_output`; softmax is worked out once."""
        said = self.output(output_name, prediction)
        if mix == 0:
            self.copy(target, activity)
            return self.compare(activity, said, error)
        clamped, formed = flat(activity), flat(error)
        norm = loops.clamp_and_compare(flat(target), flat(said), mix, clamped, formed)
        put_back(clamped, activity)
        put_back(formed, error)
        return 0.5 * float(norm) / len(error)

    def nlms_step(
        self, weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName
    ) -> float:
        """SGD with α_l = 1/(‖f(ĥ_l)‖² + 1); see the reference."""
        rate = 1 / (float(loops.squared_norm(self.rates(activation, activity).ravel())) + 1)
        return rate * self.add_hebbian(weight, bias, error_above, activity, activation, rate)

    def adam_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        moments: tuple[Array, Array, Array, Array],
        updates: Array,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> float:
        """Adam on −G_l, block by block; return the mean |Δ|."""
        corrections = reference.adam_corrections(updates, beta1, beta2)
        constants = loops.AdamConstants(1 / len(activity), rate, beta1, beta2, *corrections, epsilon)
        first_moment, second_moment, bias_first, bias_second = moments
        check_operands(weight, bias, error_above, activity)
        error, rates = by_neuron(error_above), self.rates(activation, activity)
        left, right = error, rates
        if by_lines(weight) and len(activity) == 1:  # then the same from the other end
            left, right = rates, error
            weight, first_moment, second_moment = weight.T, first_moment.T, second_moment.T
        refuse_scattered(weight)
        provider = self.provider("hebbian", len(activity), weight)
        arranged = provider.arrange(right, self.crew)
        norms = provider.adam(left, arranged, weight, first_moment, second_moment, constants, self.crew)
        bias_total = self.scratch("bias total", bias.shape, bias.dtype)
        loops.sum_samples(error, bias_total)
        norm = float(norms.sum()) + float(loops.adam(bias, bias_total, bias_first, bias_second, constants))
        return norm / (weight.size + bias.size)

    def squared_error(self, error: Array) -> float:
        """Return ½‖e_l‖², the mean over the batch."""
        return 0.5 * float(loops.squared_norm(flat(error))) / len(error)

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
        return loops.softmax_energy(target, activity, prediction, precision) / len(activity)

    def add_hebbian(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """Add rate · [G, g] to weight and bias; return the mean |[G, g]|."""
        check_operands(weight, bias, error_above, activity)
        batch, elements = len(activity), weight.size + bias.size
        if batch == 1:
            return self._rank_one_step(weight, bias, error_above[0], activity, activation, rate) / elements
        refuse_scattered(weight)
        rates, error = self.rates(activation, activity), by_neuron(error_above)
        provider = self.provider("hebbian", batch, weight)
        arranged, scale = provider.arrange(rates, self.crew), rate / batch
        norms = provider.update(error, arranged, weight, scale, self.crew)
        bias_norm = float(loops.update_bias(bias, error, scale))
        return (float(norms.sum()) + bias_norm) / (batch * elements)

    def _rank_one_step(
        self,
        weight: Array,
        bias: Array,
        error: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """Add rate · [e fᵀ, e] of one sample to weight and bias, now or later; return Σ|[e fᵀ, e]|."""
        leak, source = LEAKS.get(activation), activity
        if leak is None:
            leak, source = 1.0, reference.activate(activation, activity)
        rates, error_copy = roomy(source[0].shape, source.dtype), roomy(error.shape, error.dtype)
        norm = passes.weigh(source[0], error, bias, leak, rate, rates, error_copy)
        if not by_lines(weight):
            self.apply(online.Update(weight, error_copy, rates, rate))
        elif self.postponed.allowed:
            self.settled(weight)  # of what it has learnt before, without a prediction in between
            self.postponed.put(weight, online.Update(weight.T, rates, error_copy, rate))
        else:
            self.apply(online.Update(weight.T, rates, error_copy, rate))
        return norm

    def settled(self, weight: Array) -> Array:
        """Return the weight after the update that was put off, if there is one."""
        late = self.postponed.take(weight)
        if late is not None:
            self.apply(late)
        return weight

    def apply(self, update: online.Update) -> None:
        """Let a weight learn what one sample teaches it."""
        lines = update.lines
        self.crew.share(passes.learn, lines.size, lines, update.senders, update.receivers, update.scale)

    def postponing(self) -> AbstractContextManager[None]:
        """Allow updates of mini-batches of one to wait for the next prediction; see `Kernels`."""
        return self.postponed.until_the_end(self.apply)

    def parts(self, out: Array) -> Array:
        """Return a scratch array for what blocks of neurons send to (m,); shape (`BLOCKS` − 1, m)."""
        return self.scratch("parts", (passes.BLOCKS - 1, len(out)), out.dtype)

    def rates(self, activation: ActivationName, activity: Array) -> Array:
        """Return f(ĥ), (n, batch); a scratch array that the next call overwrites."""
        leak, given = LEAKS.get(activation), by_neuron(activity)
        if leak == 1:
            return given
        if leak is None:
            return by_neuron(reference.activate(activation, activity))
        rates = self.scratch("rates", given.shape, given.dtype)
        elementwise.RECTIFY(self.crew, given.ravel(), leak, rates.ravel())
        return rates

    def provider(self, product: str, batch: int, weight: Array) -> products.Provider:
        """Return the fastest provider of a product of this shape, measured at the first call ever."""
        key = product, batch, weight.shape, weight.dtype.char
        if key not in self._chosen:
            outputs, inputs = weight.shape
            self._chosen[key] = self.choices.best(product, batch, inputs, outputs, weight.dtype.name)
        return self._chosen[key]


def refuse_scattered(weight: Array) -> None:
    """Refuse a weight whose rows do not follow each other in memory: compiled code would change a copy.

    Raises:
        ShapeError: it is such a one.
    """
    if not weight.flags.c_contiguous:
        raise ShapeError(
            f"weight of shape {weight.shape} does not lie row by row: expected what `Synapses.place` gives"
        )
