"""`pcsim models`: the model files at hand, one line each; and what `pcsim info MODEL.toml` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.commands import AsJson
from pcsim.errors import ConfigurationError
from pcsim.shipped import find_model, models_folder

if TYPE_CHECKING:
    from pcsim.config import ModelConfig


def models(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Folder of model files [pcsim's models/].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List model files: network, data, schedule, learning rule.

    Example: `pcsim models`, then `pcsim info cifar10_conv`

    docs/model-file.md has every key of a model file, its default and its range.
    """
    from pcsim.config import load_model

    where = folder or models_folder()
    paths = sorted(where.glob("*.toml"))
    if not paths:
        raise ConfigurationError(f"{where}: no model files (*.toml) there; expected pcsim models FOLDER")
    found = {path: load_model(path) for path in paths}
    if as_json:
        _print([{"path": str(path), **_facts(model)} for path, model in found.items()])
        return
    for path, model in found.items():
        typer.echo(f"{path.name if folder else path.stem:<24} {model.description}")
    example = where / paths[0].name if folder else paths[0].stem
    typer.echo(f"in {where}; `pcsim info {example}` shows one, `pcsim run {example}` trains it")


def show_model(path: Path, *, as_json: bool) -> None:
    """Print the layers of a model file, with shapes, parameters and multiplications of one sample."""
    from pcsim.config import load_model

    path = find_model(path)
    model = load_model(path)
    rows = _rows(model)
    if as_json:
        _print({"path": str(path), **_facts(model), "connections": rows})
        return
    _show(model, rows)


def _facts(model: ModelConfig) -> dict[str, Any]:
    """Return what a list of models says of one, fit for JSON."""
    return {
        "name": model.name,
        "description": model.description,
        "layers": list(model.network.layers),
        "shapes": [list(shape) for shape in model.network.architecture.shapes],
        "output": model.network.output,
        "data": model.data.name,
        "target": model.data.target,
        "order": model.schedule.order,
        "iterations": model.schedule.iterations,
        "step_size": model.schedule.step_size,
        "learning": model.learning.model_dump(),
        "epochs": model.training.epochs,
        "batch": model.training.batch,
    }


def _rows(model: ModelConfig) -> list[dict[str, Any]]:
    """Return the connections of a model from input to output."""
    from pcsim.network.network import connections_of

    architecture = model.network.architecture
    connections, _ = connections_of(architecture, model.network.activation)
    shapes = architecture.shapes
    return [
        {
            "layer": layer,
            "shape": list(shapes[layer]),
            "neurons": connection.inputs,
            "weight": list(connection.weight_shape),
            "to": list(shapes[layer + 1]),
            **connection.describe(),
            "parameters": connection.parameters,
            "multiplications": connection.multiplications,
        }
        for layer, connection in enumerate(connections)
    ]


def _show(model: ModelConfig, rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console

    from pcsim.terminal import new_table, scaled

    table = new_table(f"{model.name}: {model.description}", "layer", "shape", "sends through", "weight")
    for heading in ("parameters", "multiplications\na sample"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["layer"]),
            _shape(row["shape"]),
            _kind(row),
            _shape(row["weight"]),
            f"{row['parameters']:,}",
            scaled(row["multiplications"]),
        )
    last = model.network.architecture.shapes[-1]
    table.add_row(str(len(rows)), _shape(last), model.network.output, "", "", "")
    sums = [sum(row[name] for row in rows) for name in ("parameters", "multiplications")]
    table.add_row("", "", "", "all", f"{sums[0]:,}", scaled(sums[1]))
    console, schedule, learning = Console(), model.schedule, model.learning.model_dump()
    console.print(table)
    constants = ", ".join(f"{name} {value:g}" for name, value in learning.items() if name != "rule")
    console.print(
        f"data {model.data.name}; {schedule.order}, T = {schedule.iterations}, step size "
        f"{schedule.step_size:g}; {learning['rule']} {constants}; {model.training.epochs} epochs, mini-batch "
        f"{model.training.batch}",
        highlight=False,
    )


def _shape(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))


def _kind(row: dict[str, Any]) -> str:
    """Name a connection in a few words."""
    if row["kind"] == "dense":
        return "dense"
    pool = "" if row["pool"] == "none" else f", {row['pool']} {row['pool_size']}"
    return f"conv {row['kernel']}x{row['kernel']}/{row['stride']}, {row['activation']}{pool}"


def _print(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
