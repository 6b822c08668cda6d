"""How errors and energies develop over iterations, layers and training steps, from the table `summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pcsim.analysis.statistics import Floats, Moments
from pcsim.analysis.stream import Described, Progress, Rows, TraceLike, dataset, opened, summary_table

if TYPE_CHECKING:
    import xarray

    from pcsim.tracing.table_reader import TableReader

WORDS = {
    "step": "training step, counted from 0",
    "iteration": "inference iterations done",
    "layer": "layer",
    "connection": "connection, from layer l to l + 1",
}


class _Kept:
    """What is kept of a column of the summary, and the statistics of all its rows.

    Steps with an infinity or NaN do not take part in statistics, they are only counted.
    """

    def __init__(self, summary: TableReader, name: str) -> None:
        self.rows, self.summary = Rows(summary, name), summary
        self.moments, self.nonfinite, self._kept = Moments(), 0, list[Floats]()

    def add(self, values: Floats, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Take in rows; return which of them are finite."""
        good = np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        self.nonfinite += len(good) - int(good.sum())
        self.moments.add(values[good])
        self._kept.append(values[kept])
        return good

    @property
    def values(self) -> Floats:
        """Return the rows that are kept."""
        return np.concatenate(self._kept)

    @property
    def mean(self) -> Floats:
        """Return the mean over all finite rows; NaN if there is none."""
        shape = self._kept[0].shape[1:]
        return self.moments.mean if self.moments.count else np.full(shape, np.nan)

    @property
    def deviation(self) -> Floats:
        """Return the standard deviation over all finite rows; NaN if there is none."""
        return self.moments.deviation if self.moments.count else self.mean

    @property
    def attributes(self) -> dict[str, int]:
        """Say how much there is and how much is kept."""
        return {
            "recorded_steps": self.summary.rows,
            "step_stride": self.rows.stride,
            "nonfinite_steps": self.nonfinite,
        }

    def coordinates(self, *dims: str) -> dict[str, Described]:
        """Return the coordinates of the kept rows."""
        found: dict[str, Described] = {"step": (("step",), self.rows.steps, WORDS["step"], "1")}
        return found | {dim: ((dim,), self.summary.coordinate(dim), WORDS[dim], "1") for dim in dims}


def error_norms(trace: TraceLike, *, progress: Progress | None = None) -> xarray.Dataset:
    """Return how errors flow: norms by training step, iteration and layer, their front, share and decay.

    The norm is the root of the batch mean of ‖e_l‖². Variables over `step` are kept for all recorded
    training steps, or for every `step_stride`-th where they would not fit into memory; all others are of
    all recorded steps. Steps with an infinity or NaN are left out of these and counted in `nonfinite_steps`.

    Variables: `error_norm` (step, iteration, layer), `energy_share` (the same; share of Σ ½‖e_l‖² that a
    layer holds, NaN where there is no error at all), `front` (step, layer; first iteration with a non-zero
    error, −1 if there is none), `decay_rate` and `half_life` (step, layer; see `decay_rate`), and of all
    steps `error_norm_mean`, `error_norm_std`, `energy_share_mean` (iteration, layer), `front_earliest`,
    `decay_rate_mean`, `half_life_mean` (layer; the last two of the mean norms).

    Args:
        trace: an open trace, or the path of one.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no summary rows, or cannot be read.
    """
    with opened(trace) as reader:
        kept = _Kept(summary_table(reader), "squared_error")
        held, reached = np.zeros(()), np.zeros((), dtype=bool)
        for block in kept.rows.blocks(progress):
            good = kept.add(np.sqrt(2 * block.values), block.kept)
            held = held + block.values[good].sum(axis=0)
            reached = reached | (block.values != 0).any(axis=0)  # NaN is no absence of errors
        norms = kept.values
        variables = _flow("", ("step",), norms, norms**2, norms != 0)
        variables |= _flow("_mean", (), kept.mean, held, reached)
        words = "standard deviation of the error norm over training steps"
        variables["error_norm_std"] = ("iteration", "layer"), kept.deviation, words, "1"
        variables["front_earliest"] = variables.pop("front_mean")
        coordinates = kept.coordinates("iteration", "layer")
        return dataset(reader, "error flow", variables, coordinates, **kept.attributes)


def _flow(
    name: str, step: tuple[str, ...], norms: Floats, held: Floats, reached: npt.NDArray[np.bool_]
) -> dict[str, Described]:
    """Return what describes the flow of errors, of each step or of all: norms are (…, iteration, layer)."""
    cells, layers, rates = (*step, "iteration", "layer"), (*step, "layer"), decay_rate(norms)
    total = held.sum(axis=-1, keepdims=True)
    share = np.divide(held, total, out=np.full(held.shape, np.nan), where=np.isfinite(total) & (total > 0))
    front = np.where(reached.any(axis=-2), reached.argmax(axis=-2), -1)
    of = "" if step else ", all training steps"
    return {
        f"error_norm{name}": (cells, norms, f"root of the batch mean of the squared error norm{of}", "1"),
        f"energy_share{name}": (cells, share, f"share of the energy that a layer holds{of}", "1"),
        f"front{name}": (layers, front, f"first iteration with an error, -1 if none{of}", "1"),
        f"decay_rate{name}": (layers, rates, f"rate at which the error norm shrinks{of}", "1/iteration"),
        f"half_life{name}": (layers, half_life(rates), f"iterations to half the norm{of}", "iteration"),
    }


def decay_rate(norms: npt.ArrayLike) -> Floats:
    """Return λ of ‖e‖ ≈ c·exp(−λ n), fitted over iterations n from the layer's largest norm on.

    A least-squares line through log‖e‖; zeros do not take part. NaN where fewer than two iterations are
    left, as for a layer whose error still grows.

    Args:
        norms: (…, iteration, layer).

    Returns:
        (…, layer), per iteration.
    """
    values = np.asarray(norms, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0)
    iteration = np.arange(values.shape[-2], dtype=np.float64)[:, np.newaxis]
    peak = np.where(usable, values, -1.0).argmax(axis=-2, keepdims=True)
    used = usable & (iteration >= peak)
    logs = np.log(values, out=np.zeros_like(values), where=used)
    count = used.sum(axis=-2, keepdims=True)
    centred = used * (iteration - (used * iteration).sum(axis=-2, keepdims=True) / np.maximum(count, 1))
    spread = (centred**2).sum(axis=-2)
    slope = np.full(spread.shape, np.nan)
    np.divide((centred * logs).sum(axis=-2), spread, out=slope, where=count[..., 0, :] > 1)
    return -slope


def half_life(rate: npt.ArrayLike) -> Floats:
    """Return ln 2 / λ, iterations; infinite where nothing shrinks, NaN where there is no rate."""
    rates = np.asarray(rate, dtype=np.float64)
    life = np.where(np.isnan(rates), np.nan, np.inf)
    return np.asarray(np.divide(np.log(2), rates, out=life, where=rates > 0))


def free_energy(
    trace: TraceLike, *, tolerance: float = 1e-6, progress: Progress | None = None
) -> xarray.Dataset:
    """Return the free energy over iterations, and where it rises.

    It rises where F after an iteration exceeds F before it by more than `tolerance`·|F|; float32 arithmetic
    alone makes differences of about 1e-7.

    Variables: `free_energy` (step, iteration, layer), `total` (step, iteration), `rises` (step; number of
    iterations that raise it), and of all recorded steps `total_mean`, `total_std` (iteration), `rising_steps`
    (iteration; number of training steps in which this iteration raises it), `largest_rise` (iteration; of
    F over all training steps, 0 if it never rises). The attributes `first_rise_step` and
    `first_rise_iteration` say where it first rises, −1 if it never does. Thinning of `step` and steps that
    are not finite are as in `error_norms`.

    Args:
        trace: an open trace, or the path of one.
        tolerance: relative; smaller rises are rounding.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no summary rows, or cannot be read.
    """
    with opened(trace) as reader:
        summary = summary_table(reader)
        kept, total = _Kept(summary, "free_energy"), Moments()
        rises = _Rises(summary.column("free_energy").shape[1], tolerance)
        for block in kept.rows.blocks(progress):
            good = kept.add(block.values, block.kept)
            total.add(block.values[good].sum(axis=2))
            rises.add(block.values.sum(axis=2))
        energies, nothing = kept.values, np.full(rises.steps.shape, np.nan)
        totals = energies.sum(axis=2)
        mean, deviation = (total.mean, total.deviation) if total.count else (nothing, nothing)
        by_step, cells = ("step", "iteration"), ("step", "iteration", "layer")
        counts = (_rises(totals, tolerance) > 0).sum(axis=1)
        variables: dict[str, Described] = {
            "free_energy": (cells, energies, "share of the layer, batch mean, cross-entropies in nats", "1"),
            "total": (by_step, totals, "free energy, batch mean", "1"),
            "rises": (("step",), counts, "iterations that raise the free energy", "1"),
            "total_mean": (by_step[1:], mean, "free energy, mean over training steps", "1"),
            "total_std": (by_step[1:], deviation, "its standard deviation over training steps", "1"),
            "rising_steps": (by_step[1:], rises.steps, "training steps in which it rises here", "1"),
            "largest_rise": (by_step[1:], rises.largest, "largest rise in any training step", "1"),
        }
        attributes = kept.attributes | rises.first(summary)
        coordinates = kept.coordinates("iteration", "layer")
        return dataset(reader, "free energy", variables, coordinates, tolerance=tolerance, **attributes)


class _Rises:
    """Where the free energy rises, gathered over all training steps.

    Attributes:
        steps: in how many training steps each iteration raises it, (T + 1,).
        largest: by how much at most.
    """

    def __init__(self, iterations: int, tolerance: float) -> None:
        self.steps, self.largest = np.zeros(iterations, dtype=np.int64), np.zeros(iterations)
        self._tolerance, self._done = tolerance, 0
        self._first: tuple[int, int] | None = None

    def add(self, total: Floats) -> None:
        """Take in rows, (S, T + 1)."""
        rise = _rises(total, self._tolerance)
        self.steps[1:] += (rise > 0).sum(axis=0)
        self.largest[1:] = np.maximum(self.largest[1:], rise.max(axis=0, initial=0))
        if self._first is None and rise.any():
            row, iteration = np.argwhere(rise > 0)[0]
            self._first = self._done + int(row), int(iteration) + 1
        self._done += len(total)

    def first(self, summary: TableReader) -> dict[str, int]:
        """Say in which training step and iteration it first rises; −1 if it never does."""
        if self._first is None:
            return {"first_rise_step": -1, "first_rise_iteration": -1}
        row, iteration = self._first
        step = int(summary.read("step", slice(row, row + 1))[0])
        return {"first_rise_step": step, "first_rise_iteration": iteration}


def _rises(total: Floats, tolerance: float) -> Floats:
    """Return by how much each iteration raises the energy, 0 where it does not: (S, T + 1) to (S, T)."""
    before, after = total[:, :-1], total[:, 1:]
    with np.errstate(invalid="ignore"):
        rise = after - before
        return np.where(rise > tolerance * np.abs(before), rise, 0.0)


def update_magnitudes(trace: TraceLike, *, progress: Progress | None = None) -> xarray.Dataset:
    """Return how much connections change, and how equal that is across layers (figure 2 of the paper).

    Variables: `update_magnitude` (step, connection; mean |ΔW_l|, |Δb_l|), `ratio` and `variation` (step; of
    the largest to the smallest connection, and standard deviation across connections by their mean), and of
    all recorded steps `update_magnitude_mean`, `update_magnitude_std` (connection), `ratio_of_means` and
    `variation_of_means` (scalars). Ratios are infinite where a connection does not change, NaN where none
    does. Thinning of `step` and steps that are not finite are as in `error_norms`.

    Args:
        trace: an open trace, or the path of one.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no summary rows, or cannot be read.
    """
    with opened(trace) as reader:
        kept = _Kept(summary_table(reader), "update_magnitude")
        for block in kept.rows.blocks(progress):
            kept.add(block.values, block.kept)
        sizes = kept.values
        ratios, variations = _equality(sizes)
        ratio, variation = _equality(kept.mean)
        by_step, words = ("step", "connection"), "mean absolute change of weight and bias"
        variables: dict[str, Described] = {
            "update_magnitude": (by_step, sizes, words, "1"),
            "ratio": (("step",), ratios, "largest to smallest connection", "1"),
            "variation": (("step",), variations, "coefficient of variation across connections", "1"),
            "update_magnitude_mean": (by_step[1:], kept.mean, f"{words}, mean over steps", "1"),
            "update_magnitude_std": (by_step[1:], kept.deviation, f"{words}, standard deviation", "1"),
            "ratio_of_means": ((), ratio, "largest to smallest mean", "1"),
            "variation_of_means": ((), variation, "coefficient of variation of the means", "1"),
        }
        coordinates = kept.coordinates("connection")
        return dataset(reader, "update magnitude", variables, coordinates, **kept.attributes)


def _equality(sizes: Floats) -> tuple[Floats, Floats]:
    """Return largest by smallest and standard deviation by mean along the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sizes.max(axis=-1) / sizes.min(axis=-1), sizes.std(axis=-1) / sizes.mean(axis=-1)
