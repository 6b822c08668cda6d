"""What the pictures show is what the trace holds; each fits its width in print."""

import io
from dataclasses import replace
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from matplotlib.text import Text
from report_traces import RUNS, SIZES, train, write_by_hand

from pcsim import report
from pcsim.analysis import backprop_angles
from pcsim.errors import TraceError
from pcsim.report.error_flow import own_power, two_digits
from pcsim.report.figures import KINDS
from pcsim.report.numbers import (
    Angles,
    read_energy,
    read_error_flow,
    read_learning,
    read_timeline,
    read_traffic,
    read_updates,
)
from pcsim.report.style import BROKEN, LINES, MAP, ink_on, whole_ticks
from pcsim.tracing.reader import open_trace

PLOTS = (
    report.plot_error_flow,
    report.plot_energy,
    report.plot_energy_left,
    report.plot_updates,
    report.plot_learning,
    report.plot_timeline,
    report.plot_raster,
    report.plot_traffic,
    report.plot_network,
)
OF_EVENTS = (report.plot_timeline, report.plot_raster, report.plot_traffic)


@pytest.fixture
def ax():
    """Axes on a figure that no window shows."""
    return Figure().subplots()


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
@pytest.mark.parametrize(("order", "engine"), RUNS)
def test_every_picture_of_every_run(runs, ax, plot, order, engine):
    """Every order and engine can be drawn into given axes, which come back; else one line says what to do."""
    with open_trace(runs[order, engine]) as trace:
        if engine == "fast" and plot in OF_EVENTS:
            with pytest.raises(TraceError, match="run with --engine event"):
                plot(trace, ax=ax)
            return
        assert plot(trace, ax=ax) is ax
    ax.figure.draw_without_rendering()
    assert ax.has_data()


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_new_axes_where_none_are_given(runs, plot):
    """In a notebook, a picture needs nothing but the trace."""
    with open_trace(runs["sequential", "event"]) as trace:
        ax = plot(trace)
    assert ax.figure.number in plt.get_fignums()
    plt.close(ax.figure)


def test_heat_map_shows_the_norms(runs, ax):
    """A cell's colour is the norm of its layer and iteration; where there is no error there is no colour."""
    with open_trace(runs["simultaneous", "event"]) as trace:
        flow = read_error_flow(trace)
        report.plot_error_flow(trace, step=0, ax=ax, colorbar=False)
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    shown = mesh.get_array()
    assert np.array_equal(shown.filled(0), flow.norms[0].T)
    assert shown.mask.tolist() == [[True, True, False, False], [True, False, False, False], [False] * 4]
    assert [text.get_text() for text in ax.texts].count("0") == 3


def test_heat_maps_share_a_colour_scale(runs):
    """Runs are comparable at a glance: all maps of a picture have one scale, over all their norms."""
    paths = [runs["sequential", "event"], runs["simultaneous", "event"]]
    traces = [open_trace(path) for path in paths]
    figure = KINDS["errors"].draw(traces, "double")
    norms = {one.norm for ax in figure.axes for one in ax.collections if isinstance(one, QuadMesh)}
    scales = {(norm.vmin, norm.vmax) for norm in norms if hasattr(norm, "vmin")}
    both = np.concatenate([read_error_flow(trace).norms.ravel() for trace in traces])
    assert (both[both > 0].min(), both.max()) in scales
    panels = [ax for ax in figure.axes if ax.get_title().startswith("training step")]
    assert len(panels) == 6
    assert len({id(ax.collections[0].norm) for ax in panels}) == 1


def test_error_scale_of_nothing_and_of_infinity(tmp_path):
    """A run without errors, and one that blew up, still have a scale with two ends."""
    for name, squared in (
        ("none", [[[0.0]]]),
        ("one", [[[2.0]]]),
        ("infinite", [[[np.inf], [np.nan], [2.0]]]),
    ):
        with open_trace(write_by_hand(tmp_path / f"{name}.h5", squared)) as trace:
            scale = report.error_scale([read_error_flow(trace)])
            assert 0 < scale.vmin < scale.vmax < np.inf
            ax = report.plot_error_flow(trace, ax=Figure().subplots())
            ax.figure.savefig(io.BytesIO(), format="png")


def test_energy_on_a_logarithmic_scale_where_it_spans_decades(tmp_path, ax):
    """A fall from 100 to 1 is drawn on a logarithmic scale, one from 100 to 50 is not."""
    for name, last, scale in (("far", 1.0, "log"), ("near", 50.0, "linear")):
        with open_trace(write_by_hand(tmp_path / f"{name}.h5", [[[100.0], [last]]])) as trace:
            drawn = report.plot_energy(trace, ax=Figure().subplots())
        assert drawn.get_yscale() == scale
        assert drawn.lines[0].get_ydata().tolist() == [100, last]


def test_seeds_share_a_learning_curve(seeds, runs, ax):
    """Runs that differ only in their seed become one curve, the mean, in a band from worst to best."""
    traces = [open_trace(path) for path in [*seeds, runs["simultaneous", "fast"]]]
    report.plot_learning(traces, ax=ax)
    curves = np.array([read_learning(trace).test_accuracy for trace in traces[:3]])
    assert len(ax.lines) == 2
    assert np.allclose(ax.lines[0].get_ydata(), curves.mean(axis=0))
    assert len(ax.collections) == 1  # one band: the other run is alone
    band = ax.collections[0].get_paths()[0].vertices
    assert np.isclose(band[:, 1].min(), curves.min())
    assert np.isclose(band[:, 1].max(), curves.max())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["sequential, T = 3, 3 seeds", "simultaneous, T = 3"]


def test_a_seed_that_ended_earlier(tmp_path, seeds, ax):
    """Where one seed has fewer epochs, the mean goes on with the others."""
    short = train(tmp_path / "short.h5", engine="fast", seed=9, epochs=3)
    traces = [open_trace(seeds[0]), open_trace(short)]
    full = read_learning(traces[1]).test_accuracy
    report.plot_learning(traces, ax=ax)
    expected = (read_learning(traces[0]).test_accuracy + full) / 2
    assert np.allclose(ax.lines[0].get_ydata(), expected)


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "asynchronous"])
def test_timeline_has_a_bar_an_operation_and_an_arrow_a_message(runs, ax, order):
    """Nothing is lost between the file and the picture, and arrows go to the receiver."""
    with open_trace(runs[order, "event"]) as trace:
        events = trace.table("events")
        first = events.read("step") == events.read("step")[0]
        kinds = events.decode("kind")[first]
        layers, targets = events.read("layer")[first], events.read("target")[first]
        report.plot_timeline(trace, ax=ax)
    arrows = [one for one in ax.collections if isinstance(one, Quiver)]
    assert sum(len(container) for container in ax.containers) == (kinds == "operation").sum()
    assert sum(one.N for one in arrows) == (kinds == "message").sum()
    starts = np.concatenate([one.XY[:, 1] for one in arrows])
    ends = starts + np.concatenate([one.V for one in arrows])
    sent = sorted(zip(starts.round(), ends.round(), strict=True))
    message = kinds == "message"
    assert sent == sorted(zip(layers[message], targets[message], strict=True))


def test_a_long_timeline_is_cut_and_says_so(tmp_path, ax):
    """Five of nine events: the picture's title tells."""
    events = [(0, "operation", "predict", 0, -1, n, n + 1.0, 0, 0) for n in range(9)]
    with open_trace(write_by_hand(tmp_path / "t.h5", events=events)) as trace:
        report.plot_timeline(trace, most=5, ax=ax)
    assert "first 5 of 9 events" in ax.get_title()
    assert sum(len(container) for container in ax.containers) == 5


def test_raster_height_is_the_share_of_values_that_are_not_zero(tmp_path, ax):
    """A message with 6 of 8 values is three quarters as high as a full one; one of zeros only is a dot."""
    events = [(0, "message", "prediction", 0, 1, 0.0, n, 8, nonzero) for n, nonzero in enumerate((8, 6, 0))]
    with open_trace(write_by_hand(tmp_path / "t.h5", events=events)) as trace:
        report.plot_raster(trace, ax=ax)
    lines = next(one for one in ax.collections if isinstance(one, LineCollection) and one.get_segments())
    heights = [np.ptp(segment[:, 1]) for segment in lines.get_segments()]
    assert np.allclose(np.divide(heights, heights[0]), [1, 0.75, 0])
    assert len(ax.lines[0].get_xdata()) == 3


def test_traffic_matrix_shows_the_bytes(runs, ax):
    """A cell is a link; what was never sent has no colour."""
    with open_trace(runs["sequential", "event"]) as trace:
        expected = read_traffic(trace).bytes
        report.plot_traffic(trace, ax=ax, colorbar=False)
    shown = ax.collections[0].get_array()
    assert np.array_equal(shown.filled(0), expected)
    assert (shown.mask == (expected == 0)).all()
    assert len(ax.texts) == (expected > 0).sum() == 6


def test_network_says_sizes_and_bytes(runs, ax):
    """Blocks carry the layers' sizes, links their bytes; without events the drawing says that it has none."""
    with open_trace(runs["sequential", "event"]) as trace:
        report.plot_network(trace, ax=ax)
    words = [text.get_text() for text in ax.texts]
    assert [word for word in words if word.isdecimal()] == list(map(str, SIZES))
    assert sum(word.endswith("B") for word in words) == 6
    with open_trace(runs["sequential", "fast"]) as trace:
        other = report.plot_network(trace, ax=Figure().subplots())
    assert not any(text.get_text().endswith("B") for text in other.texts)
    assert "no events" in other.get_legend().get_title().get_text()


def test_a_deep_network_leaves_out_its_middle(tmp_path, ax):
    """Thirty layers do not fit: the first and the last are drawn."""
    with open_trace(write_by_hand(tmp_path / "t.h5", layers=[5] * 30)) as trace:
        report.plot_network(trace, ax=ax)
    named = [text.get_text() for text in ax.texts if text.get_text().startswith("layer")]
    assert named == [f"layer {layer}" for layer in (0, 1, 2, 3, 26, 27, 28, 29)]
    with open_trace(write_by_hand(tmp_path / "u.h5")) as trace, pytest.raises(TraceError, match="'layers'"):
        report.plot_network(trace, ax=ax)


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_fit_the_page(runs, kind, width):
    """At print width nothing is cut off, and no text is smaller than 5 points."""
    paths = [runs["sequential", "event"], runs["simultaneous", "event"], runs["asynchronous", "event"]]
    traces = [open_trace(path) for path in paths]
    with report.style():
        figure = KINDS[kind].draw(traces, width)
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()  # inches, of all that is visible
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert figure.get_figwidth() == {"single": 3.5, "double": 7.0}[width]
    assert min(sizes) >= 5
    assert min(drawn.x0, drawn.y0) >= -0.02
    assert drawn.x1 <= figure.get_figwidth() + 0.02
    assert drawn.y1 <= figure.get_figheight() + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_drawn_with_lines(runs, kind):
    """Small pictures are vectors throughout; only very large maps become images."""
    file = io.StringIO()
    with open_trace(runs["sequential", "event"]) as trace, report.style():
        KINDS[kind].draw([trace], "single").savefig(file, format="svg")
    images = file.getvalue().count("<image")
    # Colour bars are images in matplotlib's SVG; no data is.
    assert images <= (1 if kind in ("errors", "traffic") else 0)


def test_colours_can_be_told_apart():
    """People with each kind of colour-blindness see different line colours (simulated after Viénot, 1999)."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
        "none": np.eye(3),
    }
    linear = np.array([to_rgb(colour) for colour in LINES]) ** 2.2
    for name, loss in blind.items():
        seen = np.clip(linear @ (np.linalg.inv(to_lms) @ loss @ to_lms).T, 0, 1) ** (1 / 2.2)
        for one, other in combinations(range(len(LINES)), 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 0.1, (name, LINES[one], LINES[other])


def test_ticks_are_whole_numbers():
    """Layers and iterations are counted: ticks lie on whole numbers, ten at most."""
    for count in (1, 2, 9, 10, 11, 57, 1001):
        axis = Figure().subplots().xaxis
        whole_ticks(axis, np.arange(count))
        ticks = axis.get_ticklocs()
        assert 1 <= len(ticks) <= 11
        assert (ticks == ticks.round()).all()


def test_nothing_to_draw(empty, ax):
    """A trace without rows is refused in one line, by every picture that needs them."""
    with open_trace(empty) as trace:
        for plot in PLOTS:
            if plot is not report.plot_network:
                with pytest.raises(TraceError, match="expected"):
                    plot(trace, ax=ax)
        report.plot_network(trace, ax=ax)


def test_a_killed_run_is_drawn(killed, ax):
    """Every picture shows what a killed run has left."""
    with open_trace(killed) as trace:
        for plot in PLOTS:
            assert plot(trace, ax=Figure().subplots()).has_data()


def test_angles_are_those_of_the_analysis(runs):
    """A line a connection, in degrees; lengths beside them."""
    with open_trace(runs["sequential", "fast"]) as trace:
        found = backprop_angles(trace)
        for plot, values in (
            (report.plot_backprop_angles, found.angle.values),
            (report.plot_backprop_lengths, found.length_ratio.values),
        ):
            ax = plot(trace, ax=Figure().subplots())
            lines = [line for line in ax.lines if line.get_label().startswith("layer")]
            drawn = np.stack([line.get_ydata() for line in lines], axis=1)
            assert np.array_equal(drawn, values, equal_nan=True)
    assert 0 < np.nanmax(found.angle.values) <= 180
    assert "°" in report.plot_backprop_angles(trace_of(found), ax=Figure().subplots()).get_ylabel()


def trace_of(found):
    """What is read for a picture of angles."""
    steps, connections = found.step.values, found.connection.values
    return Angles(steps, connections, found.angle.values, found.length_ratio.values, len(steps))


def test_not_finite_is_neither_an_error_nor_none(tmp_path, ax):
    """Zero is hatched, NaN and infinity have their own colour, and the title names it."""
    squared = [[[0, 0.5], [np.nan, np.inf]]]
    with open_trace(write_by_hand(tmp_path / "t.h5", squared)) as trace:
        report.plot_error_flow(trace, ax=ax)
        assert read_error_flow(trace).front.tolist() == [1, 0]  # NaN has come there
    norms, broken = (one.get_array() for one in ax.collections if isinstance(one, QuadMesh))
    assert norms.mask.tolist() == [[True, True], [False, True]]
    assert broken.mask.tolist() == [[True, False], [True, False]]
    assert to_hex(ax.collections[1].get_cmap()(1.0)) == BROKEN
    assert "magenta: not finite" in ax.get_title()
    assert sorted(text.get_text() for text in ax.texts) == ["0", "1.0", "NaN", "∞"]


def test_norms_have_two_digits():
    """A series that grows shows it, in one notation: never 0.4 beside 0.39."""
    given = [0, 0.0021, 0.0996, 0.39, 0.4, 0.996, 9.96, 12.3, 99.6, 1234, np.nan, np.inf]
    told = ["0", "0.0021", "0.10", "0.39", "0.40", "1.0", "10", "12", "100", "1234", "NaN", "∞"]
    assert [two_digits(value) for value in given] == told
    given = [0, 0.00196, 0.5, 9.96, 1234, 1e12, 3e-15, np.nan, np.inf]
    told = ["0", "2.0e-3", "5.0e-1", "1.0e1", "1.2e3", "1.0e12", "3.0e-15", "NaN", "∞"]
    assert [own_power(value) for value in given] == told


def test_numbers_in_a_map_do_not_touch(tmp_path):
    """With five iterations three maps lie beside each other: their numbers stay apart, in one notation."""
    squared = [[[0.44, 2e-4, 1e-7 * (t + 1)] for t in range(6)] for _ in range(3)]
    with open_trace(write_by_hand(tmp_path / "t.h5", squared)) as trace, report.style():
        figure = KINDS["errors"].draw([trace], "double")
        figure.draw_without_rendering()
        for ax in figure.axes[:-1]:
            assert "norms in 10⁻³" in ax.get_title()
            boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: (round(box.y0), box.x0))
            beside = [(a, b) for a, b in pairwise(boxes) if round(a.y0) == round(b.y0)]
            assert len(beside) == 15
            assert all(a.x1 < b.x0 for a, b in beside)
            assert not any("e" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize("smallest", [1e-4, 1e-9, 1e-12])
def test_every_panel_has_its_numbers(tmp_path, smallest):
    """The first step spans more decades than later ones: it had no numbers beside panels full of them."""
    first = [[0.44, 2e-3, (smallest**2) / 2] for _ in range(5)]
    squared = [first, [[0.44, 2e-4, 1e-4]] * 5, [[0.4, 2e-3, 1e-3]] * 5]
    with open_trace(write_by_hand(tmp_path / "t.h5", squared)) as trace, report.style():
        figure = KINDS["errors"].draw([trace], "double")
        figure.draw_without_rendering()
    for ax in figure.axes[:-1]:
        assert len(ax.texts) == 15
        boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: (round(box.y0), box.x0))
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes) if round(a.y0) == round(b.y0))


def test_a_colour_bar_is_as_wide_in_a_tall_picture(runs):
    """Its width follows its height unless told; beside eight runs it was as wide as a panel."""
    widths = []
    for number in (1, 8):
        traces = [open_trace(runs["sequential", "fast"]) for _ in range(number)]
        with report.style():
            figure = KINDS["errors"].draw(traces, "double")
            figure.draw_without_rendering()
        widths.append(figure.axes[-1].get_window_extent().width / figure.dpi)
    assert max(widths) < 0.16


def test_a_single_step_has_no_fractions(runs):
    """Training steps are counted: where there is one, the axis has its number and none beside it."""
    with open_trace(runs["sequential", "fast"]) as trace:
        found = backprop_angles(trace).isel(step=slice(0, 1))
    ax = report.plot_backprop_angles(trace_of(found), ax=Figure().subplots())
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == found.step.values.tolist()


def test_ink_can_be_read_on_every_colour():
    """Contrast is at least 4.5 to 1, as WCAG asks of small text, also on mid-grey."""
    for colour in colormaps[MAP](np.linspace(0, 1, 50)):
        sent = colour[:3]
        light = np.where(sent <= 0.04045, sent / 12.92, ((sent + 0.055) / 1.055) ** 2.4)
        light = light @ [0.2126, 0.7152, 0.0722]
        contrast = (light + 0.05) / 0.05 if ink_on(colour) == "black" else 1.05 / (light + 0.05)
        assert contrast >= 4.5


def test_seeds_share_energy_and_updates(seeds, runs):
    """Six bands over each other are mud: seeds become one curve, in a band from the lowest to the highest."""
    traces = [open_trace(path) for path in [*seeds, runs["simultaneous", "fast"]]]
    ax = report.plot_energy(traces, ax=Figure().subplots())
    medians = np.array([read_energy(trace).median for trace in traces[:3]])
    assert np.allclose(ax.lines[0].get_ydata(), medians.mean(axis=0))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert len(ax.lines) == 2
    assert len(ax.collections) == 1
    assert np.isclose([band.min(), band.max()], [medians.min(), medians.max()]).all()
    ax = report.plot_updates(traces[:3], ax=Figure().subplots())
    magnitudes = np.array([read_updates(trace).magnitudes for trace in traces[:3]])
    assert np.allclose(ax.lines[1].get_ydata(), magnitudes.mean(axis=0)[:, 1])
    assert len(ax.collections) == len(ax.lines) == magnitudes.shape[2]


def test_the_same_picture_is_drawn_once(seeds, runs):
    """Seeds have one network; who does what when is theirs, too, on a clock without jitter."""
    traces = [open_trace(path) for path in seeds]
    (network,) = KINDS["network"].draw(traces, "double").axes
    assert "3 seeds; no events" in network.get_legend().get_title().get_text()
    traces = [open_trace(runs[order, "event"]) for order in ("sequential", "simultaneous")]
    figure = KINDS["timeline"].draw([*traces, *traces], "double")
    assert len(figure.axes) == 4
    assert len(figure.legends) == 1
    assert not any(ax.get_legend() for ax in figure.axes)


def test_legends_hide_no_curve(runs):
    """They lie below the axes."""
    traces = [open_trace(path) for path in runs.values()]
    figure = Figure(layout="constrained")
    ax = report.plot_energy(traces, ax=figure.subplots())
    figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0


def test_time_has_a_unit_where_it_is_known(tmp_path, runs):
    """Nanoseconds of a machine become ms or µs at the axis; other clocks have no unit."""
    read = read_timeline(open_trace(runs["sequential", "event"]))
    assert read.unit == ""
    ax = report.plot_timeline(read, ax=Figure().subplots())
    assert ax.get_xlabel() == "simulated time"
    last = read.end.max()
    slow = replace(read, start=read.start * 2e7 / last, end=read.end * 2e7 / last, unit="ns")
    ax = report.plot_timeline(slow, ax=Figure().subplots())
    assert ax.get_xlabel() == "simulated time, ms"
    assert ax.xaxis.get_major_formatter()(1e7, 0) == "10"
