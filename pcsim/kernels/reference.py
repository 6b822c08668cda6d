"""The arithmetic in plain NumPy, any floating dtype, equation by equation.

Numbers in brackets are the equations of Alonso, Krichmar and Neftci, "Understanding and Improving
Optimization in Predictive Coding Networks" (arXiv 2305.13562). Shapes: activities, errors and predictions
are (batch, n); weight l is (n_{l+1}, n_l), bias l is (n_{l+1},). Arguments named `out` are overwritten.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from scipy.special import erf, expit, logsumexp, softmax, xlogy

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Array, OutputName, Synapses

LEAK = 0.01  # slope of the leaky relu below zero


def activate(name: ActivationName, activity: Array) -> Array:
    """Return f(ĥ), element by element; the argument itself where f is the identity."""
    match name:
        case "relu":
            return np.maximum(activity, 0)
        case "tanh":
            return np.tanh(activity)
        case "sigmoid":
            return np.asarray(expit(activity))
        case "leaky_relu":
            return np.where(activity > 0, activity, LEAK * activity)
        case "gelu":
            return np.asarray(activity * _normal_cdf(activity))
        case "identity":
            return activity


def derivative(name: ActivationName, activity: Array) -> Array:
    """Return f'(ĥ), element by element; 0 at the kink of relu, LEAK at that of leaky relu."""
    match name:
        case "relu":
            return (activity > 0).astype(activity.dtype)
        case "tanh":
            return np.asarray(1 - np.tanh(activity) ** 2)
        case "sigmoid":
            rate = expit(activity)
            return np.asarray(rate * (1 - rate))
        case "leaky_relu":
            return np.where(activity > 0, 1, LEAK).astype(activity.dtype)
        case "gelu":
            density = np.exp(-0.5 * activity**2) / np.sqrt(2 * np.pi).astype(activity.dtype)
            return np.asarray(_normal_cdf(activity) + activity * density)
        case "identity":
            return np.ones_like(activity)


def _normal_cdf(values: Array) -> Array:
    """Return the standard normal distribution function, from which gelu is made."""
    return np.asarray(0.5 * (1 + erf(values / np.sqrt(2).astype(values.dtype))))


def postponing() -> AbstractContextManager[None]:
    """Nothing is put off here; see `Kernels`."""
    return nullcontext()


def mini_batch(shape: tuple[int, int], dtype: np.dtype[np.floating]) -> Array:
    """Return zeros for a mini-batch, (batch, n), where and as this backend likes them in memory."""
    return np.zeros(shape, dtype)


def to_device(host: Array) -> Array:
    """Return the array where this backend works: on a CPU the very same."""
    return host


def load(host: Array, held: Array | None) -> Array:
    """Return x or y where this backend works; a GPU takes the array that holds those of before."""
    return host


def snapshot(array: Array) -> Array:
    """Return a copy that nobody can change, laid out as the original."""
    copy = array.copy(order="K")
    copy.flags.writeable = False
    return copy


def copy(values: Array, out: Array) -> None:
    """Out = values, (batch, n)."""
    out[...] = values


def copy_and_count(values: Array, out: Array) -> int:
    """Out = values, (batch, n); return how many of them are not zero."""
    out[...] = values
    return int(np.count_nonzero(out))


def output(name: OutputName, prediction: Array) -> Array:
    """Return out(p_L): what the network says, from the prediction that reaches the output layer."""
    match name:
        case "softmax":
            return np.asarray(softmax(prediction, axis=1))
        case "sigmoid":
            return np.asarray(expit(prediction))
        case "identity":
            return prediction


def predict(activity: Array, weight: Array, bias: Array, activation: ActivationName, out: Array) -> None:
    """p_{l+1} = W_l f(ĥ_l) + b_l."""
    np.matmul(activate(activation, activity), weight.T, out=out)
    out += bias


def compare(activity: Array, prediction: Array, out: Array) -> float | None:
    """e_l = ĥ_l − p_l; kernels that find ½‖e_l‖² on the way return it."""
    np.subtract(activity, prediction, out=out)
    return None


def compare_output(activity: Array, prediction: Array, output_name: OutputName, out: Array) -> float | None:
    """e_L = ĥ_L − out(p_L): the (binary) cross-entropy gradient for softmax and sigmoid outputs."""
    return compare(activity, output(output_name, prediction), out)


def feedback(error_above: Array, weight: Array, precision_above: float, out: Array) -> None:
    """W_lᵀ γ_{l+1} e_{l+1}, before the gate f'(ĥ_l)."""
    np.matmul(error_above, weight, out=out)
    if precision_above != 1:
        out *= precision_above


def relax(
    activity: Array,
    error: Array,
    feedback: Array,
    activation: ActivationName,
    step: float,
    precision: float,
    activity_decay: float,
) -> None:
    """(2) ĥ_l += k ( f'(ĥ_l) ⊙ W_lᵀγ_{l+1}e_{l+1} − γ_l e_l − γ_l^decay f'(ĥ_l) ⊙ f(ĥ_l) ), in place."""
    drive = feedback if activity_decay == 0 else feedback - activity_decay * activate(activation, activity)
    activity += step * (derivative(activation, activity) * drive - precision * error)


def soft_clamp(target: Array, prediction: Array, output_name: OutputName, mix: float, out: Array) -> None:
    """(3) ĥ_L = (1 − m) y + m out(p_L), m = 1/(1 + β) with proximal step β."""
    np.multiply(target, 1 - mix, out=out)
    out += mix * output(output_name, prediction)


def hebbian(error_above: Array, activity: Array, activation: ActivationName) -> tuple[Array, Array]:
    """(4) Return G_l, the batch mean of e_{l+1} f(ĥ_l)ᵀ, and g_l, that of e_{l+1}; both are added."""
    batch = len(activity)
    return error_above.T @ activate(activation, activity) / batch, error_above.mean(axis=0)


def add(weight: Array, bias: Array, step: tuple[Array, Array], rate: float) -> float:
    """Add rate · step to weight and bias in place; return the mean |step| over both together."""
    on_weight, on_bias = step
    weight += rate * on_weight
    bias += rate * on_bias
    return float((np.abs(on_weight).sum() + np.abs(on_bias).sum()) / (weight.size + bias.size))


def sgd_step(
    weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName, rate: float
) -> float:
    """W_l += α G_l, b_l += α g_l, in place; return the mean |Δ| over weight and bias."""
    return rate * add(weight, bias, hebbian(error_above, activity, activation), rate)


def nlms_step(
    weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName
) -> float:
    """SGD with α_l = 1/(‖f(ĥ_l)‖² + 1): the prediction of this one sample then equals its activity.

    The 1 is the input of the bias, which learns along; without it the step would overshoot. It is the
    smallest change of weight and bias that realises the activity. Needs a mini-batch of one.
    """
    rates = activate(activation, activity)
    return sgd_step(weight, bias, error_above, activity, activation, 1 / (float(np.vdot(rates, rates)) + 1))


def mq_step(
    weight: Array,
    bias: Array,
    error_above: Array,
    activity: Array,
    activation: ActivationName,
    mean_gradient: Array,
    updates: Array,
    rate: float,
    minimum_rate: float,
    r: float,
    decay: float,
) -> float:
    """One MQ step on W_l, b_l and the scalar v_l (`mean_gradient`, shape (1,)); return the mean |Δ|.

    (7) W_l += (α/(v_l + r) + α_min) G_l, the same scalar for b_l, with the v_l of before the step;
    (8) v_l ← ρ_n v_l + (1 − ρ_n) mean|[G_l, g_l]|, with n (`updates`, shape (1,)) counted up here.
    """
    scale = rate / (float(mean_gradient[0]) + r) + minimum_rate
    mean = add(weight, bias, hebbian(error_above, activity, activation), scale)
    kept = share_kept(updates, decay)
    mean_gradient[0] = kept * mean_gradient[0] + (1 - kept) * mean
    return scale * mean


def share_kept(updates: Array, decay: float) -> float:
    """Count an update; return ρ_n = min(n/(n + 1), ρ).

    So v_l is a plain mean of the first updates, and the value it starts with does not linger.
    """
    updates += 1
    made = float(updates[0])
    return min(made / (made + 1), decay)


def adam_step(
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
    """Adam (Kingma and Ba, 2015) on −G_l, in place; return the mean |Δ|.

    `moments` are the first and second moment of W_l, then of b_l; `updates`, n, (1,), is counted up here.
    """
    gradients = hebbian(error_above, activity, activation)
    return adam_from(gradients, weight, bias, moments, updates, rate, beta1, beta2, epsilon)


def adam_from(
    gradients: tuple[Array, Array],
    weight: Array,
    bias: Array,
    moments: tuple[Array, Array, Array, Array],
    updates: Array,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> float:
    """Do what `adam_step` does with G_l and g_l that are at hand already."""
    steps, corrections = [], adam_corrections(updates, beta1, beta2)
    for first, second, gradient in zip(moments[::2], moments[1::2], gradients, strict=True):
        first += (1 - beta1) * (gradient - first)
        second += (1 - beta2) * (gradient**2 - second)
        steps.append(adam_direction(first, second, corrections, epsilon))
    return rate * add(weight, bias, (steps[0], steps[1]), rate)


def adam_corrections(updates: Array, beta1: float, beta2: float) -> tuple[float, float]:
    """Count an update; return 1/(1 − β₁ⁿ) and 1/(1 − β₂ⁿ), which make up for moments that begin at 0."""
    updates += 1
    made = int(updates[0])
    return 1 / (1 - beta1**made), 1 / (1 - beta2**made)


def adam_direction(first: Array, second: Array, corrections: tuple[float, float], epsilon: float) -> Array:
    """Return m̂/(√v̂ + ε) of moments that have just been updated."""
    step: Array = first * corrections[0] / (np.sqrt(second * corrections[1]) + epsilon)
    return step


def squared_error(error: Array) -> float:
    """Return ½‖e_l‖², the mean over the batch."""
    flat = error.ravel()
    return 0.5 * float(np.dot(flat, flat)) / len(error)


def free_energy(
    activity: Array,
    squared_error: float,
    activation: ActivationName,
    precision: float,
    activity_decay: float,
) -> float:
    """(1) Return a hidden layer's γ_l ½‖e_l‖² + γ_l^decay ½‖f(ĥ_l)‖², the mean over the batch."""
    if activity_decay == 0:
        return precision * squared_error
    rates = activate(activation, activity).ravel()
    return precision * squared_error + activity_decay * 0.5 * float(np.dot(rates, rates)) / len(activity)


def output_free_energy(
    target: Array,
    activity: Array,
    prediction: Array,
    squared_error: float,
    output_name: OutputName,
    precision: float,
) -> float:
    """(1) Return the output layer's share: γ_L times the divergence of ĥ_L from out(p_L), plus the loss.

    The divergence is ½‖e_L‖² for identity, the cross-entropy for softmax, the binary cross-entropy for
    sigmoid; its gradient is the output error. The loss says how far the soft clamp strays from y: ½‖y −
    ĥ_L‖² or the relative entropy of y to ĥ_L, both 0 under a hard clamp. Mean over the batch, in nats.
    """
    match output_name:
        case "identity":
            above, loss = squared_error, 0.5 * float(((target - activity) ** 2).sum()) / len(activity)
        case "softmax":
            total = activity.sum(axis=1) * logsumexp(prediction, axis=1)
            above = float((total - (activity * prediction).sum(axis=1)).mean())
            loss = _relative_entropy(target, activity)
        case "sigmoid":
            above = float((np.logaddexp(0, prediction) - activity * prediction).sum(axis=1).mean())
            loss = _relative_entropy(target, activity) + _relative_entropy(1 - target, 1 - activity)
    return precision * above + loss


def _relative_entropy(target: Array, activity: Array) -> float:
    """Return Σ y log(y/ĥ), the mean over the batch; 0 where y is 0."""
    tiny = np.finfo(activity.dtype).tiny  # keeps log finite where a saturated output has rounded to 0
    ratio = xlogy(target, target) - xlogy(target, np.maximum(activity, tiny))
    return float(ratio.sum(axis=1).mean())


def dense(activation: ActivationName, batch: int) -> Synapses:
    """Return what computes a dense connection."""
    from pcsim.kernels.dense import DenseSynapses

    return DenseSynapses(sys.modules[__name__], activation)  # a module can be a backend


def convolution(
    layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
) -> Synapses:
    """Return what computes a convolutional connection; see `pcsim.kernels.reference_conv`."""
    from pcsim.kernels.reference_conv import ReferenceConvolution  # which needs the functions above

    return ReferenceConvolution(layer, activation, batch, dtype)
