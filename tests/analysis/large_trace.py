"""Writes a large trace, or analyses one and prints by how many bytes that has raised its memory.

Run by test_streaming, in processes of their own: what one process once took, it does not give back.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from pcsim.tracing import Column, TraceWriter

SIZES, ITERATIONS, BATCH, PIECE = (96, 64, 48, 10), 3, 16, 20
ROW_BYTES = 2 * 8 * (ITERATIONS + 1) * BATCH * sum(SIZES)  # of the probe, about


def write(path: Path, megabytes: int) -> None:
    """Write a probe with so much in it, and a summary and events of the same number of training steps."""
    rng, top = np.random.default_rng(0), len(SIZES) - 1
    rows = megabytes * 10**6 // ROW_BYTES // PIECE * PIECE
    step = {"step": Column((), "int64", "training step")}
    state, sizes = ("iteration", "sample"), {"iteration": np.arange(ITERATIONS + 1), "sample": BATCH}
    columns = {}
    for layer, size in enumerate(SIZES):
        sizes |= {f"neuron_{layer}": size}
        for kind in ("activity", "error") if layer else ("activity",):
            columns[f"{kind}_{layer}"] = (*state, f"neuron_{layer}")
    for layer in range(top):
        sizes |= {f"source_neuron_{layer}": SIZES[layer], f"target_neuron_{layer}": SIZES[layer + 1]}
        matrix = f"target_neuron_{layer}", f"source_neuron_{layer}"
        columns |= {f"{kind}_{layer}": matrix for kind in ("weight", "update")}
        columns |= {f"{kind}_{layer}": matrix[:1] for kind in ("bias", "bias_update")}
    columns[f"target_{top}"] = ("sample", f"neuron_{top}")
    shapes = {
        name: tuple(size if isinstance(size := sizes[dim], int) else len(size) for dim in dims)
        for name, dims in columns.items()
    }
    network = {"activation": ["identity", *["relu"] * top], "output": [None] * top + ["softmax"]}
    attributes = {"experiment": {"network": network}, "batch": BATCH}
    with TraceWriter(path, attributes) as writer:
        described = {name: Column(dims, "float64", name) for name, dims in columns.items()}
        probe = writer.table("probes/all", "step", step | described, sizes, expected_rows=rows)
        cells = ("iteration", "layer")
        summary = writer.table(
            "summary",
            "step",
            step
            | dict.fromkeys(("squared_error", "free_energy"), Column(cells, "float64", "energy"))
            | {"update_magnitude": Column(("connection",), "float64", "update")},
            {"iteration": sizes["iteration"], "layer": np.arange(1, top + 1), "connection": top},
            expected_rows=rows * 5,
        )
        numbers = ("layer", "target", "iteration", "multiplications", "values", "nonzero_values", "bytes")
        events = writer.table(
            "events",
            "event",
            step
            | {"kind": Column((), "int8", "kind", flags=("operation", "message"))}
            | {"name": Column((), "int8", "name", flags=("relax", "prediction"))}
            | {name: Column((), "int64", name) for name in numbers}
            | {name: Column((), "float64", name) for name in ("start", "end")},
            expected_rows=rows * 200,
        )
        arrays = {name: rng.normal(size=(PIECE, *shape)) for name, shape in shapes.items()}
        for first in range(0, rows, PIECE):
            probe.extend(step=np.arange(first, first + PIECE), **arrays)
            many = PIECE * 5
            values = rng.random((many, ITERATIONS + 1, top))
            steps = np.arange(first * 5, first * 5 + many)
            summary.extend(
                step=steps, squared_error=values, free_energy=values, update_magnitude=values[:, 0]
            )
            steps = np.repeat(np.arange(first, first + PIECE), 200)
            some = dict.fromkeys((*numbers, "start", "end"), steps % 3)
            events.extend(step=steps, kind=steps % 2, name=steps % 2, **some)


def analyse(path: Path) -> None:
    """Do all analyses; print by how many bytes the largest memory has grown since the imports."""
    import xarray

    from pcsim import analysis

    def compare_with_itself(one: Path) -> None:
        analysis.compare(one, one)

    functions = [
        analysis.error_norms,
        analysis.free_energy,
        analysis.update_magnitudes,
        analysis.event_counts,
        analysis.sparsity,
        analysis.dynamic_range,
        analysis.backprop_angles,
        compare_with_itself,
    ]
    xarray.Dataset({"warm": ("up", np.zeros((200, 200)) @ np.ones(200))})
    before, grown = _peak(), {}
    for function in functions:
        function(path)
        grown[function.__name__] = _peak() - before
    print(json.dumps(grown))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        analyse(Path(sys.argv[2]))
