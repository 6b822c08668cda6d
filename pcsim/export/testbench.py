"""Stimulus and expected response of one hidden layer, for the verification of hardware that implements it.

All numbers are fixed-point words, a format a signal, in files that Verilog's $readmemh loads; `manifest.json`
says what is in them. A Verilog test bench for the error e_l = ĥ_l − p_l comes along; `read` replays it all.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pcsim.errors import ConfigurationError
from pcsim.export.fixed_point import FixedPoint
from pcsim.export.inbox import Inbox, find_inbox
from pcsim.export.options import Options, Outcome, Progress
from pcsim.export.quantised import Formats, Quantised, suggested
from pcsim.export.recorded import Array, Model, Parameters, Recording, States
from pcsim.export.replay import Replay, Verdict, read
from pcsim.export.verilog import COMPARE_UNIT, write_testbench
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.settings import said_not_sent

__all__ = ["Replay", "Verdict", "read", "write"]

ORDER = "one word a line; the last dimension runs fastest"
EQUATIONS = {
    "compare": "error[n] = activity[n] - prediction_in[n]",
    "relax": "activity[n] = activity[n-1] + k[n] * (slope(activity[n-1]) * (precision_above * "
    "(transpose(weight) relax_error_in[n]) - decay * f(activity[n-1])) "
    "- precision * (activity[n-1] - relax_prediction_in[n]))",
    "predict": "prediction_out[n] = weight f(activity[n]) + bias",
}
MEANINGS = {
    "activity": "state after iteration 0 ... T",
    "prediction_in": "prediction in the inbox when the layer formed its last error of iteration 0 ... T",
    "error": "that error; what the layer sends down when it sends, before any format of messages",
    "prediction_out": "prediction as the layer above has it after iteration 0 ... T",
    "relax_prediction_in": "prediction in the inbox when the layer relaxed in iteration 1 ... T",
    "relax_error_in": "error from above in the inbox when the layer relaxed in iteration 1 ... T",
    "weight": "weight of the layer, constant in the inference phase",
    "bias": "bias of the layer, constant in the inference phase",
}


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write the hex files of one layer and training step, the Verilog test bench and what the manifest adds.

    Raises:
        TraceError: something that is needed was not recorded, or not at that step.
        ConfigurationError: a layer that is not hidden, or a fixed-point format that is none.
    """
    formats = Formats.parse(options.fixed_point, MEANINGS)
    recording = Recording(trace)
    model = recording.model
    layer = _hidden(model, options.layer)
    recording.require_dense(layer)
    columns = _columns(model, layer)
    step = recording.choose([*columns, f"weight_{layer}", f"bias_{layer}"], options.step)
    states, parameters = recording.states(columns, step), recording.parameters(layer, step)
    inboxes = _inboxes(states, model, parameters, layer, progress)
    arrays = _arrays(states, parameters, model, layer, inboxes)
    signals = {name: Quantised.of(name, array, formats.of(name)) for name, array in arrays.items()}
    for name, signal in signals.items():
        title = f"{name}, shape {signal.words.shape}, {signal.number.name}: {MEANINGS[name]}"
        signal.number.write_hex(out / f"{name}.hex", signal.words, title)
    verilog = _write_verilog(out, signals, layer, states.precision)
    told = [_source(iteration, inbox) for iteration, inbox in enumerate(inboxes, 1)]
    predicted = _predicted(states, parameters, model, layer)
    notes = [note for signal in signals.values() for note in signal.warnings()]
    if verilog["words_beyond_tolerance"] < _enough(arrays["error"]):
        notes.append(_tests_nothing(verilog, arrays["error"]))
    notes += _notes(inboxes, predicted, parameters, model)
    notes += [caution] if (caution := said_not_sent(trace.attributes)) else []
    manifest = {
        "layer": layer,
        "step": step,
        "samples": states.samples.tolist(),
        "number_format": _number_format(formats.default),
        "word_order": ORDER,
        "constants": _constants(model, layer),
        "fixed_point_constants": _words(formats.default, _constants(model, layer)),
        "equations": EQUATIONS,
        "signals": {name: _signal(signal) for name, signal in signals.items()},
        "relaxations": told,
        "predicted_from": predicted,
        "weights": parameters.when,
        "relative_precision": states.precision,
        "kept": {"activity": model.channels.states.describe()},
        "sent": {"prediction": model.channels.predictions.describe()},
        "verilog": verilog,
    }
    summary = (*(signal.summary for signal in signals.values()), _tested(verilog, signals["error"]))
    return Outcome(tuple(notes), manifest, summary)


def _inboxes(
    states: States, model: Model, parameters: Parameters, layer: int, progress: Progress
) -> list[Inbox | None]:
    """Return what a layer had in its inbox when it relaxed, in iterations 1 ... T."""
    inboxes = []
    for iteration in range(1, model.iterations + 1):
        inboxes.append(find_inbox(states, model, parameters, layer, iteration))
        progress(iteration / (model.iterations + 1))
    return inboxes


def _tests_nothing(verilog: dict[str, Any], error: Array) -> str:
    """Warn of a bench that (almost) every unit passes, and say which format would do."""
    better, telling = suggested(error), verilog["words_beyond_tolerance"]
    needed = f"; it takes activity, prediction and error with n = {better.fraction_bits}" if better else ""
    tolerance = f"beyond the tolerance of {verilog['tolerance_words']} LSB"
    if telling:
        return (
            f"Warning: testbench.v tests almost nothing: {telling} of {error.size} expected words are "
            f"{tolerance}, so only these tell a unit whose answer is always 0{needed}."
        )
    return (
        f"Warning: testbench.v tests nothing: no expected word is {tolerance}, so a unit whose answer is "
        f"always 0 would pass{needed}."
    )


def _enough(error: Array) -> int:
    """Return how many words a wrong unit must get wrong for the bench to mean something: 1 % of them."""
    return -(-error.size // 100)


def _tested(verilog: dict[str, Any], error: Quantised) -> str:
    """Say how much the bench tests."""
    return (
        f"testbench.v: tolerance {verilog['tolerance_words']} LSB of error.hex, whose largest word is "
        f"{verilog['largest_word']}; {verilog['words_beyond_tolerance']} of {error.words.size} "
        "words are beyond the tolerance"
    )


def _write_verilog(out: Path, signals: dict[str, Quantised], layer: int, precision: float) -> dict[str, Any]:
    """Write the unit and its bench; return what the manifest says of them."""
    activity, prediction, error = (signals[name] for name in ("activity", "prediction_in", "error"))
    tolerance = _tolerance(activity, prediction, error, precision)
    numbers = activity.number, prediction.number, error.number
    enough = _enough(error.values)
    bench = write_testbench(*numbers, words=error.words.size, layer=layer, tolerance=tolerance, enough=enough)
    (out / "compare_unit.v").write_text(COMPARE_UNIT)
    (out / "testbench.v").write_text(bench)
    sizes = np.abs(error.words)
    return {
        "files": ["compare_unit.v", "testbench.v"],
        "tolerance_words": tolerance,
        "largest_word": int(sizes.max()),
        "words_beyond_tolerance": int((sizes > tolerance).sum()),
    }


def _tolerance(activity: Quantised, prediction: Quantised, error: Quantised, precision: float) -> int:
    """Return by how many least significant bits of the error a right answer may miss the expected word.

    Operands, the expected word and the answer are off by what rounding has really done to them, at most half
    a bit of their own each. The simulator's own e = ĥ − p and the records are rounded too.
    """
    operands = (one.number.values(one.words) for one in (activity, prediction))
    answer = Quantised.of("answer", np.subtract(*operands), error.number)
    rounded = sum(one.rounding for one in (activity, prediction, error, answer))
    recorded = np.abs(activity.values) + np.abs(prediction.values)
    return math.floor((rounded + 3 * precision * float(recorded.max())) / error.number.step)


def _hidden(model: Model, layer: int | None) -> int:
    hidden = range(1, model.top)
    if not hidden:
        raise ConfigurationError("a network without a hidden layer: expected one for a test bench")
    if layer is None or layer not in hidden:
        given = "without --layer" if layer is None else f"--layer {layer}"
        raise ConfigurationError(f"--to testbench {given}: expected a hidden layer, 1 to {model.top - 1}")
    return layer


def _columns(model: Model, layer: int) -> list[str]:
    """Return the columns that tell what a layer was in, received and sent."""
    above = layer + 1
    own = [f"{kind}_{layer}" for kind in ("activity", "error", "prediction", "prediction_message")]
    others = [f"prediction_message_{layer - 1}", f"error_message_{above}", f"error_{above}"]
    # An error from above that a later one of the same iteration has replaced can be formed again.
    formed = [f"activity_{above}", f"prediction_{above}"] if above < model.top else []
    return own + others + formed


def _arrays(
    states: States, parameters: Parameters, model: Model, layer: int, inboxes: list[Inbox | None]
) -> dict[str, Array]:
    """Return all signals; zeros where an inbox is unknown."""
    arrays, samples = states.arrays, len(states.samples)
    unknown = np.zeros((samples, model.sizes[layer])), np.zeros((samples, model.sizes[layer + 1]))
    found = {
        "activity": arrays[f"activity_{layer}"],
        "prediction_in": arrays[f"prediction_{layer}"],
        "error": arrays[f"error_{layer}"],
        "prediction_out": arrays[f"prediction_message_{layer}"],
        "weight": parameters.weight,
        "bias": parameters.bias,
    }
    if inboxes:
        found["relax_prediction_in"] = np.stack([box.prediction if box else unknown[0] for box in inboxes])
        found["relax_error_in"] = np.stack([box.error_above if box else unknown[1] for box in inboxes])
    return found


def _predicted(states: States, parameters: Parameters, model: Model, layer: int) -> list[int | None]:
    """Return for each prediction sent the iteration whose activity it was formed from; None if unknown."""
    replay = Replay.predictions(model.activation[layer], parameters.weight, parameters.bias)
    sent, activity = states.arrays[f"prediction_message_{layer}"], states.arrays[f"activity_{layer}"]
    formed = [replay(one, states.precision) for one in activity]
    found: list[int | None] = []
    for iteration, message in enumerate(sent):
        allowed = states.precision * np.abs(message) + model.channels.predictions.error(message)
        source, smallest = None, 1.0
        for earlier in range(iteration, -1, -1):
            value, rounding = formed[earlier]
            room = rounding + allowed + np.finfo(float).tiny
            misfit = float((np.abs(message - value) / room).max(initial=0.0))
            if misfit < smallest:
                source, smallest = earlier, misfit
        found.append(source)
    return found


def _source(iteration: int, inbox: Inbox | None) -> dict[str, Any]:
    if inbox is None:
        return {"iteration": iteration, "known": False}
    told = {"prediction": inbox.prediction_from, "error_above": inbox.error_above_from}
    return {"iteration": iteration, "known": True} | told


def _signal(signal: Quantised) -> dict[str, Any]:
    name = signal.name
    dims = {
        "weight": ["target_neuron", "source_neuron"],
        "bias": ["target_neuron"],
    }.get(name, ["iteration", "sample", "neuron"])
    return {
        "file": f"{name}.hex",
        "meaning": MEANINGS[name],
        "number_format": _number_format(signal.number),
        "shape": list(signal.words.shape),
        "dims": dims,
        "first_iteration": 1 if name.startswith("relax") else 0,
        "words": signal.words.size,
        "saturated": signal.saturated,
        "lost_to_zero": signal.zeroed / max(1, signal.words.size),
        "snr_db": signal.snr,
    }


def _number_format(number: FixedPoint) -> dict[str, Any]:
    return {
        "name": number.name,
        "width": number.bits,
        "integer_bits": number.integer_bits,
        "fraction_bits": number.fraction_bits,
        "signed": "two's complement",
        "rounding": "to the nearest, ties to even",
        "overflow": "saturates",
    }


def _constants(model: Model, layer: int) -> dict[str, Any]:
    return {
        "activation": model.activation[layer],
        "step_sizes": list(model.steps),
        "precision": model.precision[layer],
        "precision_above": model.precision[layer + 1],
        "activity_decay": model.decay[layer],
    }


def _words(number: FixedPoint, constants: dict[str, Any]) -> dict[str, Any]:
    """Return the constants as hexadecimal words too, for whoever wires them."""
    digits, mask = -(-number.bits // 4), 2**number.bits - 1

    def word(value: float) -> str:
        return f"{int(number.words(np.array([value]))[0][0]) & mask:0{digits}x}"

    found: dict[str, Any] = {}
    for name, value in constants.items():
        if isinstance(value, list):
            found[name] = [word(one) for one in value]
        elif not isinstance(value, str):
            found[name] = word(value)
    return found


def _notes(
    inboxes: list[Inbox | None], predicted: list[int | None], parameters: Parameters, model: Model
) -> list[str]:
    unknown = [str(iteration) for iteration, inbox in enumerate(inboxes, 1) if inbox is None]
    notes = []
    if unknown or None in predicted:
        cause = (
            "the weights change within the inference phase"
            if model.order == "incremental"
            else _cause(model)
            if parameters.when.startswith("used")
            else "the weights before the learning phase were not recorded: record update and bias_update too"
        )
        if unknown:
            notes.append(f"No relaxation is given for iterations {', '.join(unknown)}: {cause}.")
        if None in predicted:
            which = ", ".join(str(n) for n, source in enumerate(predicted) if source is None)
            notes.append(f"The predictions of iterations {which} cannot be checked: {cause}.")
    return notes


def _cause(model: Model) -> str:
    """Say why no record explains a relaxation or a prediction although the weights are known."""
    channels, causes = (
        model.channels,
        ["the messages at that moment were replaced before the probe kept them"],
    )
    if channels.faults:
        causes.append("they were lost or never sent")
    if channels.states.format or channels.predictions.format or channels.errors.format:
        causes.append("a number saturated in its format")
    return ", or ".join(causes)
