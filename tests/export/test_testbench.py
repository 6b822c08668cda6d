"""A test bench says what a layer received, did and sent; its reader and Icarus Verilog find it so."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import wired

import pcsim
from pcsim.analysis.fixed_point import FixedPoint as Suited
from pcsim.errors import ConfigurationError, TraceError
from pcsim.export import Options, export
from pcsim.export.fixed_point import FixedPoint
from pcsim.export.quantised import Quantised
from pcsim.export.testbench import read
from pcsim.schedule.channel import Dead

ORDERS = [
    *((order, "fast") for order in ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")),
    *((order, "event") for order in ("sequential", "incremental", "asynchronous")),
]


def bench(path, out, layer=2, number="Q3.12", step=None):
    """Export; return what was made and what the shipped reader reads."""
    made = export(path, "testbench", out, Options(layer=layer, step=step, fixed_point=number))
    return made, read(out)


def verdicts(replay):
    return {one.equation: one for one in replay.check()}


@pytest.mark.parametrize(("order", "engine"), ORDERS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_words_round_trip_and_obey_the_equations(trace_of, tmp_path, order, engine, layer):
    """Each value is within half a bit of the record, and every equation within its quantisation bound."""
    path = trace_of(order, engine)
    made, replay = bench(path, tmp_path / "b", layer, "Q3.20")
    with pcsim.open_trace(path) as trace:
        probe = trace.table("probes/all")
        recorded = {name: probe.column(name)[-1] for name in probe.columns if name != "step"}
    columns = {
        "activity": f"activity_{layer}",
        "error": f"error_{layer}",
        "prediction_in": f"prediction_{layer}",
        "prediction_out": f"prediction_message_{layer}",
    }
    for signal, column in columns.items():
        assert np.abs(replay.signals[signal] - recorded[column]).max() <= 2.0**-21
    used = recorded[f"weight_{layer}"] - recorded[f"update_{layer}"]
    assert np.abs(replay.signals["weight"] - used).max() <= 2.0**-21
    found = verdicts(replay)
    assert all(one.holds for one in found.values())
    assert found["compare"].checked == recorded[f"error_{layer}"].size
    assert found["compare"].bound == pytest.approx(1.5 * 2.0**-20, rel=1e-6)
    known = [one["known"] for one in replay.manifest["relaxations"]]
    if order == "incremental":  # the weights of later iterations are in no trace
        # W_l changes from the iteration on in which the error, travelling a layer each, has come to l + 1.
        assert known == [True, layer == 1, False]
        assert any("weights change within the inference phase" in note for note in made.notes)
    else:
        assert known == [True] * 3
        assert made.notes == ()
        assert found["relax"].checked == 3 * 2 * (64, 6, 5, 4, 10)[layer]
        assert found["predict"].checked == recorded[f"prediction_message_{layer}"].size
    assert np.abs(np.diff(replay.signals["activity"], axis=0)).max() > 3 * 2.0**-20  # something is checked


# Which message is in the inbox when layer 2 of 4 relaxes in iteration 2, by the definition of each order.
INBOX = {
    "simultaneous": ("prediction_2[1]", "error_message_3[1]"),
    "sequential": ("prediction_2[1]", "error_message_3[2]"),
    "bottom-up": ("prediction_2[2]", "error_message_3[1]"),
    "red-black": ("prediction_2[2]", "activity_3[2] - prediction_3[1]"),
}


@pytest.mark.parametrize("order", INBOX)
def test_inbox_of_each_order(trace_of, tmp_path, order):
    """What the search finds in the inbox is what the order says is there."""
    path = trace_of(order, "fast")
    _, replay = bench(path, tmp_path / "b", 2)
    told = replay.manifest["relaxations"][1]
    with pcsim.open_trace(path) as trace:
        probe = trace.table("probes/all")

        def value(name):
            if " - " in name:
                return value(name.split(" - ")[0]) - value(name.split(" - ")[1])
            column, iteration = name.rstrip("]").split("[")
            return probe.column(column)[-1][int(iteration)]

        for found, expected in zip((told["prediction"], told["error_above"]), INBOX[order]):
            assert np.array_equal(value(found), value(expected)), (found, expected)


NETWORKS = {
    "relu": {"activation": "relu"},
    "leaky relu, decay": {"activation": "leaky_relu", "activity_decay": (0.0, 0.3, 0.2, 0.1, 0.0)},
    "sigmoid, precisions": {"activation": "sigmoid", "precision": (1.0, 0.5, 2.0, 1.5, 1.0)},
    "gelu, decay": {"activation": "gelu", "activity_decay": (0.0, 0.3, 0.2, 0.1, 0.0)},
    "identity": {"activation": "identity", "output": "identity"},
    "float32": {"activation": "tanh", "dtype": "float32"},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("number", "probe"), [("Q1.6", "float32"), ("Q3.12", "float32"), ("Q7.40", "float64")]
)
def test_bounds_hold_for_every_function_and_format(trace_of, tmp_path, network, number, probe):
    """Eight bits or forty-eight, kinks or curves: the bound is never broken, and it is not idle."""
    path = trace_of("sequential", "fast", network=NETWORKS[network], probe_dtype=probe)
    _, replay = bench(path, tmp_path / "b", 2, number)
    assert all(told["known"] for told in replay.manifest["relaxations"])
    assert not any(told["saturated"] for told in replay.manifest["signals"].values())
    for one in replay.check():
        assert one.holds, one
        assert one.bound < 60 * replay.numbers["error"].step + 3e-4 * (
            number == "Q7.40" and network == "float32"
        )


WIRES = {
    "formats": wired(prediction="Q4.9", error="Q0.13", state="Q3.11"),
    "stochastic": wired(prediction="Q4.9", error="Q0.13", state="Q3.11", rounding="stochastic"),
    "floats": wired(prediction="bfloat16", error="bfloat16", state="float16"),
    "threshold": wired(0.002),
    "formats, threshold": wired(0.001, "Q4.9", "Q0.13", "Q3.11"),
    "dead below": wired(dead=Dead(1)),
    "dead above": wired(dead=Dead(3, step=1)),
    "loss": wired(loss=0.3),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_words_are_what_the_layer_had(trace_of, tmp_path, wire, order):
    """Beyond channels too the inbox is found and equations hold; nothing was once checked, and held."""
    how = {"network": {"dtype": "float32"}, "probe_dtype": "float32", "channels": WIRES[wire]}
    made, replay = bench(trace_of(order, "event", **how), tmp_path / "b", 2, "Q7.24")
    found = verdicts(replay)
    assert [one["known"] for one in replay.manifest["relaxations"]] == [True] * 3, made.notes
    assert all(one.holds for one in found.values()), found
    assert found["relax"].checked == 3 * 2 * 5


def test_nothing_checked_does_not_hold(trace_of, tmp_path):
    """An equation of which no word could be checked is not one that holds."""
    record = ("activity", "error", "prediction", "message", "weight", "bias")
    _, replay = bench(trace_of("sequential", "fast", record=record, rate=0.5), tmp_path / "b", 3, step=3)
    assert verdicts(replay)["relax"].checked == 0
    assert not verdicts(replay)["relax"].holds


def test_exact_words_have_no_tolerance(trace_of, tmp_path, verilog):
    """Words of a run in the bench's own formats are exact: half a bit of a coarse operand passed for 16."""
    how = {"network": {"dtype": "float32"}, "probe_dtype": "float32"}
    path = trace_of("sequential", channels=wired(prediction="Q4.7", error="Q0.15", state="Q3.11"), **how)
    given = ("Q3.11", "error=Q3.15", "prediction=Q4.7")
    _, replay = bench(path, tmp_path / "b", 2, given)
    assert replay.manifest["signals"]["error"]["snr_db"] is None
    assert replay.manifest["verilog"]["tolerance_words"] == 0
    assert verilog(tmp_path / "b").endswith("0 within rounding, 0 mismatches\nPASS\n")


def test_a_bench_of_few_words_does_not_pass(trace_of, tmp_path, verilog):
    """One word beyond the tolerance in hundreds let a unit pass whose answer is a constant."""
    path = trace_of("sequential", samples=200)
    given = ("activity=Q3.7", "prediction=Q3.8", "error=Q3.20")  # off by up to 2⁻⁸ + 2⁻⁹, nearly all errors
    made, replay = bench(path, tmp_path / "b", 2, given)
    telling = replay.manifest["verilog"]["words_beyond_tolerance"]
    assert 0 < telling < 40
    assert any(
        note.startswith(f"Warning: testbench.v tests almost nothing: {telling} of 4000 ")
        for note in made.notes
    )
    assert "\nALMOST NOTHING TESTED: " in verilog(tmp_path / "b")


def test_a_wrong_word_is_found(trace_of, tmp_path):
    """The reader's check can fail: one wrong bit, in any file that an equation uses."""
    bench(trace_of("sequential"), tmp_path / "b", 2)
    equations = {
        "error": "compare",
        "prediction_in": "compare",
        "activity": "compare",
        "relax_error_in": "relax",
        "relax_prediction_in": "relax",
        "prediction_out": "predict",
        "bias": "predict",
    }
    for signal, equation in equations.items():
        file = tmp_path / "b" / f"{signal}.hex"
        lines = file.read_text().split("\n")
        file.write_text("\n".join([lines[0], f"{int(lines[1], 16) ^ 0x4000:04x}", *lines[2:]]))
        assert not verdicts(read(tmp_path / "b"))[equation].holds, signal
        file.write_text("\n".join(lines))
    assert all(one.holds for one in read(tmp_path / "b").check())


def test_saturation_is_told_and_breaks_the_check(trace_of, tmp_path):
    """A format that is too narrow is not hidden behind a passing check."""
    rng, sizes = np.random.default_rng(0), (64, 6, 5, 4, 10)
    large = [(rng.normal(size=(m, n)), np.zeros(m)) for n, m in itertools.pairwise(sizes)]
    path = trace_of("sequential", network={"activation": "identity", "parameters": large}, rate=0.0001)
    made, replay = bench(path, tmp_path / "b", 2, "Q0.4")
    assert replay.manifest["signals"]["activity"]["saturated"] > 10
    assert any("words of activity saturated" in note and "Q0.4 ends at 0.9375" in note for note in made.notes)
    assert not verdicts(replay)["predict"].holds


@given(
    st.integers(-4, 20),
    st.integers(5, 30),
    st.lists(st.floats(-3e6, 3e6, allow_nan=False), min_size=1, max_size=20),
)
def test_fixed_point_words(integer_bits, fraction_bits, values):
    """Half a bit of error inside the range, the nearest end outside, and a hex file gives the same words."""
    number, values = FixedPoint(integer_bits, fraction_bits), np.array(values)
    words, saturated = number.words(values)
    back = number.values(words)
    smallest, largest = -(2.0**integer_bits), 2.0**integer_bits - 2.0**-fraction_bits
    inside = (values >= smallest) & (values <= largest)
    assert (np.abs(back - values)[inside] <= 2.0**-fraction_bits / 2).all()
    assert (back[values > largest] == largest).all()
    assert (back[values < smallest] == smallest).all()
    beyond = (values >= largest + 2.0**-fraction_bits / 2) | (values < smallest - 2.0**-fraction_bits / 2)
    assert saturated <= beyond.sum()
    assert saturated >= (values > largest + 2.0**-fraction_bits).sum()


def test_ties_go_to_the_even_word():
    """The rounding that the manifest names, by hand: 0.5 → 0, 1.5 → 2, −2.5 → −2 words."""
    words, _ = FixedPoint(3, 4).words(np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5]) / 16)
    assert words.tolist() == [0, 2, 2, 0, -2, -2]


def test_hex_words_by_hand(tmp_path):
    """Two's complement of the width, in as few digits as hold it."""
    number = FixedPoint(1, 3)
    words = np.array([0, 1, -1, 15, -16])
    number.write_hex(tmp_path / "w.hex", words, "title")
    assert (tmp_path / "w.hex").read_text() == "// title\n00\n01\n1f\n0f\n10\n"
    assert number.read_hex(tmp_path / "w.hex", (5,)).tolist() == words.tolist()


@pytest.mark.parametrize("text", ["3.12", "Q3", "Q-3.3", "Q0.0", "Q30.30", "Q-100.110", "Qm.n", "Q3.12x"])
def test_wrong_formats(trace_of, tmp_path, text):
    """A format that is none is refused in one line, before anything is written."""
    with pytest.raises(ConfigurationError, match=r"--format .*expected Qm\.n"):
        export(trace_of("sequential"), "testbench", tmp_path / "b", Options(layer=2, fixed_point=text))
    assert list(tmp_path.iterdir()) == []


def test_negative_integer_bits_by_hand():
    """Q-2.5 is 4 bits, multiples of 1/32 from -1/4 to 7/32, and what `pcsim analyze` means by -2.5."""
    number, values = FixedPoint.parse("Q-2.5"), np.array([0.25, 0.24, 7 / 32, 1 / 64, -0.25, -0.3])
    words, saturated = number.words(values)
    assert number.bits == 4
    assert words.tolist() == [7, 7, 7, 0, -8, -8]
    assert saturated == 3
    assert (number.values(words) == Suited(-2, 5).quantise(values)).all()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("eror=Q1.3",), "signal 'eror': .*'error'"),
        (("error=Q1.3", "Q2.2", "error=Q1.4"), "error was given before"),
        (("Q1.3", "Q2.2"), "the format of all signals was given before"),
        (("error=",), r"expected Qm\.n"),
    ],
)
def test_wrong_formats_of_signals(trace_of, tmp_path, texts, message):
    """A signal that is none, or two formats for one, are refused before anything is written."""
    with pytest.raises(ConfigurationError, match=message):
        export(trace_of("sequential"), "testbench", tmp_path / "b", Options(layer=2, fixed_point=texts))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", [None, 0, 4, 9])
def test_wrong_layers(trace_of, tmp_path, layer):
    """Input and output do not relax: only hidden layers have a test bench."""
    with pytest.raises(ConfigurationError, match="expected a hidden layer, 1 to 3"):
        export(trace_of("sequential"), "testbench", tmp_path / "b", Options(layer=layer))


def test_missing_records_are_named(trace_of, tmp_path):
    """A probe without messages cannot make stimuli; the error says what to record."""
    path = trace_of("sequential", "fast", record=("activity", "error", "prediction", "weight", "bias"))
    with pytest.raises(
        TraceError, match=r'no probe with prediction_message of layer 2.*record = \["message"\]'
    ):
        export(path, "testbench", tmp_path / "b", Options(layer=2))


def test_without_the_weights_before_learning(trace_of, tmp_path):
    """Weights after the learning phase do not explain the inference before it: said, not passed over."""
    record = ("activity", "error", "prediction", "message", "weight", "bias")
    path = trace_of("sequential", "fast", record=record, rate=0.5)
    made, replay = bench(path, tmp_path / "b", 3, step=3)
    assert "left by the learning phase" in replay.manifest["weights"]
    assert not any(told["known"] for told in replay.manifest["relaxations"])
    assert any("record update and bias_update too" in note for note in made.notes)


def test_not_a_test_bench(trace_of, tmp_path):
    """The reader names what is wrong with a folder."""
    with pytest.raises(TraceError, match="is no test bench"):
        read(tmp_path)
    export(trace_of("sequential"), "traffic", tmp_path / "t")
    with pytest.raises(TraceError, match="is an export to traffic"):
        read(tmp_path / "t")
    bench(trace_of("sequential"), tmp_path / "b")
    (tmp_path / "b/bias.hex").write_text("0000\nxyz\n")
    with pytest.raises(TraceError, match="hexadecimal words"):
        read(tmp_path / "b")
    (tmp_path / "b/bias.hex").write_text("0000\n")
    with pytest.raises(TraceError, match=r"holds 1 words: expected 4 of 16 bits"):
        read(tmp_path / "b")


def test_manifest_says_all(trace_of, tmp_path):
    """Widths, shapes, order of words and constants, as a hardware engineer needs them."""
    path = trace_of("sequential", network={"precision": (1.0, 0.5, 2.0, 1.5, 1.0)})
    bench(path, tmp_path / "b", 2)
    told = json.loads((tmp_path / "b/manifest.json").read_text())
    assert told["number_format"]["width"] == 16
    assert told["number_format"]["overflow"] == "saturates"
    assert told["signals"]["activity"]["shape"] == [4, 2, 5]
    assert told["signals"]["weight"]["shape"] == [4, 5]
    assert told["constants"]["precision"] == 2.0
    assert told["constants"]["precision_above"] == 1.5
    assert told["constants"]["step_sizes"] == [0.1, 0.05, 0.1 / 3]
    assert told["fixed_point_constants"]["precision"] == "2000"
    assert told["fixed_point_constants"]["step_sizes"][0] == f"{round(0.1 * 4096):04x}"
    assert set(told["files"]) == {file.name for file in (tmp_path / "b").iterdir()} - {"manifest.json"}


@pytest.fixture
def verilog():
    """Compile and run a test bench with Icarus Verilog; returns its output."""
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed (Debian: iverilog)")

    def simulate(folder):
        command = ["iverilog", "-g2005", "-Wall", "-o", "compiled", "testbench.v", "compare_unit.v"]
        compiled = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert compiled.stderr == ""
        run = subprocess.run(
            ["vvp", "-n", "compiled"], cwd=folder, capture_output=True, text=True, check=True
        )
        return run.stdout

    return simulate


@pytest.mark.parametrize("number", ["Q1.6", "Q3.12", "Q5.10", "Q2.14", "Q8.24", "Q12.40"])
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_icarus_verilog_agrees(trace_of, tmp_path, verilog, number, order):
    """The files load into a simulator of hardware, whose adder gives the recorded errors in any width."""
    _, replay = bench(trace_of(order), tmp_path / "b", 2, number)
    said = verilog(tmp_path / "b")
    assert "WARNING" not in said
    assert "0 mismatches" in said
    telling = replay.manifest["verilog"]["words_beyond_tolerance"]
    assert said.startswith(f"40 words, {telling} of them beyond the tolerance of 1,")
    assert said.endswith("\nPASS\n" if telling else "would pass\n")
    assert telling or replay.numbers["error"].fraction_bits < 12


def aligned(activity, prediction, formats):
    """Return the error's word by exact fractions: rounded, ties to even, saturated."""
    steps = [Fraction(2) ** -one.fraction_bits for one in formats]
    word = round((activity * steps[0] - prediction * steps[1]) / steps[2])
    return max(-formats[2].largest - 1, min(formats[2].largest, word))


MIXED = [
    ("Q1.6", "Q1.6", "Q1.6"),
    ("Q1.12", "Q2.9", "Q-6.17"),
    ("Q2.9", "Q1.12", "Q-2.20"),
    ("Q1.14", "Q0.10", "Q1.6"),
    ("Q3.4", "Q1.20", "Q0.11"),
    ("Q4.-1", "Q5.-2", "Q3.0"),
    ("Q4.2", "Q5.1", "Q5.-3"),
    ("Q0.50", "Q0.40", "Q0.30"),
    ("Q-9.20", "Q6.2", "Q8.24"),
]


@pytest.mark.parametrize("names", MIXED)
def test_icarus_verilog_aligns_binary_points(trace_of, tmp_path, verilog, names):
    """In any three formats the adder gives the exact difference, rounded and saturated, on random words."""
    chosen = zip(("activity", "prediction_in", "error"), names)
    bench(trace_of("sequential"), tmp_path / "b", 2, tuple(f"{signal}={name}" for signal, name in chosen))
    text = (tmp_path / "b/testbench.v").read_text()
    (tmp_path / "b/testbench.v").write_text(re.sub(r"'sd\d+;", "'sd0;", text))  # not a bit of tolerance
    formats, rng = [FixedPoint.parse(name) for name in names], np.random.default_rng(3)
    operands = [rng.integers(-one.largest - 1, one.largest, 40, endpoint=True) for one in formats[:2]]
    operands[0][:4] = [formats[0].largest, -formats[0].largest - 1] * 2
    operands[1][:4] = [-formats[1].largest - 1] * 2 + [formats[1].largest] * 2
    # Words of like size too, whose difference is small and often halfway between two words.
    ratio = Fraction(2) ** (formats[1].fraction_bits - formats[0].fraction_bits)
    near = [int(word * ratio) + index % 5 - 2 for index, word in enumerate(operands[0][20:].tolist())]
    operands[1][20:] = np.clip(near, -formats[1].largest - 1, formats[1].largest)
    expected = [aligned(int(a), int(p), formats) for a, p in zip(*operands)]
    assert len(set(expected)) > 3
    for signal, one, words in zip(("activity", "prediction_in", "error"), formats, [*operands, expected]):
        one.write_hex(tmp_path / "b" / f"{signal}.hex", np.array(words), signal)
    assert verilog(tmp_path / "b").endswith("0 within rounding, 0 mismatches\nPASS\n")


def test_a_format_a_signal(trace_of, tmp_path, verilog):
    """The format that `pcsim analyze` means for each signal serves the bench, which catches a dead unit."""
    path = trace_of("sequential")
    _, fine = bench(path, tmp_path / "fine", 2, "Q8.40")
    suited = {
        name: Suited.suited(values.min(), values.max(), (values**2).mean(), 50)
        for name, values in fine.signals.items()
    }
    for operand in ("activity", "prediction_in"):  # of a small difference: as fine as it
        suited[operand] = Suited(suited[operand].integer_bits, suited["error"].fraction_bits)
    assert min(one.integer_bits for one in suited.values()) < 0
    given = tuple(f"{name}=Q{one.integer_bits}.{one.fraction_bits}" for name, one in suited.items())
    made, replay = bench(path, tmp_path / "b", 2, given)
    for name, one in replay.numbers.items():
        assert (one.integer_bits, one.fraction_bits) == (
            suited[name].integer_bits,
            suited[name].fraction_bits,
        )
        told = replay.manifest["signals"][name]
        assert told["number_format"]["width"] == suited[name].bits
        assert told["saturated"] == 0
        assert told["snr_db"] is None or told["snr_db"] > 45
    assert made.notes == ()
    assert all(one.holds for one in replay.check())
    assert verilog(tmp_path / "b").endswith("0 mismatches\nPASS\n")
    unit = (tmp_path / "b/compare_unit.v").read_text()
    dead = re.sub(r"assign error = .*?;", "assign error = 0;", unit, flags=re.S)
    (tmp_path / "b/compare_unit.v").write_text(dead)
    assert verilog(tmp_path / "b").endswith("FAIL\n")


def test_a_kind_sets_its_files(trace_of, tmp_path):
    """`error` is both errors and `prediction` all predictions; a file's own format comes first."""
    given = ("prediction=Q2.9", "Q1.14", "relax_error_in=Q1.12", "error=Q0.17")
    _, replay = bench(trace_of("sequential"), tmp_path / "b", 2, given)
    assert {name: one.name for name, one in replay.numbers.items()} == {
        "activity": "Q1.14",
        "prediction_in": "Q2.9",
        "prediction_out": "Q2.9",
        "relax_prediction_in": "Q2.9",
        "error": "Q0.17",
        "relax_error_in": "Q1.12",
        "weight": "Q1.14",
        "bias": "Q1.14",
    }
    assert replay.manifest["number_format"]["name"] == "Q1.14"


def test_a_format_that_leaves_nothing_is_told(trace_of, tmp_path, verilog):
    """Errors below half a bit: the export says so and names the n that does, the bench does not say PASS."""
    path = trace_of("sequential")
    _, fine = bench(path, tmp_path / "fine", 2, "Q8.40")
    coarse = math.floor(-math.log2(2 * np.abs(fine.signals["error"]).max()))
    made, replay = bench(path, tmp_path / "b", 2, f"Q4.{coarse}")
    told = replay.manifest["signals"]["error"]
    assert not replay.signals["error"].any()
    assert told["lost_to_zero"] == (fine.signals["error"] != 0).mean() > 0.5
    assert told["snr_db"] == 0
    assert replay.manifest["verilog"]["words_beyond_tolerance"] == 0
    assert any(note.startswith("Warning: error.hex holds (almost) nothing") for note in made.notes)
    assert any(line.startswith("error.hex ") and "lost to 0, SNR 0.0 dB" in line for line in made.summary)
    assert "tolerance 1 LSB of error.hex, whose largest word is 0; 0 of 40 words" in made.summary[-1]
    nothing = "NOTHING TESTED: a unit whose answer is always 0 would pass\n"
    assert verilog(tmp_path / "b").endswith(nothing)
    # The n that it names does what it says.
    note = next(note for note in made.notes if note.startswith("Warning: testbench.v tests nothing"))
    enough = re.search(r"with n = (-?\d+)\.", note)[1]
    made, replay = bench(path, tmp_path / "c", 2, f"Q4.{enough}")
    assert replay.manifest["signals"]["error"]["snr_db"] >= 20
    assert not any(note.startswith(("Warning: error.hex", "Warning: testbench")) for note in made.notes)
    assert verilog(tmp_path / "c").endswith("PASS\n")


def test_lost_words_and_snr_by_hand():
    """Words of 1/2: two are 0 for ±1/8, noise 2/64 of a signal 2 + 2/64; exact words have no ratio."""
    found = Quantised.of("x", np.array([1.0, -1.0, 0.125, -0.125, 0.0]), FixedPoint(3, 1))
    assert (found.zeroed, found.saturated) == (2, 0)
    assert found.snr == pytest.approx(10 * np.log10(65))
    assert found.warnings() == []
    assert re.sub(" +", " ", found.summary) == "x.hex Q3.1 40.0% of its words lost to 0, SNR 18.1 dB"
    assert Quantised.of("x", np.array([0.5, 0.0]), FixedPoint(3, 1)).snr is None
    lost = Quantised.of("x", np.array([0.125, 0.125, -0.125]), FixedPoint(3, 1))
    assert lost.warnings() == [
        "Warning: x.hex holds (almost) nothing of the record: 3 of its 3 words are 0 where the number is "
        "not, SNR 0.0 dB in Q3.1; n = 5 gives 20 dB: --format x=Q-2.5."
    ]
    with pytest.raises(TraceError, match="x holds numbers that are not finite"):
        Quantised.of("x", np.array([np.nan]), FixedPoint(3, 1))


@pytest.mark.parametrize("signal", ["activity", "prediction_in", "error"])
def test_icarus_verilog_finds_a_corrupted_word(trace_of, tmp_path, verilog, signal):
    """The bench can fail: a flipped bit, and a word that is missing, are told with their place."""
    bench(trace_of("sequential"), tmp_path / "b", 2)
    file = tmp_path / "b" / f"{signal}.hex"
    lines = file.read_text().split("\n")
    flipped = f"{int(lines[8], 16) ^ 0x0040:04x}"
    file.write_text("\n".join([*lines[:8], flipped, *lines[9:]]))
    said = verilog(tmp_path / "b")
    assert said.startswith("word 7: got ")
    assert said.endswith("1 mismatches\nFAIL\n")
    file.write_text("\n".join(lines[:-2]))
    said = verilog(tmp_path / "b")
    assert "word 39: unknown bits" in said
    assert said.endswith("FAIL\n")


def test_the_reference_unit_saturates(trace_of, tmp_path, verilog):
    """1.75 − (−1.75) does not wrap to a negative number: by hand, in Q1.6."""
    bench(trace_of("sequential"), tmp_path / "b", 2, "Q1.6")
    words = {"activity": "70", "prediction_in": "90", "error": "7f"}
    for signal, word in words.items():
        (tmp_path / "b" / f"{signal}.hex").write_text(f"{word}\n" * 40)
    assert verilog(tmp_path / "b").endswith("0 mismatches\nPASS\n")
    (tmp_path / "b/error.hex").write_text("e0\n" * 40)
    assert verilog(tmp_path / "b").endswith("40 mismatches\nFAIL\n")
