"""Range and sparsity of recorded arrays, against closed forms and against NumPy on whole arrays."""

import numpy as np
import pytest

from pcsim import analysis
from pcsim.analysis import FixedPoint, stream
from pcsim.analysis.signals import SPARSE
from pcsim.analysis.statistics import MOST_DISTINCT
from pcsim.errors import ConfigurationError
from pcsim.tracing import open_trace


def test_range_by_hand(signal_trace):
    """Known numbers, known histogram, known format."""
    values = np.array([0, 0.25, -0.5, 0.75, 1, -1, 0, 3.0]).reshape(2, 2, 1, 2)
    found = analysis.dynamic_range(signal_trace(error_1=values), snr=20).isel(signal=0)
    assert found.signal.item() == "probes/hand/error_1"
    assert (found.quantity.item(), found.layer.item()) == ("error", 1)
    assert (found.minimum.item(), found.maximum.item(), found.smallest_nonzero.item()) == (-1, 3, 0.25)
    assert (found["count"].item(), found.zeros.item(), found.negatives.item()) == (8, 2, 2)
    assert dict(zip(found.exponent.values.tolist(), found.histogram.values.tolist(), strict=True)) == {
        -2: 1,
        -1: 2,
        0: 2,
        1: 1,
    }
    assert found["mean"].item() == values.mean()
    assert found["std"].item() == pytest.approx(values.std())
    # Power 1.484: ½ log2(100 / (12 · 1.484)) = 1.24, so 2 fraction bits; 3 needs 2 integer bits.
    assert (found.integer_bits.item(), found.fraction_bits.item(), found.bits.item()) == (2, 2, 5)


def test_sparsity_by_hand(signal_trace):
    """A relu is silent at and below 0; layer 0 has no activation function, and neither has the output."""
    values = np.array([[[[-1.0, 0, 2, 3]], [[1, 0, 0, 0]]]])
    found = analysis.sparsity(signal_trace(activity_0=values, activity_1=values, activity_2=values))
    assert found.zero_share.values.tolist() == [[0.25, 0.75]] * 3
    assert found.silent_share.values.tolist() == [[0.25, 0.75], [0.5, 0.75], [0.25, 0.75]]
    assert found.zero_share.dims == ("signal", "iteration")


@pytest.mark.parametrize("limit", [1000, 2**22])
def test_real_signals_as_numpy_sees_them(each_run, monkeypatch, limit):
    """Every recorded array of every order and engine, in pieces of a few numbers or whole; no targets."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", limit)
    found, zeros = analysis.dynamic_range(each_run.path), analysis.sparsity(each_run.path)
    with open_trace(each_run.path) as trace:
        probe = trace.table("probes/all")
        names = [name for name in probe.columns if name != "step" and not name.startswith("target")]
        assert sorted(found.signal.values) == [f"probes/all/{name}" for name in names]
        for name in names:
            values, one = probe.read(name), found.sel(signal=f"probes/all/{name}")
            assert (one.minimum, one.maximum, one["count"]) == (values.min(), values.max(), values.size)
            assert one.mean_square.item() == pytest.approx((values**2).mean(), rel=1e-9)
            assert one.sparsity.item() == (values == 0).mean()
            if name.rpartition("_")[0] in SPARSE:
                share = zeros.zero_share.sel(signal=f"probes/all/{name}").values
                assert share == pytest.approx((values == 0).mean(axis=(0, 2, 3)))
                if name.startswith("activity"):
                    silent = zeros.silent_share.sel(signal=f"probes/all/{name}").values
                    assert silent == pytest.approx(share)  # tanh is 0 at 0 only


@pytest.mark.parametrize("snr", [30, 50, 70])
def test_formats_of_real_signals_reach_their_ratio(make, snr):
    """Quantised for real, each recorded signal keeps what was asked for, within half a decibel.

    Where the values are few, rounding is no noise: there the format is chosen by its exact ratio.
    """
    run = make()
    found = analysis.quantised_snr(run.path, analysis.dynamic_range(run.path, snr=snr))
    with open_trace(run.path) as trace:
        for signal in found.signal.values:
            one = found.sel(signal=signal)
            values = trace.table("probes/all").read(signal.rpartition("/")[2])
            form = FixedPoint(int(one.integer_bits), int(one.fraction_bits))
            noise = ((form.quantise(values) - values) ** 2).mean()
            measured = 10 * np.log10((values**2).mean() / noise)
            assert one.measured_snr.item() == pytest.approx(measured)
            assert measured >= snr - (0.5 if len(np.unique(values)) > MOST_DISTINCT else 1e-9), signal
            assert measured < snr + 15


def test_few_different_values_get_the_bit_that_they_lack(signal_trace):
    """Thirds lie a third of a step beside multiples of 2^-b: that is noise of 1/9 of its square, not 1/12."""
    values = np.tile([1 / 3, 2 / 3], 600).reshape(2, 3, 2, 100)
    mean_square = (values**2).mean()
    for snr in (40.0, 41.0, 42.0, 43.0, 44.0, 45.0):
        plain = FixedPoint.suited(1 / 3, 2 / 3, mean_square, snr)
        path = signal_trace(name=f"{snr}.h5", error_1=values)
        found = analysis.quantised_snr(path, analysis.dynamic_range(path, snr=snr))
        missed = 10 * np.log10(mean_square / ((plain.quantise(values) - values) ** 2).mean()) < snr
        assert int(found.fraction_bits[0]) == plain.fraction_bits + missed
        assert float(found.measured_snr[0]) >= snr
        assert int(found.extra_bits[0]) == 0


@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_more_fraction_bits_may_ask_for_an_integer_bit(signal_trace, spread):
    """Just below −1: coarsely rounded it fits without one; finer it saturated, however many bits came."""
    values = np.full((30, 10, 1, 10), -1.012) + spread * np.arange(3000).reshape(30, 10, 1, 10) / 3000
    path = signal_trace(error_1=values)
    found = analysis.quantised_snr(path, analysis.dynamic_range(path, snr=40.0)).isel(signal=0)
    if spread:  # of many values, whose format is not chosen by its exact ratio
        assert (int(found.integer_bits), int(found.fraction_bits), int(found.extra_bits)) == (0, 5, 1)
    else:
        assert (int(found.integer_bits), int(found.fraction_bits), int(found.extra_bits)) == (1, 6, 0)
        assert float(found.measured_snr) >= 40


def test_a_format_that_misses_is_marked(signal_trace, command):
    """Of many values: what is measured below the ratio says how many bits it lacks, in the table too."""
    steps = np.linspace(0.49, 0.5, 3000)  # of the same side of a rounding step each: rounding is no noise
    values = (np.arange(3000) % 50 + steps).reshape(3, 10, 1, 100) / 64
    snr, path = None, signal_trace(error_1=values, dtype="float64")
    for snr in np.arange(30.0, 42.0, 0.5):
        found = analysis.quantised_snr(path, analysis.dynamic_range(path, snr=snr))
        if float(found.measured_snr[0]) < snr:
            break
    assert int(found.extra_bits[0]) == 1
    form = FixedPoint(int(found.integer_bits[0]), int(found.fraction_bits[0]) + 1)
    assert 10 * np.log10((values**2).mean() / ((form.quantise(values) - values) ** 2).mean()) >= snr
    shown = command("analyze", path, "--only", "range", "--snr", snr, "--verify").stdout
    assert f"{int(found.bits[0])} +1" in shown
    assert "1 misses it" in " ".join(shown.split())


def test_relu_is_silent_where_its_activity_is_not_above_zero(make):
    """Sparsity that a chip can use: f(ĥ) = 0, although ĥ itself is not."""
    run = make(activation="relu", record=("activity",))
    found = analysis.sparsity(run.path)
    with open_trace(run.path) as trace:
        values = trace.table("probes/all").read("activity_2")
    one = found.sel(signal="probes/all/activity_2")
    assert one.silent_share.values == pytest.approx((values <= 0).mean(axis=(0, 2, 3)))
    assert one.silent_share.values.min() > one.zero_share.values.max()


def test_arrays_of_nothing_finite(signal_trace):
    """A probe that caught only NaN gives NaN and no bits, and does not stop the others."""
    values = np.full((1, 2, 1, 2), np.nan)
    found = analysis.dynamic_range(signal_trace(error_1=values, error_2=np.ones_like(values)))
    assert np.isnan(found.minimum.values[0])
    assert found.nonfinite.values.tolist() == [4, 0]
    assert found.maximum.values[1] == 1


def test_bad_ratio_is_refused_before_reading(tmp_path):
    """An hour over a large trace must not end at a slip."""
    with pytest.raises(ConfigurationError, match="snr"):
        analysis.dynamic_range(tmp_path / "missing.h5", snr=-1)


@pytest.mark.parametrize("function", [analysis.dynamic_range, analysis.sparsity])
def test_without_probes(make, function):
    """The error says what to add to the model file."""
    with pytest.raises(stream.NotRecordedError, match=r"add record = \[.*\] to a \[probe.NAME\] section"):
        function(make(record=None).path)
