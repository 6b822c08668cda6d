"""`pcsim data`: which data sets there are, whether they are here, and getting them."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.commands import GO_ON, AsJson, DataDir, Force, interruptible, print_json
from pcsim.commands.first_screen import PlainGroup
from pcsim.errors import DataError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pcsim.training.dataset import Dataset
    from pcsim.training.datasets.registry import KnownSet

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    help="List, download and check data sets.\n\nExample: `pcsim data fetch svhn`",
    rich_markup_mode="markdown",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Data set; see `pcsim data list`.")]


@app.command("list")
def list_sets(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets and where each was found.

    Example: `pcsim data list --data-dir /scratch/data`
    """
    from rich.console import Console

    from pcsim.terminal import new_table
    from pcsim.training.datasets.registry import KNOWN, data_root

    root = data_root(data_dir)
    rows = [_facts(one) | {"place": _place(one, root)} for one in KNOWN.values()]
    if as_json:
        print_json({"data_dir": str(root), "sets": rows})
        return
    table = new_table("Data sets", "name")
    for heading, justify in (("samples", "right"), ("shape", "left"), ("classes", "right"), ("MB", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("where", overflow="fold")
    table.add_row("digits", "1,797", "1x8x8", "10", "", "comes with scikit-learn")
    for row in rows:
        size = sum(file["size"] for file in row["files"])
        table.add_row(
            row["name"],
            f"{row['train']:,} + {row['test']:,}",
            "x".join(map(str, row["shape"])),
            str(row["classes"]),
            f"{size / 1e6:.0f}",
            row["place"] or f"not here: pcsim data fetch {row['name']}",
        )
    table.add_row("npz", "", "", "", "", "your own arrays: pcsim data info npz")
    console = Console()
    console.print(table)
    console.print(f"\nlooked in {root}", highlight=False, soft_wrap=True)


@app.command()
def fetch(name: Name, data_dir: DataDir = None, force: Force = False, as_json: AsJson = False) -> None:
    """Download a data set from its official address; resumes, and verifies size and checksum.

    Example: `pcsim data fetch cifar-10 --data-dir /scratch/data`
    """
    from pcsim.training.datasets.fetch import fetch as fetch_set
    from pcsim.training.datasets.registry import data_root, known_set

    known, root = known_set(name), data_root(data_dir)
    with interruptible(GO_ON), _DownloadBar() as progress:
        files = fetch_set(known, root, progress, overwrite=force)
    if as_json:
        print_json({"name": name, "files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(f"verified: {file}")
    if data_dir is not None:
        folder = shlex.quote(str(data_dir))
        typer.echo(f"use it with --data-dir {folder}, or PCSIM_DATA={folder}")


@app.command()
def info(
    name: Name,
    data_dir: DataDir = None,
    path: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The set's own folder or archive, or the .npz file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read and check a data set; say what it holds, or where it comes from if it is not here.

    Example: `pcsim data info cifar-10`

    What your own arrays must look like: `pcsim data info npz`
    """
    from pcsim.training.data import load_dataset
    from pcsim.training.datasets.registry import KNOWN, data_root

    if name == "npz" and path is None:
        _show_layout(as_json)
        return
    known = KNOWN.get(name)
    facts: dict[str, Any] = {"name": name} if known is None else _facts(known)
    if known is not None:
        place = _place(known, data_root(data_dir)) if path is None else str(path)
        facts["place"] = place
    try:
        dataset = load_dataset(name, path=path, directory=data_dir)
    except DataError:
        if known is None or facts["place"]:
            raise
        facts["content"] = None
    else:
        facts["content"] = _content(dataset)
    print_json(facts) if as_json else _show(facts, known)


def _show_layout(as_json: bool) -> None:
    """Say what a .npz file must hold to be read."""
    from rich.console import Console

    from pcsim.terminal import new_table
    from pcsim.training.datasets.npz import LAYOUT

    if as_json:
        print_json({"name": "npz", "arrays": {key: list(one) for key, one in LAYOUT.items()}})
        return
    table = new_table("npz: your own NumPy arrays in one file, numpy.savez(FILE, x_train=…, …)", "array")
    for heading in ("shape", "type"):
        table.add_column(heading, overflow="fold")
    for key, (shape, kind) in LAYOUT.items():
        table.add_row(key, shape, kind)
    console = Console()
    console.print(table)
    console.print("\ncheck one: pcsim data info npz --path FILE.npz; docs/model-file.md trains on one")


def _facts(known: KnownSet) -> dict[str, Any]:
    """What is known of a set that may not be here."""
    return {
        "name": known.name,
        "title": known.title,
        "home": known.home,
        "train": known.samples[0],
        "test": known.samples[1],
        "shape": list(known.shape),
        "classes": known.classes,
        "files": [{"address": one.address, "size": one.size, "md5": one.md5} for one in known.sources],
    }


def _place(known: KnownSet, root: Path) -> str | None:
    place = known.find(None, root)
    return None if place is None else str(place)


def _content(dataset: Dataset) -> dict[str, Any]:
    """What a set that was read holds."""
    import numpy as np

    halves = ((dataset.train_inputs, dataset.train_targets), (dataset.test_inputs, dataset.test_targets))
    return {
        half: {
            "samples": len(inputs),
            "features": inputs.shape[1],
            "dtype": str(inputs.dtype),
            "bytes": inputs.nbytes,
            "mean": float(inputs.mean(dtype=np.float64)) * dataset.scale,
            "labels": np.bincount(targets, minlength=dataset.classes).tolist() if dataset.classes else None,
        }
        for half, (inputs, targets) in zip(("train", "test"), halves, strict=True)
    } | {"shape": None if dataset.shape is None else list(dataset.shape), "classes": dataset.classes}


def _show(facts: dict[str, Any], known: KnownSet | None) -> None:
    from rich.console import Console

    from pcsim.terminal import new_table

    console = Console()
    if known is not None:
        console.print(f"{known.name}: {known.title}\n{known.home}", highlight=False, soft_wrap=True)
        for file in known.sources:
            console.print(
                f"{file.address}  {file.size:,} bytes  MD5 {file.md5}", highlight=False, soft_wrap=True
            )
        console.print(
            f"in {facts['place'] or f'no folder yet: {known.remedy}'}", highlight=False, soft_wrap=True
        )
    content = facts["content"]
    if content is None:
        return
    table = new_table(_heading(facts["name"], content), "half")
    for heading in ("samples", "features", "type", "MB", "mean input", "samples a class"):
        table.add_column(heading, justify="right", no_wrap=True)
    for half in ("train", "test"):
        row = content[half]
        counts = row["labels"]
        span = "" if counts is None else f"{min(counts):,} to {max(counts):,}"
        table.add_row(
            half,
            f"{row['samples']:,}",
            f"{row['features']:,}",
            row["dtype"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['mean']:.4f}",
            span,
        )
    console.print(table)


def _heading(name: str, content: dict[str, Any]) -> str:
    """Say what was read; arrays of one's own may have neither a shape nor classes."""
    shape = f", shape {content['shape']}" if content["shape"] else ""
    classes = f", {content['classes']} classes" if content["classes"] else ""
    return f"{name} as read{shape}{classes}"


class _DownloadBar:
    """A bar a file, with speed and time left, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        from pcsim.terminal import Bars

        self._bar = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def begin(self, label: str, total: int) -> None:
        self._task = self._bar.add_task(label, total=total)

    def reach(self, position: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=position)

    def __enter__(self) -> _DownloadBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
