"""`pcsim study parallelism`: what orders cost on many cores; `pcsim study accuracy`: the runs behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.commands import AsJson, Force, print_json
from pcsim.errors import ConfigurationError
from pcsim.places import check_new_file, check_new_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from pcsim.experiments.parallelism.needs import Need
    from pcsim.experiments.parallelism.pipelines import Pipeline
    from pcsim.experiments.parallelism.study import Row, Study

DEPTHS = "2,4,8,16,32,64,128,256"
CORES = "1,2,4,8,16,32,64,128,256,512,1024,2048,4096"
NUMBERS = "numbers.json"
MOST_HIDDEN = 4096  # layers that are simulated one by one; on one core that takes minutes


def parallelism(
    depths: Annotated[str, typer.Option(metavar="2,4,…", help="Numbers of hidden layers.")] = DEPTHS,
    cores: Annotated[str, typer.Option(metavar="1,2,…", help="Numbers of cores.")] = CORES,
    width: Annotated[int, typer.Option(min=1, help="Neurons of every layer.")] = 64,
    iterations: Annotated[int, typer.Option(min=1, help="T of all orders, without --accuracy-runs.")] = 3,
    accuracy_runs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Runs of pcsim study accuracy: T as each order needs.")
    ] = None,
    data: Annotated[str, typer.Option(help="Which data set's runs count.")] = "digits",
    hardware: Annotated[
        str, typer.Option(help="Machine for the energies, by name or file.")
    ] = "digital-45nm",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder for pictures and numbers.json.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Work, span and makespan of every order, and which is first on how many cores.

    Example: `pcsim study parallelism -o parallelism`

    With accuracies that were measured, in a checkout:
    `pcsim study parallelism --accuracy-runs docs/parallelism/runs.jsonl -o parallelism-at-equal-accuracy`
    """
    from pcsim.experiments.parallelism.pipelines import eligible, pipelines
    from pcsim.experiments.parallelism.runs import read_runs
    from pcsim.experiments.parallelism.study import ORDERS, study
    from pcsim.hardware.machine import load_machine
    from pcsim.terminal import ProgressBar

    chosen, counts = _depths(depths), _numbers("--cores", cores)
    machine = load_machine(hardware)
    runs = [] if accuracy_runs is None else read_runs(accuracy_runs)
    if accuracy_runs is not None and not runs:
        raise ConfigurationError(
            f"{accuracy_runs} holds no runs: expected a file that `pcsim study accuracy` has written"
        )
    _refuse(out, force)
    with ProgressBar() as bar:
        bar.begin("schedules", len(set(chosen)) * len(ORDERS))
        result = study(
            *(chosen, counts, width, machine), iterations=iterations, runs=runs, data=data, advance=bar.step
        )
        bar.begin("pipelines", len(eligible(result.rows)))
        lines = pipelines(result.rows, bar.step)
    if out is not None:
        _save(result, lines, out)
    if as_json:
        print_json(_plain(result, lines))
    else:
        _show(result, lines, out)


def accuracy(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Runs; what is there is not run again.")],
    data: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    depths: Annotated[str, typer.Option(metavar="2,4,…", help="Numbers of hidden layers.")] = "2,4,8,16",
    width: Annotated[int, typer.Option(min=1, help="Neurons of every hidden layer.")] = 64,
    most: Annotated[int | None, typer.Option(min=1, help="Largest T [the study's own].")] = None,
    as_json: AsJson = False,
) -> None:
    """Train until it is known which T each order needs to reach backprop's accuracy minus one point.

    Interrupt it at any time; the same command goes on.

    Example: `pcsim study accuracy runs.jsonl --depths 2 --most 3`
    """
    from pcsim.experiments.parallelism.needs import needs
    from pcsim.experiments.parallelism.runs import Book
    from pcsim.experiments.parallelism.search import search, tasks, tune_backprop
    from pcsim.terminal import ProgressBar

    book = Book(file)
    with ProgressBar() as bar:
        for hidden in _depths(depths):
            _, goal = tune_backprop(book, data, hidden, width)
            planned = tasks(data, hidden, width, most)
            bar.begin(f"{data}, {hidden} hidden layers", sum(len(task.iterations) for task in planned))
            for task in planned:
                found = sum(1 for _ in _told(search(book, task, goal), bar.step))
                for _ in range(len(task.iterations) - found):
                    bar.step()
    rows = [need for need in needs(book.runs.values()) if need.data == data]
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _print(_needs_table(rows))


def _told(steps: Any, advance: Callable[[], None]) -> Any:  # noqa: ANN401 - an iterator that is handed on
    for step in steps:
        advance()
        yield step


def _numbers(option: str, text: str) -> list[int]:
    """Return the whole numbers of a list such as 2,4,8."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigurationError(f"{option} {text}: expected whole numbers from 1 with commas, such as 2,4,8")
    return sorted(set(numbers))


def _depths(text: str) -> list[int]:
    """Return numbers of hidden layers; refuse more than could be simulated."""
    depths = _numbers("--depths", text)
    if max(depths) > MOST_HIDDEN:
        raise ConfigurationError(
            f"--depths {max(depths)}: expected at most {MOST_HIDDEN} hidden layers, as each is simulated; "
            "for deeper networks use the closed forms in docs/parallelism.md"
        )
    return depths


def _refuse(out: Path | None, force: bool) -> None:
    """Look before the work begins whether the folder can be written."""
    if out is None:
        return
    check_new_folder(out, overwrite=True)
    check_new_file(out / NUMBERS, force)


def _plain(result: Study, lines: Sequence[Pipeline]) -> dict[str, Any]:
    """Return everything as JSON can say it."""
    from pcsim.experiments.parallelism.runs import BATCH

    rows = [asdict(row) | {"times": row.times} for row in result.rows]
    return {
        "depths": result.depths,
        "cores": result.cores,
        "width": result.width,
        "batch": BATCH,
        "machine": {
            "name": result.machine.name,
            "source": result.machine.source,
            "unpriced": result.unpriced,
        },
        "needs": [asdict(need) for need in result.needs],
        "rows": rows,
        "pipelines": [asdict(line) for line in lines],
    }


def _save(result: Study, lines: Sequence[Pipeline], out: Path) -> None:
    """Write the pictures and the numbers."""
    import json

    from pcsim.experiments.parallelism import figures
    from pcsim.report.files import save_bytes, save_picture

    drawn: dict[str, Callable[[], Figure]] = {
        "speedup": lambda: figures.draw_speedup(result),
        "time": lambda: figures.draw_time(result),
        "map": lambda: figures.draw_map(result),
    }
    if lines:
        drawn["pipelines"] = lambda: figures.draw_pipelines(lines)
    if result.needs:
        drawn["needs"] = lambda: figures.draw_needs(result.needs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {out}: {error.strerror}; name another folder") from error
    for name, draw in drawn.items():
        save_picture(draw, out / f"{name}.png", 160)
    save_bytes(out / NUMBERS, (json.dumps(_plain(result, lines), indent=1) + "\n").encode())


def _show(result: Study, lines: Sequence[Pipeline], out: Path | None) -> None:
    if result.needs:
        _print(_needs_table(result.needs))
    _print(_cost_table(result), _map_table(result))
    if lines:
        _print(_pipeline_table(lines))
    if any(row.energy for row in result.rows):
        unpriced = f"; unpriced: {', '.join(result.unpriced)}" if result.unpriced else ""
        _say(f"energies: {result.machine.name} ({result.machine.source}){unpriced}")
    if out is not None:
        typer.echo(f"pictures and numbers: {out}")


def _say(line: str) -> None:
    """Print a line, wrapped to the terminal between words."""
    from rich.console import Console

    Console(markup=False).print(line, highlight=False)


def _print(*tables: Table) -> None:
    from rich.console import Console

    for table in tables:
        Console(markup=False).print(table)


def _needs_table(rows: Sequence[Need]) -> Table:
    """Return the smallest T that is enough, and its mini-batches, by order and depth."""
    from pcsim.experiments.parallelism.needs import smallest_enough, tried
    from pcsim.experiments.parallelism.study import ORDERS
    from pcsim.terminal import NOTHING, new_table

    table = new_table("Smallest T that reaches the goal, and mini-batches to it", "order")
    depths = sorted({row.hidden for row in rows})
    for hidden in depths:
        goal = next(row.goal for row in rows if row.hidden == hidden)
        table.add_column(f"{hidden} hidden\n{goal:.2%}", justify="right", no_wrap=True)
    for order in ORDERS:
        cells = []
        for hidden in depths:
            found, all_tried = smallest_enough(rows, hidden, order), tried(rows, hidden, order)
            if found is not None:
                cells.append(f"{found.iterations or ''} ({found.mean_steps:.0f})".strip())
            else:
                cells.append(f"not by T = {max(all_tried)}" if all_tried else NOTHING)
        table.add_row(order, *cells)
    return table


def _cost_table(result: Study) -> Table:
    """Return one line an order and depth; times on the first, a middle and the last number of cores."""
    from pcsim.terminal import NOTHING, new_table

    to_goal = bool(result.needs)
    table = new_table(f"Layers of {result.width}: {_basis(to_goal)}", "hid-\nden", "order", names=2)
    for heading in ("T", "work", "span", "mes-\nsages"):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = sorted({0, len(result.cores) // 2, len(result.cores) - 1})
    for column in columns:
        table.add_column(f"time\non {result.cores[column]}", justify="right", no_wrap=True)
    table.add_column("mJ" if to_goal else "µJ", justify="right", no_wrap=True)
    for row, following in zip(result.rows, (*result.rows[1:], result.rows[-1]), strict=True):
        times = [_short(row.times[column]) for column in columns] if row.makespans else []
        table.add_row(
            *(str(row.hidden), row.order, _iterations(row)),
            *_costs(row),
            *(times or [NOTHING] * len(columns)),
            _energy(row, to_goal),
            end_section=following.hidden != row.hidden,
        )
    return table


def _basis(to_goal: bool) -> str:
    from pcsim.experiments.parallelism.runs import BATCH

    if to_goal:
        return f"a sample's costs; time, energy to the goal by mini-batches of {BATCH} (*: T extrapolated)"
    return f"multiplications of a sample, energy of a mini-batch of {BATCH}"


def _costs(row: Row) -> list[str]:
    from pcsim.terminal import NOTHING

    if not row.makespans:
        return [NOTHING] * 3
    return [_short(row.work), _short(row.span), _short(row.messages)]


def _iterations(row: Row) -> str:
    from pcsim.terminal import NOTHING

    if row.iterations is None:
        return NOTHING
    star = "*" if row.basis == "extrapolated" else ""
    return f"{row.iterations}{star}" if row.iterations else NOTHING  # backprop has none


def _energy(row: Row, to_goal: bool) -> str:
    """Return the energy, pJ in the row, in mJ to the goal or in µJ of a mini-batch."""
    from pcsim.terminal import NOTHING

    if row.energy is None:
        return NOTHING
    return _short(row.energy * (row.steps or 1) / (1e9 if to_goal else 1e6))


def _short(number: float) -> str:
    """Return three digits in five characters: 2.69G."""
    from pcsim.terminal import scaled

    return scaled(float(f"{number:.3g}")).replace(" ", "")


def _rounded(time: float) -> str:
    """Return two digits: more would be end effects."""
    return f"{time:.0f}" if time >= 9.95 else f"{time:.1f}"


def _map_table(result: Study) -> Table:
    """Return which static predictive coding order is first, by depth and number of cores."""
    from pcsim.terminal import NOTHING, new_table

    letters = {"sequential": "seq", "simultaneous": "sim", "red-black": "r-b", "bottom-up": "b-u"}

    def shown(firsts: list[Row]) -> str:
        if len(firsts) > 1:
            return "tie"
        return letters.get(firsts[0].order, firsts[0].order[:3]) if firsts else NOTHING

    what = "equal accuracy" if result.needs else "equal T"
    title = f"First on so many cores, at {what}"
    table = new_table(title, "hidden")
    for count in result.cores:
        table.add_column(str(count), justify="right", no_wrap=True)
    for hidden in result.depths:
        table.add_row(str(hidden), *(shown(result.first(hidden, count)) for count in result.cores))
    return table


def _pipeline_table(lines: Sequence[Pipeline]) -> Table:
    """Return the time between mini-batches, a core a neuron, by window."""
    from pcsim.experiments.parallelism.pipelines import WINDOWS
    from pcsim.terminal import NOTHING, new_table

    title = "Pipelines, a core a neuron: products between mini-batches"
    table = new_table(title, "hidden", "order")
    for heading in ("T", "alone", "exact", *(f"{w} under\nway" for w in WINDOWS[1:]), "work/\ncores"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line, following in zip(lines, (*lines[1:], lines[-1]), strict=True):
        star = "*" if line.basis == "extrapolated" and line.iterations else ""
        cells = (NOTHING if time is None else _rounded(time) for time in line.intervals)
        table.add_row(
            *(str(line.hidden), line.order, f"{line.iterations or NOTHING}{star}", str(line.span)),
            *cells,
            _rounded(line.least),
            end_section=following.hidden != line.hidden,
        )
    return table
