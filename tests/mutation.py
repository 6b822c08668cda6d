# ruff: noqa: E501  (the bugs below are quoted from the code, one a line)
"""Plants one bug at a time in a copy of pcsim and reports which ones the tests notice.

    python tests/mutation.py [--jobs 2] [--only WORD]

Not collected by pytest. Prints a table; leaves with 1 if a bug survives, 2 if a bug no longer fits the code.
Tests that fail without any bug are left out and named, so that they cannot count as having found one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS, LEARNING, NETWORK = "tests/kernels/test_reference.py", "tests/learning", "tests/network"
PROGRAM, LOCALITY = "tests/schedule/test_program.py", "tests/schedule/test_locality.py"
ENGINES, ENERGY = "tests/engine/test_engines.py", "tests/engine/test_energy.py"
CHANNELS, FORMATS = "tests/engine/test_channels.py", "tests/schedule/test_number_format.py"
EVENT, GOLDEN = "tests/engine/test_event.py", "tests/engine/test_golden.py"
CPU = "tests/kernels/test_cpu.py"
CONV, CONV_ENGINES = "tests/kernels/test_conv.py", "tests/engine/test_conv.py"
SCRIPT, RESUME = "tests/engine/test_script.py", "tests/experiments/test_resume.py"
PRECISIONS = "tests/schedule/test_precisions.py"
FUSION = "tests/engine/test_fusion.py"
OWN = "tests/engine/test_own_orders.py"
ALL = (KERNELS, LEARNING, NETWORK, PROGRAM, LOCALITY, ENGINES, ENERGY, EVENT, GOLDEN, OWN)
SECONDS = 240


@dataclass(frozen=True)
class Bug:
    """In `file`, `old` (found exactly `times` times) becomes `new`; `tests` should notice."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    times: int = 1

    def plant(self, root: Path) -> None:
        """Change the copy.

        Raises:
            LookupError: the code has moved on.
        """
        path = root / "pcsim" / self.file
        text = path.read_text()
        if text.count(self.old) != self.times:
            raise LookupError(f"{self.file}: {text.count(self.old)} times, not {self.times}: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


SPARSE = "tests/kernels/test_sparse.py"
ONLINE = "tests/kernels/test_online.py"


def of(file: str, *tests: str):
    """Return a maker of bugs in one file, noticed by these tests."""
    return lambda old, new, *, times=1: Bug(file, old, new, tests, times)


SIMULATED = "tests/kernels/cuda/test_simulator.py::test_in_the_simulator"
cuda_block = of("kernels/cuda_blocks.py", f"{SIMULATED}[test_products]")
cuda_product = of("kernels/cuda_products.py", f"{SIMULATED}[test_products]")
cuda_learning = of("kernels/cuda_hebbian.py", f"{SIMULATED}[test_learning]")
recording = of("engine/recording.py", f"{SIMULATED}[test_recording]")
kernel = of("kernels/reference.py", KERNELS, ENGINES, ENERGY)
order = of("schedule/orders.py", PROGRAM, ENGINES)
operation = of("schedule/operation.py", PROGRAM, ENGINES)
program = of("schedule/program.py", PROGRAM, ENGINES)
freshness = of("schedule/freshness.py", PROGRAM, ENGINES, EVENT)
locality = of("schedule/locality.py", LOCALITY)
event = of("engine/event.py", EVENT, ENGINES)
process = of("engine/process.py", EVENT, ENGINES)
fast = of("engine/fast.py", ENGINES)
channel = of("engine/channel.py", CHANNELS)
rounding = of("schedule/number_format.py", FORMATS)
observer = of("engine/observer.py", ENGINES, ENERGY)
network = of("network/network.py", NETWORK, ENGINES)
clock = of("hardware/clock.py", EVENT)
rule = of("learning/mq.py", LEARNING)
verifier = of("experiments/verify.py", GOLDEN)
tiles, blocked = of("kernels/tiles.py", CPU), of("kernels/blocked.py", CPU, SPARSE)
cpu, products = of("kernels/cpu.py", CPU), of("kernels/products.py", CPU)
mail, passes = of("kernels/mail.py", "tests/kernels/test_crew.py"), of("kernels/passes.py", ONLINE)
measured = of("kernels/measured.py", CPU, "tests/kernels/test_measured.py")
crew = of("kernels/crew.py", "tests/kernels/test_crew.py")
compiler = of("kernels/compiler.py", "tests/kernels/test_compiler.py")
script, fusion = of("engine/script.py", SCRIPT), of("engine/fusion.py", SCRIPT, FUSION)
table, one_a_folder = (
    of("tracing/table.py", "tests/tracing/test_writer.py"),
    of("experiments/alone.py", RESUME),
)
sweeping = of("experiments/sweep/cluster.py", "tests/experiments/sweep/test_cluster.py")
steps, loops = of("kernels/steps.py", CPU), of("kernels/loops.py", CPU)
joined, together = of("kernels/loops.py", FUSION), of("kernels/cpu.py", FUSION, CPU)
placed, predictor = of("network/network.py", ONLINE), of("network/predictor.py", ONLINE)
layout, vectors = of("kernels/layout.py", CPU), of("kernels/vectors.py", CPU, SPARSE)
sparse = of("kernels/sparse.py", SPARSE)
elementwise = of("kernels/elementwise.py", "tests/kernels/test_elementwise.py")
exchange = of("experiments/bench/exchange.py", "tests/benchmarks/test_bench_exchange.py")
convolution, conv_loops = of("kernels/reference_conv.py", CONV), of("kernels/conv_loops.py", CONV)
cpu_conv, connection = of("kernels/cpu_conv.py", CONV), of("network/connection.py", NETWORK)
conv_network = of("network/network.py", "tests/network/test_conv.py", CONV_ENGINES)
conv_operation = of("schedule/operation.py", CONV_ENGINES)
conv_steps = of("kernels/conv_steps.py", CONV)
precisions = of("schedule/precisions.py", PRECISIONS)
refreshed_layer = of("network/layer.py", PRECISIONS)
refreshed_program = of("schedule/program.py", PRECISIONS)
conv_program = of("schedule/program.py", CONV_ENGINES)

BUGS = [
    # Our own products
    tiles('icmp_signed("<", numbers,', 'icmp_signed("<=", numbers,'),
    vectors('[self.call("fabs", self.vector, [one]) for one in row]', "row"),
    tiles("(scale, total, self.load(place, mask))", "(scale, total, self.zero)"),
    sparse("count += value != 0", "count += value > 0"),
    sparse("max(count + count % AT_ONCE, AT_ONCE)", "max(count, AT_ONCE)"),
    sparse("        values[row, count:until], places[row, count:until] = 0, 0\n", ""),
    sparse("if error.shape[1] < LEAST_BATCH:", "if error.shape[1] <= LEAST_BATCH:"),
    blocked("            first = whole\n", ""),
    blocked("found[panel], found[panel + 1] = one, two", "found[panel], found[panel + 1] = two, one"),
    blocked("out[row] = bias[row]", "out[row] = 0"),
    blocked("row, left, to = 0, term * inputs + first, sample", "row, left, to = 0, term * inputs, sample"),
    blocked("terms = min(TERMS, inputs - term)", "terms = TERMS"),
    blocked("    out[:] = 0\n", ""),
    blocked("norms[start // ROWS] = norm", "norms[0] = norm"),
    blocked("return first - first % ROWS, last - last % ROWS if", "return first, last if"),
    passes("target] += parts[part, target]", "target] += parts[0, target]"),
    passes("        into[:] = bias\n    else", "        into[:] = 0\n    else"),
    mail("    add(mail, AWAKE, -1)", "    add(mail, AWAKE, 0)"),
    mail("        give_way(mail[GIVE_WAY])", "        pass"),
    mail("    while read(mail, DONE) != others:", "    while read(mail, DONE) > others:"),
    mail("share - 1 if last else share +", "share - 1 if not last else share +"),
    mail("return end - 1 if last else first", "return end - 1"),
    mail("        block = take(mail, other, turn != 0)\n        while", "        block = take(mail, other, False)\n        while"),
    mail("            do_some(mail, 0, 0, thread)", "            do_some(mail, 0, 0, 0)"),
    mail("-(-blocks * thread // threads), -(-blocks * (thread + 1) // threads)", "blocks * thread // threads, blocks * (thread + 1) // threads"),
    mail("(read(mail, word) >> (2 * BLOCK_BITS)) + 1", "0"),
    crew("patience, len(called) + 1)", "patience, 1)"),
    elementwise("        norms[0] += norms[block]", "        norms[0] = norms[block]"),
    elementwise("return first - first % 16, last - last % 16 if", "return first, last if"),
    elementwise("last - last % 16 if block + 1 < blocks else size", "last - last % 16"),
    elementwise("    sum_up(norms)\n", "", times=2),
    elementwise("if values.size < 2 * BLOCK:", "if True:"),
    elementwise("loops.turn_over(values, out, first, last)", "loops.turn_over(values, out, 0, len(out))"),
    exchange("                write(mail, GONE, 1)\n", ""),
    layout("if not neuron_by_neuron(array):", "if neuron_by_neuron(array):"),
    cpu("if precision_above != 1:", "if precision_above > 1:"),
    cpu("(float(loops.squared_norm(self.rates(activation, activity).ravel())) + 1)", "float(loops.squared_norm(self.rates(activation, activity).ravel()))"),
    products("weight[:, first + begin : first + end].T", "weight[:, begin:end].T"),
    # the arithmetic
    kernel("np.matmul(activate(activation, activity), weight.T, out=out)", "np.matmul(activity, weight.T, out=out)"),
    kernel("    out += bias\n", ""),
    kernel("np.subtract(activity, prediction, out=out)", "np.subtract(prediction, activity, out=out)"),
    kernel("compare(activity, output(output_name, prediction), out)", "compare(activity, prediction, out)"),
    kernel("if precision_above != 1:", "if precision_above > 1:"),
    kernel("drive - precision * error", "drive + precision * error"),
    kernel("drive - precision * error", "drive - error"),
    kernel("feedback - activity_decay * activate(", "feedback + activity_decay * activate("),
    kernel("np.multiply(target, 1 - mix, out=out)", "np.multiply(target, mix, out=out)"),
    kernel("activate(activation, activity) / batch, error", "activate(activation, activity), error"),
    kernel("    bias += rate * on_bias\n", ""),
    kernel("1 / (float(np.vdot(rates, rates)) + 1)", "1 / float(np.vdot(rates, rates))"),
    kernel("kept * mean_gradient[0] + (1 - kept) * mean", "(1 - kept) * mean_gradient[0] + kept * mean"),
    kernel("made / (made + 1), decay", "(made - 1) / made, decay"),
    kernel("min(made", "max(made"),
    kernel("+ r) + minimum_rate", "+ r)"),
    kernel("1 / (1 - beta1**made)", "1 / (1 - beta1)"),
    kernel("1 - np.tanh(activity) ** 2", "1 - np.tanh(activity)"),
    kernel("(activity > 0).astype", "(activity >= 0).astype"),
    kernel("activity_decay * 0.5 * float", "activity_decay * float"),
    kernel("_relative_entropy(target, activity) + _relative_entropy(1 - target, 1 - activity)", "_relative_entropy(target, activity)"),
    # the network
    network("precisions[layer + 1] if layer < depth - 1", "precisions[layer] if layer < depth - 1"),
    network('["identity" if one else activation for one in plain]', "[activation for one in plain]"),
    network("1 / (1 + step)", "1 / step"),
    connection("np.sqrt(prod(weight_shape[1:]))", "np.sqrt(weight_shape[0])"),
    # orders and programs
    order("reversed(ops.hidden)", "ops.hidden"),
    order("            yield ops.compare(layer, iteration)\n        yield from", "        yield from"),
    order("for colour in (1, 0)", "for colour in (0, 1)"),
    order("        yield from ops.settle(iteration)\n        for layer in ops.hidden:", "        for layer in ops.hidden:"),
    operation('"target inbox.prediction" if soft else "target"', '"target"'),
    operation("step = self.step_sizes[iteration - 1]", "step = self.step_sizes[0]"),
    operation("for layer in range(1, self.top + 1):", "for layer in range(1, self.top):"),
    operation("yield self.learn(layer, iteration)", "yield self.learn(layer, 0)"),
    operation("        yield self.clamp(self.top, iteration)\n", "        if not iteration:\n            yield self.clamp(self.top, iteration)\n"),
    program("self.step_size / (1 + t) if decay", "self.step_size / (2 + t) if decay"),
    program("before.update(*(readers.get(place, set()) for place in operation.changes))", "pass"),
    program("for p in operation.reads | operation.changes if p in", "for p in operation.reads if p in"),
    program("for p in operation.reads | operation.changes if p in", "for p in operation.changes if p in"),
    program("awaited |= {place", "awaited = {place"),
    program("if operation.sends and not operation.delivers <= awaited:", "if False:"),
    program("if not freshness.is_stale(operation):", "if True:"),
    program("last[operation.iteration, place] = index", "last.setdefault((operation.iteration, place), index)"),
    program("batch * sum(operation.multiplications", "sum(operation.multiplications"),
    program("missing = {place for place in operation.reads - known if", "missing = {place for place in () if"),
    freshness(" or last[1] != self._look(operation):", ":"),
    of("schedule/freshness.py", OWN)("last[0].action is not operation.action", "False"),
    of("schedule/freshness.py", PROGRAM, OWN)("for place in operation.changes:\n            self._writer", "for place in operation.writes:\n            self._writer"),
    freshness("return all(self._writer.get(place) is last[0] for place in operation.changes)", "return True"),
    locality("if place.layer != operation.layer:", "if False:"),
    locality('if place.name.startswith("inbox"):', "if False:"),
    locality("if _agree(operation, result, _perform(operation, layers, disturbed)):", "if True:"),
    locality("and not _same(result[0][place], base[place]):", "and False:"),
    # engines and time
    event("start = max(now, self._link_free.get(link, now))", "start = now"),
    event("unit.kernels.snapshot(checked_payload(operation, payload, (self._batch, width)))", "checked_payload(operation, payload, (self._batch, width))"),
    event("self._busy[self._cores[layer]] = True", "self._busy[self._cores[layer]] = False"),
    event("operation.target, operation.iteration, payload)", "operation.target, 0, payload)"),
    event("operation.multiplications * self._batch", "operation.multiplications"),
    event("sizes[max(link)]", "sizes[link[0]]"),
    event("self.totals.simulated_time += now", "self.totals.simulated_time = now"),
    process("box.waiting.popleft()", "box.waiting.pop()"),
    process("(door, sent[door]) for door in doors", "(door, 1) for door in doors"),
    process("if not self._freshness.is_stale(operation):", "if True:"),
    fast("if payload is not inbox:", "if False:"),
    fast("above.kernels.mini_batch(above.error.shape, above.error.dtype)", "above.error"),
    of("engine/fast.py", OWN)("        set_targets(self.layers, inputs, targets)\n        self._connect()", "        set_targets(self.layers, inputs, targets)"),
    channel("np.copyto(self.sent, values, where=entries)", "self.sent[...] = values"),
    channel("values.view(whole) != sent.view(whole)", "values != sent"),
    channel("silent[order[: round(dead.share * width)]] = True", "silent[:] = True"),
    channel('np.random.default_rng([settings.faults.seed, 1, *link])', "np.random.default_rng(1)"),
    rounding("np.floor(np.ldexp(wide, -steps) + rng.random(values.shape))", "np.floor(np.ldexp(wide, -steps))"),
    rounding("np.clip(np.asarray(values, dtype=np.float64), number.lowest, number.highest)", "np.asarray(values, dtype=np.float64)"),
    of("engine/process.py", CHANNELS)("box.come += message.fate is not Fate.COPY", "box.come += 1"),
    process("self._waits[layer] = self._news[layer] = False", "self._waits[layer] = False"),
    observer("self._arrays[:] = self._arrays[:, self._latest(known), np.arange(self._top)]", "pass"),
    observer("        self._step = step\n        self._known", "        self._known"),
    observer("self._known[:] = self._nothing", "pass"),
    observer("for iteration, column in bad[:1]:", "for iteration, column in bad[-1:]:"),
    observer("        self._known[cell] = 1\n        self._arrays = None", "        self._known[cell] = 1"),
    of("engine/observer.py", OWN)("found = unit.compared if seen else None", "found = unit.compared"),
    script("message = free[door].pop() if free[door] else", "message = sent[door][-1] if sent[door] else"),
    script("fused.get(id(operation), operation.action), watching", "operation.action, watching"),
    script("if before < number:", "if True:"),
    fusion("found[id(operations[prediction])] = formed", "pass"),
    # two operations in one pass
    fusion("return other if all(_independent(one, operation) for one in passed) else None", "return other"),
    joined("error[i] = activity[i] - prediction[i]", "error[i] = prediction[i] - activity[i]"),
    joined("value = rest * target[i] + share * output[i]", "value = share * target[i] + rest * output[i]"),
    together("        if mix == 0:\n            self.copy(target, activity)", "        if mix == 1:\n            self.copy(target, activity)"),
    together("        refuse_scattered(weight)\n        rates, error", "        rates, error"),
    placed("weight, bias = unit.weight, bias.copy()", "weight = unit.weight"),
    predictor("synapses.settled(weight)", "weight"),
    table("        self._arrange()\n        self._put(columns, copy)", "        self._put(columns, copy)"),
    table("        self._arrange()\n        new =", "        new ="),
    table("self._bytes_taken + self._room * self._row_bytes >=", "self._bytes_taken >"),
    measured("    kept += [line for line in found if line.key not in known]", "    kept = found + kept"),
    measured("others[:MOST_OTHERS]", "[]"),
    mail("read(mail, AWAKE) > 0", "read(mail, AWAKE) != 0"),
    mail("    add(mail, AWAKE, more)", "    add(mail, AWAKE, 0)"),
    crew("if not all(call.done() for call in self._called):", "if False:"),
    crew("self._change.wait_for(lambda: self._helping == 0)", "pass"),
    compiler("digest.update(source.encode() + b\"\\0\" + (PACKAGE / source).read_bytes())", "digest.update(source.encode())"),
    one_a_folder("if mine in _held:", "if True:"),
    sweeping("                os.environ.pop(name, None)", "                pass"),
    sweeping("    resource_tracker.ensure_running()", "    pass"),
    sweeping("{**thread_variables(threads), **SILENT}", "thread_variables(threads)"),
    steps("+ r) + minimum_rate", "+ r)"),
    steps("kept * mean_gradient[0] + (1 - kept) * mean", "(1 - kept) * mean_gradient[0] + kept * mean"),
    cpu("return 0.5 * norm / len(out)", "return norm / len(out)"),
    loops("count += value != 0", "count += value > 0"),
    clock("self.time_per_byte * size", "self.time_per_byte"),
    clock("self.link_latency.get((source, target), self.latency)", "self.latency"),
    verifier("nan=np.inf", "nan=0.0"),
    verifier("states, statistics, t + 1, network.top)", "states, statistics, t, network.top)"),
    # convolutions
    convolution("self._layer.positions * self._delta(error_above)", "self._delta(error_above)"),
    convolution("derivative(self._activation, self._z) * spread", "spread"),
    convolution("precision_above * self._delta", "self._delta"),
    convolution("argmax(axis=-1)", "argmin(axis=-1)"),
    convolution("error[..., np.newaxis] / size**2", "error[..., np.newaxis] / size"),
    convolution("image[:, :, i : i + down : layer.stride", "image[:, :, : down : layer.stride"),
    convolution("self._pool(activate(self._activation, self._z))", "self._pool(self._z)"),
    conv_loops("row * sizes.stride + i, column * sizes.stride + j", "row * sizes.stride + i, column * sizes.stride + i", times=2),
    conv_loops("run[sample] += share[sample]", "run[sample] = share[sample]"),
    conv_loops("rates[place] > rates[winner]", "rates[place] >= rates[winner]"),
    conv_loops("open_, shut = number(scale), number(scale * leak)", "open_, shut = number(1), number(leak)"),
    cpu_conv("z[:, place * batch : until * batch]", "z[:, : (until - place) * batch]"),
    cpu_conv("weight, shares, start * area)", "weight, shares, 0)"),
    cpu_conv("fold(shares, self._sizes, self._batch, place, image", "fold(shares, self._sizes, self._batch, 0, image"),
    cpu_conv("min(place + step, last)", "place + step"),
    cpu_conv("use(start * area, total)", "use(0, total)"),
    cpu_conv("constants.precision, constants.activity_decay, 1.0)", "constants.precision, 0.0, 1.0)"),
    cpu_conv("use(slice(start * pixels, (start + channels) * pixels), image)", "use(slice(0, channels * pixels), image)"),
    conv_loops("line[term] += scale * change", "line[term] = scale * change"),
    conv_steps("rate / batch, norms", "rate, norms"),
    precisions("output_power=-1, decay=1.0", "output_power=1, decay=1.0"),
    precisions("output_power=0, decay=-1.0", "output_power=0, decay=1.0"),
    refreshed_layer("1 / float(self.norm_below[0])", "1 / norm"),
    refreshed_layer("decay * squared / norm**2", "decay * squared / norm"),
    refreshed_layer("above / norm, self.feedback", "above, self.feedback"),
    refreshed_layer("(1 - traits.mix) * float(self.norm_below[0])", "(1 - traits.mix)"),
    refreshed_program("told.discard(layer)", "told.clear()"),
    refreshed_program("1 if told else 2", "2"),
    conv_network("one.layer.result if isinstance(one, Conv)", "one.layer.image if isinstance(one, Conv)"),
    network("roomy_copy(weight, dtype)", "weight"),
    conv_operation("self._memory(layer),\n            MessageKind.PREDICTION", "frozenset(),\n            MessageKind.PREDICTION"),
    conv_operation('_places(layer, "activity error weight inbox.error") | self._memory(layer)', '_places(layer, "activity error weight inbox.error")'),
    conv_operation('== "label" and differs', '== "label"'),
    conv_operation('learn_output_from == "label"', 'learn_output_from == "activity"'),
    conv_program('or place.name == "memory"', ""),
    cuda_block("function(held[turn]) if step < remaining else number(0)", "function(held[turn])"),
    cuda_block("remaining = unsigned(steps - start) if start < steps else unsigned(0)", "remaining = unsigned(steps - start)"),
    cuda_block("if fits or unsigned(member + u_members * unsigned(turn)) < u_size:", "if True:"),
    cuda_block("row = row if row < last_row else last_row", "row = row"),
    cuda_block("size = max(shared_size(left, right, tile), tile.groups * tile.rows * tile.columns)", "size = shared_size(left, right, tile)"),
    cuda_block("return (row if at < size else nowhere), column", "return row, column"),
    cuda_product("out[unsigned(row * neurons + column)] = totals[turn] + bias[column]", "out[unsigned(row * neurons + column)] = totals[turn]"),
    cuda_product("drive, error = number(end.factor) * total, end.error[place]", "drive, error = total, end.error[place]"),
    cuda_product("difference = value - end.prediction[place]", "difference = value"),
    cuda_product("end.out[place] = number(end.factor) * total", "end.out[place] = total"),
    cuda_product("if y == 0 and column < width:", "if y == 0:"),
    cuda_learning("if done + 1.0 < np.float64(cuda.gridDim.x * cuda.gridDim.y):", "if done + 1.0 < np.float64(cuda.gridDim.x):"),
    cuda_learning("total[0] = total[1] = 0", "total[0] = 0"),
    cuda_learning("if kept < 1.0:", "if True:"),
    cuda_learning("column = unsigned(cuda.blockIdx.y * threads + thread)", "column = thread"),
    cuda_learning("first_row = unsigned(cuda.threadIdx.x), unsigned(cuda.blockIdx.x * rows_each)", "first_row = unsigned(cuda.threadIdx.x), unsigned(cuda.blockIdx.x)"),
    recording("unit.compared, unit.magnitude = compared, magnitude", "unit.compared = compared"),
    recording("observer.repeat_step(step, remembered)", "observer.begin_step(step)"),
    recording("and one.looks_at(step) for one", "and one is None for one"),
]  # fmt: skip


def copied(source: Path, folder: Path) -> Path:
    """Copy the package and the tests."""
    ignore = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("pcsim", "tests", "models"):
        shutil.copytree(source / name, folder / name, ignore=ignore)
    shutil.copy(source / "pyproject.toml", folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `import pcsim` finds the copy, and BLAS uses one thread."""
    return os.environ | {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def pytest(folder: Path, tests: tuple[str, ...], *options: str) -> tuple[int, str]:
    """Run tests in a copy, on the copy's pcsim."""
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        *options,
        *tests,
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED by running for ever"
    return done.returncode, done.stdout + done.stderr


def failures(output: str) -> list[str]:
    """Return the identifiers of failed tests."""
    lines = output.splitlines()
    return [line.split(" ", 1)[1].split(" - ")[0] for line in lines if line.startswith("FAILED ")]


def verdict(bug: Bug, healthy: Path, leave_out: list[str]) -> tuple[str, str]:
    """Plant one bug; return killed, survived or broken, and who noticed."""
    with tempfile.TemporaryDirectory(prefix="pcsim-bug-") as name:
        folder = copied(healthy, Path(name))
        bug.plant(folder)
        code, output = pytest(folder, bug.tests, "-x", *(f"--deselect={test}" for test in leave_out))
    if code == 0:
        return "SURVIVED", ""
    if code == 1:
        return "killed", next(iter(failures(output)), "").removeprefix("tests/")
    return "BROKEN", output.strip().splitlines()[-1]


def main() -> int:
    """Plant all bugs; print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="bugs in files whose path contains this")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if options.only in bug.file]
    with tempfile.TemporaryDirectory(prefix="pcsim-healthy-") as name:
        healthy = copied(ROOT, Path(name))  # so that work on the tree does not disturb a long run
        return judged(bugs, healthy, options.jobs)


def judged(bugs: list[Bug], healthy: Path, jobs: int) -> int:
    """Plant the bugs in copies of a healthy copy; print the table; return the exit code."""
    for bug in bugs:
        with tempfile.TemporaryDirectory(prefix="pcsim-bug-") as name:
            try:
                bug.plant(copied(healthy, Path(name)))
            except LookupError as error:
                print(f"no longer fits: {error}")
                return 2
    asked = [sys.executable, "-c", "import pcsim; print(pcsim.__file__)"]
    where = subprocess.run(
        asked, cwd=healthy, env=environment(healthy), capture_output=True, text=True, check=True
    ).stdout
    assert where.startswith(str(healthy)), f"the tests would run on {where}"
    leave_out = failures(pytest(healthy, ALL)[1])
    for test in leave_out:
        print(f"fails without any bug, left out: {test}")
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda bug: verdict(bug, healthy, leave_out), bugs)
        found = []
        for bug, (result, who) in zip(bugs, results):
            found.append(result)
            change = f"{' '.join(bug.old.split())[:60]} -> {' '.join(bug.new.split())[:50]}"
            print(f"{result:9} {bug.file:22} {change:114} {who}", flush=True)
    print(f"{found.count('killed')} of {len(found)} bugs killed")
    return int(any(result != "killed" for result in found))


if __name__ == "__main__":
    sys.exit(main())
