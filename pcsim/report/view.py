"""The interactive error flow of a report: heat maps with a slider over the training steps, drawn by Bokeh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError
from pcsim.report.error_flow import COLOUR_LABEL, error_scale
from pcsim.report.numbers import ErrorFlow, evenly
from pcsim.report.style import BROKEN

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource, LogColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.plotting import figure as bokeh_figure

MOST_STEPS = 200  # that the slider can show
MOST_CELLS = 10_000  # of one heat map
MOST_NUMBERS = 150_000  # of one trace in the page
SLIDER, LABEL = "error-flow-step", "error-flow-label"


@dataclass(frozen=True)
class View:
    """Pieces of a page.

    Attributes:
        library: Bokeh's own JavaScript.
        script: an element that draws the heat maps.
        panels: an element for each trace, in which its heat map appears.
        steps: training steps that the slider goes through.
        thinned: what was left out, in words; empty if nothing was.
        broken: whether a cell is not finite.
    """

    library: str
    script: str
    panels: tuple[str, ...]
    steps: tuple[int, ...]
    thinned: str
    broken: bool


def error_view(flows: Sequence[ErrorFlow], names: Sequence[str]) -> View:
    """Build the interactive error flow of several traces on one colour scale.

    The page needs an `<input type="range">` with the id `SLIDER` and an `<output>` with the id `LABEL`.

    Args:
        flows: of each trace.
        names: of the traces, each different.

    Raises:
        ConfigurationError: Bokeh is not installed.
    """
    check_installed()
    from bokeh.document import Document
    from bokeh.embed import components
    from bokeh.events import DocumentReady
    from bokeh.models import CustomJS
    from bokeh.resources import Resources

    shown = [thin(flow) for flow in flows]
    scale = error_scale(shown)
    limits = (float(scale.vmin or 0), float(scale.vmax or 1))
    panels = [_panel(flow, name, limits) for flow, name in zip(shown, names, strict=True)]
    steps = np.unique(np.concatenate([flow.steps for flow in shown]))
    steps = steps[evenly(len(steps), MOST_STEPS)]
    document = Document()
    for plot, _ in panels:
        document.add_root(plot)
    arguments = {
        "sources": [source for _, source in panels],
        "plots": [plot for plot, _ in panels],
        "runs": [{"steps": flow.steps.tolist(), "layers": len(flow.layers)} for flow in shown],
        "frames": [_frames(flow.norms) for flow in shown],
        "high": limits[1],
        "steps": steps.tolist(),
        "names": {"slider": SLIDER, "label": LABEL},
    }
    document.js_on_event(DocumentReady, CustomJS(args=arguments, code=_CODE))
    script, divs = components([plot for plot, _ in panels])
    library = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    broken = any(not np.isfinite(flow.norms).all() for flow in shown)
    return View(library, script, tuple(divs), tuple(steps.tolist()), _thinned(flows, shown), broken)


def check_installed() -> None:
    """Refuse early to make a report without its libraries.

    Raises:
        ConfigurationError: Bokeh, or Jinja that comes with it, is not installed.
    """
    try:
        import bokeh  # noqa: F401
        import jinja2  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"a report needs {error.name}, which is not installed: pip install 'pcsim[report]'"
        ) from error


def thin(flow: ErrorFlow) -> ErrorFlow:
    """Return what fits into a page: fewer iterations, then fewer training steps, first and last kept."""
    iterations = evenly(len(flow.iterations), max(2, MOST_CELLS // len(flow.layers)))
    cells = len(iterations) * len(flow.layers)
    steps = evenly(len(flow.steps), max(2, min(MOST_STEPS, MOST_NUMBERS // cells)))
    norms = flow.norms[np.ix_(steps, iterations, np.arange(len(flow.layers)))]
    return replace(flow, steps=flow.steps[steps], iterations=flow.iterations[iterations], norms=norms)


def _thinned(flows: Sequence[ErrorFlow], shown: Sequence[ErrorFlow]) -> str:
    """Say what the slider leaves out."""
    steps = max(zip(shown, strict=True), key=lambda one: one[0].recorded - len(one[0].steps))[0]
    words = []
    if steps.recorded > len(steps.steps):
        words.append(f"{len(steps.steps):,} of {steps.recorded:,} recorded training steps")
    for before, after in zip(flows, shown, strict=True):
        if len(after.iterations) < len(before.iterations):
            words.append(f"{len(after.iterations):,} of {len(before.iterations):,} iterations")
            break
    return " and ".join(words)


def _frames(norms: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return norms flat, in float32 where none of them becomes zero or infinite there."""
    sizes, limits = norms[np.isfinite(norms) & (norms > 0)], np.finfo(np.float32)
    fits = not sizes.size or (sizes.min() >= limits.tiny and sizes.max() <= limits.max)
    return norms.astype(np.float32 if fits else np.float64).ravel()


def _panel(flow: ErrorFlow, name: str, limits: tuple[float, float]) -> tuple[bokeh_figure, ColumnDataSource]:
    """Return a heat map and its data: one cell a layer and iteration, in the order of the frames."""
    from bokeh.core.property.vectorization import Field
    from bokeh.models import HoverTool, LogColorMapper

    source, plot = _cells(flow, name), _empty_plot(flow, name)
    colours = LogColorMapper(
        palette="Cividis256",
        low=limits[0],
        high=limits[1],
        nan_color="rgba(128,128,128,0.22)",
        high_color=BROKEN,  # nothing that is finite is higher
    )
    fill: Any = Field("norm", colours)
    cells = plot.quad("left", "right", "top", "bottom", source=source, fill_color=fill, line_color=fill)
    values = ("error norm", "@shown"), ("share of the iteration's squared error", "@share")
    where = ("layer", "@layer"), ("iterations done", "@iteration")
    plot.add_tools(HoverTool(renderers=[cells], tooltips=[*where, *values], attachment="vertical"))
    plot.add_layout(_colour_bar(colours), "below")
    return plot, source


def _cells(flow: ErrorFlow, name: str) -> ColumnDataSource:
    """Return where the cells lie; what they show comes with a frame."""
    from bokeh.models import ColumnDataSource

    left, right = _bounds(flow.iterations)
    count, layers = len(flow.iterations), len(flow.layers)
    columns: dict[str, Any] = {
        "left": np.repeat(left, layers),
        "right": np.repeat(right, layers),
        "bottom": np.tile(flow.layers - 0.5, count),
        "top": np.tile(flow.layers + 0.5, count),
        "layer": np.tile(flow.layers, count),
        "iteration": np.repeat(flow.iterations, layers),
        "norm": np.full(count * layers, np.nan),
        "shown": [""] * (count * layers),
        "share": [""] * (count * layers),
    }
    return ColumnDataSource(columns, name=name)


def _empty_plot(flow: ErrorFlow, name: str) -> bokeh_figure:
    """Return axes with a title."""
    from bokeh.models import Range1d
    from bokeh.models.annotations import Title
    from bokeh.plotting import figure

    left, right = _bounds(flow.iterations)
    plot = figure(
        title=Title(text=name, text_font_size="14px"),
        height=230,
        sizing_mode="stretch_width",
        x_axis_label="iterations done",
        y_axis_label="layer",
        toolbar_location=None,
        tools="",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        x_range=Range1d(start=float(left[0]), end=float(right[-1])),
        y_range=Range1d(start=float(flow.layers[0]) - 0.5, end=float(flow.layers[-1]) + 0.5),
    )
    plot.grid.visible = False
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = plot.axis.major_label_text_font_size = "12px"
    plot.xaxis.ticker = _ticks(flow.iterations)
    plot.yaxis.ticker = _ticks(flow.layers)
    return plot


def _colour_bar(colours: LogColorMapper) -> ColorBar:
    from bokeh.models.annotations import ColorBar

    return ColorBar(
        color_mapper=colours,
        title=COLOUR_LABEL,
        height=8,
        background_fill_color=None,
        padding=2,
        title_text_font_style="normal",
    )


def _ticks(values: npt.NDArray[np.int64]) -> list[int]:
    """Return at most ten whole numbers to label."""
    return [int(value) for value in values[:: -(-len(values) // 10)]]


def _bounds(centres: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where the cells around sorted numbers begin and end; neighbours meet half way."""
    middle = (centres[1:] + centres[:-1]) / 2
    return np.append(centres[0] - 0.5, middle), np.append(middle, centres[-1] + 0.5)


# Runs in the page. `frames` holds one flat array a trace: training steps, then iterations, then layers.
_CODE = """
const slider = document.getElementById(names.slider), label = document.getElementById(names.label);
const digits = (value) => !Number.isFinite(value) ? `${value} (not finite)`
  : value === 0 ? "0 (no error has come here)"
  : value >= 1e-3 && value < 1e4 ? value.toPrecision(4) : value.toExponential(3);

function show() {
  const step = steps[Number(slider.value)];
  label.value = `training step ${step.toLocaleString("en")}`;
  sources.forEach((source, run) => {
    const recorded = runs[run].steps, layers = runs[run].layers, cells = source.data.norm.length;
    const row = Math.max(0, recorded.findLastIndex((one) => one <= step));
    const norms = Array.from({length: cells}, (_, cell) => frames[run][row * cells + cell]);
    const sums = norms.map((_, cell) => {  // of the squared errors in the cell's iteration
      const first = cell - cell % layers;
      return norms.slice(first, first + layers).reduce((sum, norm) => sum + norm * norm, 0);
    });
    const part = (norm, cell) => norm * norm / sums[cell];  // NaN where there is no error, or one not finite
    const share = (...of) => Number.isFinite(part(...of)) ? `${(100 * part(...of)).toPrecision(3)} %` : "–";
    const colour = (norm) => norm === 0 ? NaN  // which has no colour
      : Number.isFinite(norm) ? Math.min(norm, high) : Number.MAX_VALUE;
    source.data = {...source.data, norm: Float64Array.from(norms, colour),
                   shown: norms.map(digits), share: norms.map(share)};
    plots[run].title.text = `${source.name}, step ${recorded[row].toLocaleString("en")}`;
  });
}

function paint() {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  for (const plot of plots) {
    plot.title.text_color = ink;
    for (const part of [...plot.below, ...plot.left]) {
      for (const name of ["axis_label_text_color", "major_label_text_color", "axis_line_color",
                          "major_tick_line_color", "minor_tick_line_color", "title_text_color"]) {
        if (name in part.properties) part[name] = name.startsWith("minor") ? null : ink;
      }
    }
  }
}

slider.addEventListener("input", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
paint();
show();
document.documentElement.dataset.ready = "yes";
"""
