"""`pcsim theory`: what the paper proves, checked in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pcsim.commands import AsJson, Force
from pcsim.commands.first_screen import PlainGroup
from pcsim.errors import ConfigurationError

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    help="Check the paper's theorems in float64 on small networks.\n\nExample: `pcsim theory theorem1`",
    rich_markup_mode="markdown",
)
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Picture: .png, .svg or .pdf.")]
Networks = Annotated[int, typer.Option(min=1, help="Random networks.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of networks and data.")]
DPI = 160


@app.command()
def theorem1(
    beta: Annotated[list[float], typer.Option(help="Proximal step, repeatable [0.01 to 100].")] = [],  # noqa: B006
    networks: Networks = 18,
    iterations: Annotated[int, typer.Option(min=0, help="T of the local units.")] = 4000,
    seed: Seed = 0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare the exact core of Theorem 1 with the true proximal update.

    Example: `pcsim theory theorem1 --networks 9 -o theorem1.png`
    """
    import numpy as np

    from pcsim.report.files import check_picture, save_picture
    from pcsim.theory.theorem1 import STEPS, check_theorem1

    check_picture(out, force)
    with _progress("Theorem 1", networks) as advance:
        rows = check_theorem1(_positive(beta) or STEPS, networks, seed, iterations, advance)
    if out is not None:
        from pcsim.theory.pictures import draw_theorem1

        save_picture(lambda: draw_theorem1(rows), out, DPI)
    table = []
    for step in dict.fromkeys(row.proximal_step for row in rows):
        here = [row for row in rows if row.proximal_step == step]
        same = [row.distance for row in here if row.same]
        units = [row.distance_units for row in here if row.distance_units is not None]
        table.append(
            (
                f"{step:g}",
                f"{len(same)} of {len(here)}",
                f"{max(same):.1e}" if same else "",
                f"{max(row.distance_nearby for row in here):.1e}",
                f"{max(max(row.gradient_weights, row.gradient_activities) for row in here):.1e}",
                f"{np.median(units):.1e}" if units else "",
            )
        )
    headings = (
        *("β", "same\nminimum", "largest\ndistance", "from its\nactivities", "gradient\nnorm"),
        "local units,\nmedian",
    )
    _show("Exact core against the proximal update", headings, table, rows, as_json, out)


@app.command()
def proximal(
    beta: Annotated[float, typer.Option(help="Proximal step of the curves along T.")] = 1.0,
    iterations: Annotated[int, typer.Option(min=0, help="T of the curves along the proximal step.")] = 500,
    networks: Networks = 10,
    seed: Seed = 0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure how far updates are from the proximal update, along T and along the proximal step.

    Example: `pcsim theory proximal --beta 1 -o proximal.png`
    """
    import numpy as np

    from pcsim.report.files import check_picture, save_picture
    from pcsim.theory.distances import measure_distances

    check_picture(out, force)
    _positive([beta])
    with _progress("Distances", networks) as advance:
        along_t, along_beta = measure_distances(
            proximal_step=beta, most_iterations=iterations, networks=networks, seed=seed, advance=advance
        )
    if out is not None:
        from pcsim.theory.pictures import draw_distances

        save_picture(lambda: draw_distances(along_t, along_beta), out, DPI)
    table = [
        (row.name, str(row.iterations), f"{row.proximal_step:.3g}", f"{row.median:.2e}",
         f"{np.median(row.cosines):.4f}")
        for row in (*along_t, *along_beta)
    ]  # fmt: skip
    headings = ("algorithm", "T", "β", "distance,\nmedian", "cosine,\nmedian")
    rows = {"along_iterations": along_t, "along_proximal_step": along_beta}
    _show("Distance from the proximal update", headings, table, rows, as_json, out)


@app.command()
def figure1(
    beta: Annotated[float, typer.Option(help="Proximal step.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Test digits, a mini-batch each.")] = 20,
    seed: Seed = 0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure the proximal loss of the update that would be made after t iterations (figure 1).

    Example: `pcsim theory figure1 -o figure1.png`
    """
    from pcsim.report.files import check_picture, save_picture
    from pcsim.theory.figure1 import digits_cases
    from pcsim.theory.figure1 import figure1 as measure

    check_picture(out, force)
    _positive([beta])
    with _progress("Figure 1", samples) as advance:
        result = measure(digits_cases(samples, seed), proximal_step=beta, advance=advance)
    if out is not None:
        from pcsim.theory.pictures import draw_figure1

        save_picture(lambda: draw_figure1(result), out, DPI)
    shown = [index for index, t in enumerate(result.curves[0].iterations) if t in (0, 1, 3, 10, 50, 200)]
    table = [(one.name, *(f"{one.gaps[index]:.1e}" for index in shown)) for one in result.curves]
    table += [("backprop at its best rate", f"{result.backprop_gap:.1e}", *[""] * (len(shown) - 1))]
    headings = ("share left after t =", *(str(result.curves[0].iterations[index]) for index in shown))
    title = f"Proximal loss: {result.before:.4g} before, {result.optimum:.4g} at the proximal update"
    _show(title, headings, table, result, as_json, out)


@app.command()
def theorem2(
    networks: Networks = 10,
    seed: Seed = 0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Fit the orders in the proximal step of two approximations of implicit SGD.

    Example: `pcsim theory theorem2 -o theorem2.png`
    """
    from pcsim.report.files import check_picture, save_picture
    from pcsim.theory.theorem2 import check_theorem2

    check_picture(out, force)
    with _progress("Theorem 2", networks) as advance:
        rows = check_theorem2(networks=networks, seed=seed, advance=advance)
    if out is not None:
        from pcsim.theory.pictures import draw_theorem2

        save_picture(lambda: draw_theorem2(rows), out, DPI)
    table = []
    for index, row in enumerate(rows):
        least = row.steps[0]
        table.append(
            (
                str(seed + index),
                f"{row.newton_order:.3f}",
                f"{row.newton[0] / least**3 / row.newton_predicted:.4f}",
                f"{row.sgd_order:.3f}",
                f"{row.sgd[0] / least**2 / row.sgd_predicted:.4f}",
            )
        )
    headings = ("network", "Newton\norder", "over ½β³\n|T(g, g)|", "SGD\norder", "over β²\n|Hg|")
    _show("Error against implicit SGD, fitted for β up to 0.03", headings, table, rows, as_json, out)


@app.command("backprop-limit")
def backprop_limit(
    seed: Seed = 0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure angle and length of each update against backprop's as the step size falls.

    Example: `pcsim theory backprop-limit -o backprop-limit.png`
    """
    from pcsim.report.files import check_picture, save_picture
    from pcsim.theory.backprop_limit import SIZES, check_backprop_limit

    check_picture(out, force)
    with _progress("Backprop limit", 2 * (len(SIZES) - 1)) as advance:
        rows = check_backprop_limit(seed=seed, advance=advance)
    if out is not None:
        from pcsim.theory.pictures import draw_backprop_limit

        save_picture(lambda: draw_backprop_limit(rows), out, DPI)
    shown = [row for row in rows if row.step_size in (rows[0].step_size, rows[2].step_size)]
    table = [
        (
            *(row.order, str(row.iterations), f"{row.step_size:g}"),
            " ".join("–" if one is None else f"{one:.6f}" for one in row.cosines),
            " ".join(f"{one:.1e}" for one in row.lengths),
        )
        for row in shown
    ]
    headings = ("order", "T", "ε", "cosine, layer 0 up", "length over backprop's")
    _show("Updates against backprop's", headings, table, rows, as_json, out)


def _positive(steps: list[float]) -> list[float]:
    for step in steps:
        if not 0 < step < float("inf"):
            raise ConfigurationError(f"--beta {step}: expected a finite value above 0")
    return steps


@contextmanager
def _progress(label: str, steps: int) -> Iterator[Callable[[], None]]:
    from pcsim.terminal import ProgressBar

    with ProgressBar() as bar:
        bar.begin(label, steps)
        yield bar.step


def _show(
    title: str,
    headings: Sequence[str],
    table: Sequence[Sequence[str]],
    result: Any,  # noqa: ANN401 - dataclasses, in lists or by name
    as_json: bool,
    out: Path | None,
) -> None:
    """Print the numbers as JSON or as a table."""
    from pcsim.commands import print_json
    from pcsim.commands.analyze import plain

    if as_json:
        print_json(plain(_listed(result)))
        return
    from rich.console import Console

    from pcsim.terminal import new_table

    first, *others = headings
    shown = new_table(title, first)
    for heading in others:
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in table:
        shown.add_row(*row)
    Console().print(shown)
    if out is not None:
        typer.echo(f"picture: {out}")


def _listed(value: Any) -> Any:  # noqa: ANN401
    """Return dataclasses as mappings, also within lists and mappings."""
    from dataclasses import asdict

    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return [asdict(one) for one in value] if isinstance(value, list) else asdict(value)
