"""Inference learning written a second time, straight from the mathematics, sharing no code with pcsim.

Loops and plain NumPy, slow on purpose: nothing is skipped, cached or updated in place, so that a bug in
pcsim's kernels, schedules or message bookkeeping cannot hide here as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf, expit, softmax

ROOT2 = np.sqrt(2.0)


def act(name, x):
    if name == "relu":
        return np.where(x > 0, x, 0.0)
    if name == "tanh":
        return np.tanh(x)
    if name == "sigmoid":
        return expit(x)
    if name == "leaky_relu":
        return np.where(x > 0, x, 0.01 * x)
    if name == "gelu":
        return 0.5 * x * (1 + erf(x / ROOT2))
    return x


def slope(name, x):
    if name == "relu":
        return (x > 0) * 1.0
    if name == "tanh":
        return 1 - np.tanh(x) ** 2
    if name == "sigmoid":
        return expit(x) * (1 - expit(x))
    if name == "leaky_relu":
        return np.where(x > 0, 1.0, 0.01)
    if name == "gelu":
        return 0.5 * (1 + erf(x / ROOT2)) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return np.ones_like(x)


def out(name, p):
    return {"softmax": lambda: softmax(p, axis=1), "sigmoid": lambda: expit(p), "identity": lambda: p}[name]()


@dataclass
class Oracle:
    """One network; `step` runs one mini-batch and returns activities and errors after every iteration."""

    weights: list
    biases: list
    activation: str = "relu"
    output: str = "softmax"
    order: str = "sequential"
    iterations: int = 3
    step_size: float = 0.05
    step_decay: str = "harmonic"
    mix: float = 1 / 101  # of out(p_L) in the clamped output; 0 is the hard clamp
    precision: list | None = None
    decay: list | None = None
    rule: str = "mq"
    alpha: float = 1e-3
    alpha_min: float = 1e-3
    r: float = 1e-6
    rho: float = 0.9999
    v: list = field(default_factory=list)
    precisions: str = "constant"
    n: int = 0
    moments: list = field(default_factory=list)

    def __post_init__(self):
        self.weights = [w.copy() for w in self.weights]
        self.biases = [b.copy() for b in self.biases]
        self.L = len(self.weights)
        self.precision = self.precision or [1.0] * (self.L + 1)
        self.decay = self.decay or [0.0] * (self.L + 1)
        self.v = [self.alpha] * self.L
        self.moments = [[np.zeros_like(p) for p in (w, b, w, b)] for w, b in zip(self.weights, self.biases)]

    def f(self, layer, h):
        return h if layer == 0 else act(self.activation, h)

    def df(self, layer, h):
        return np.ones_like(h) if layer == 0 else slope(self.activation, h)

    def prediction(self, a, layer):
        p = self.f(layer - 1, a[layer - 1]) @ self.weights[layer - 1].T + self.biases[layer - 1]
        return out(self.output, p) if layer == self.L else p

    def error(self, a, layer):
        return a[layer] - self.prediction(a, layer)

    def norm(self, a, layer):
        """N_l of Theorem 1, for one sample; the 1 is the bias's input."""
        return (self.f(layer, a[layer]) ** 2).sum() + 1

    def clamp(self, a, y):
        mix = self.mix
        if self.precisions != "constant":
            beta = 1 / self.mix - 1
            mix = 1 / (1 + beta * self.norm(a, self.L - 1))
        a[self.L] = (1 - mix) * y + mix * self.prediction(a, self.L)

    def refreshed(self, a, layer):
        """γ_l, γ_{l+1} and γ_l^decay of Theorem 1, times β, as derived or with the paper's misprints."""
        at_output = self.precisions == "theorem 1 as printed" and layer == self.L - 1
        above = (1 / (1 / self.mix - 1) if at_output else 1) / self.norm(a, layer)
        sign = -1 if self.precisions == "theorem 1" else 1
        decay = sign * (self.error(a, layer + 1) ** 2).sum() / self.norm(a, layer) ** 2
        return 1 / self.norm(a, layer - 1), above, decay

    def delta(self, a, layer, k):
        """Δĥ_l with every error formed afresh from the activities handed in."""
        h = a[layer]
        precision, above, decay = self.precision[layer], self.precision[layer + 1], self.decay[layer]
        if self.precisions != "constant":
            precision, above, decay = self.refreshed(a, layer)
        back = self.df(layer, h) * ((above * self.error(a, layer + 1)) @ self.weights[layer])
        own = precision * self.error(a, layer)
        return k * (back - own - decay * self.df(layer, h) * self.f(layer, h))

    def start(self, x, y):
        a = [x]
        for layer in range(1, self.L + 1):
            a.append(self.prediction(a, layer))
        self.clamp(a, y)
        return a

    def iterate(self, a, y, t):
        k = self.step_size / (1 + t) if self.step_decay == "harmonic" else self.step_size
        hidden = range(1, self.L)
        groups = {
            "simultaneous": [list(hidden)],
            "incremental": [list(hidden)],
            "sequential": [[h] for h in reversed(hidden)],
            "bottom-up": [[h] for h in hidden],
            "red-black": [[h for h in hidden if h % 2], [h for h in hidden if not h % 2]],
        }[self.order]
        for group in groups:
            before = list(a)  # within a group everybody sees the state at its start
            for layer in group:
                a[layer] = before[layer] + self.delta(before, layer, k)
            if self.order in ("bottom-up", "red-black"):  # these see the clamp follow within the iteration
                self.clamp(a, y)
        self.clamp(a, y)

    def learn(self, a):
        self.n += 1
        for i in range(self.L):
            e, rate = self.error(a, i + 1), self.f(i, a[i])
            G = np.zeros_like(self.weights[i])
            for sample in range(len(e)):
                G += np.outer(e[sample], rate[sample]) / len(e)
            g = e.mean(0)
            step_w, step_b = self.rate_of(i, G, g, rate)
            self.weights[i], self.biases[i] = self.weights[i] + step_w, self.biases[i] + step_b

    def rate_of(self, i, G, g, rate):
        if self.rule == "sgd":
            return self.alpha * G, self.alpha * g
        if self.rule == "nlms":
            alpha = 1 / (rate[0] @ rate[0] + 1)  # the 1 is the bias's input
            return alpha * G, alpha * g
        if self.rule == "mq":
            alpha = self.alpha / (self.v[i] + self.r) + self.alpha_min
            rho = min(self.n / (self.n + 1), self.rho)
            mean = (np.abs(G).sum() + np.abs(g).sum()) / (G.size + g.size)
            self.v[i] = rho * self.v[i] + (1 - rho) * mean
            return alpha * G, alpha * g
        m = self.moments[i]
        steps = []
        for j, grad in enumerate((-G, -g)):
            m[j] = 0.9 * m[j] + 0.1 * grad
            m[j + 2] = 0.999 * m[j + 2] + 0.001 * grad**2
            first, second = m[j] / (1 - 0.9**self.n), m[j + 2] / (1 - 0.999**self.n)
            steps.append(-self.alpha * first / (np.sqrt(second) + 1e-8))
        return steps

    def step(self, x, y):
        a = self.start(x, y)
        history = []
        for t in range(self.iterations):
            self.iterate(a, y, t)
            history.append((list(a), [None] + [self.error(a, layer) for layer in range(1, self.L + 1)]))
            if self.order == "incremental":
                self.learn(a)
                if t < self.iterations - 1:
                    self.clamp(a, y)
        if self.order != "incremental" or not self.iterations:
            self.learn(a)
        return history
