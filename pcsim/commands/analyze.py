"""`pcsim analyze`: what a trace tells, as tables, as JSON, or as a netCDF file."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.commands import AsJson, Force, Trace, print_json, refuse_given
from pcsim.errors import ConfigurationError, TraceError
from pcsim.hidden_file import replacing

if TYPE_CHECKING:
    import xarray
    from rich.table import Table

    from pcsim.analysis.stream import Progress
    from pcsim.tracing.reader import TraceReader

MOST_ITERATIONS = 11  # columns or rows of a table; more are left out evenly


class Section(StrEnum):
    """What can be analysed."""

    ERROR_FLOW = "error-flow"
    FREE_ENERGY = "free-energy"
    UPDATES = "updates"
    EVENTS = "events"
    SPARSITY = "sparsity"
    RANGE = "range"
    BACKPROP = "backprop"


def analyze(
    context: typer.Context,
    trace: Trace,
    only: Annotated[
        list[Section], typer.Option("--only", help="Analyse only this, repeatable [everything].")
    ] = [],  # noqa: B006 - typer copies it
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio for fixed-point formats, dB.")] = 40.0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also measure that ratio, in a second pass over the probes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT.nc", help="netCDF file, also of every step.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Say how errors, energy and updates of a run behave, what it sent, and what number formats it needs.

    Example: `pcsim analyze traces/digits-sequential.h5 --snr 48 -o digits.nc`
    """
    from pcsim.analysis import quantised_snr
    from pcsim.report.files import refuse_place
    from pcsim.terminal import ProgressBar
    from pcsim.tracing.reader import open_trace
    from pcsim.tracing.settings import said_not_sent

    if only and Section.RANGE not in only:
        refuse_given(context, ("snr", "verify"), "acts on the range: expected --only range as well")
    if out is not None:
        refuse_place(out, force)
        if out.resolve() == trace.resolve():
            raise ConfigurationError(f"{out} is the trace itself: expected another name")
    with open_trace(trace) as reader, ProgressBar() as progress:
        found, missing = _analyses(reader, only, snr, progress)
        if verify and Section.RANGE in found:
            found[Section.RANGE] = quantised_snr(reader, found[Section.RANGE], progress=progress)
        caution = said_not_sent(reader.attributes) if {Section.SPARSITY, Section.RANGE} & set(found) else None
    if out is not None:
        _write(found, out)
    if as_json:
        sections: dict[str, Any] = {name: plain(_without_steps(one)) for name, one in found.items()}
        print_json({"trace": str(trace), "sections": sections, "not_recorded": missing, "caution": caution})
    else:
        _show(found, missing)
        if caution:
            typer.echo(caution)
        if out is not None:
            typer.echo(f"datasets: {out}")


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return a value as JSON can say it: NaN becomes null, infinities the texts "inf" and "-inf"."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _analyses(
    reader: TraceReader, only: Sequence[Section], snr: float, progress: Progress
) -> tuple[dict[str, xarray.Dataset], dict[str, str]]:
    """Return the datasets by section, and why the others are missing.

    Raises:
        TraceError: nothing of what is asked for is recorded, or the file is damaged.
    """
    from pcsim import analysis
    from pcsim.analysis.stream import NotRecordedError

    functions: dict[Section, Callable[..., xarray.Dataset]] = {
        Section.ERROR_FLOW: analysis.error_norms,
        Section.FREE_ENERGY: analysis.free_energy,
        Section.UPDATES: analysis.update_magnitudes,
        Section.EVENTS: analysis.event_counts,
        Section.SPARSITY: analysis.sparsity,
        Section.RANGE: partial(analysis.dynamic_range, snr=snr),
        Section.BACKPROP: analysis.backprop_angles,
    }
    found, missing = {}, {}
    for section in only or functions:
        try:
            found[section.value] = functions[section](reader, progress=progress)
        except NotRecordedError as error:
            if only:
                raise
            missing[section.value] = (
                str(error).removeprefix(f"{reader.path} ").removeprefix(f"{reader.path}: ")
            )
    if not found:
        raise TraceError(f"{reader.path} holds nothing to analyse: {missing[Section.ERROR_FLOW]}")
    return found, missing


def _write(found: dict[str, xarray.Dataset], out: Path) -> None:
    """Write the datasets as groups of one netCDF file, which appears when it is whole."""
    import xarray

    groups = {name.replace("-", "_"): one for name, one in found.items()}
    try:
        with replacing(out) as file, TemporaryDirectory() as folder:
            whole = Path(folder) / "whole.nc"  # HDF5 opens files by name, and none that is locked
            xarray.DataTree.from_dict(groups).to_netcdf(whole, engine="h5netcdf")
            with whole.open("rb") as made:
                shutil.copyfileobj(made, file)
    except OSError as error:
        raise ConfigurationError(f"cannot write {out}: {error.strerror or error}") from error


def _without_steps(found: xarray.Dataset) -> dict[str, Any]:
    """Return all that has no value a training step, as `xarray.Dataset.from_dict` reads it."""
    return found.drop_dims("step", errors="ignore").to_dict()


def _show(found: dict[str, xarray.Dataset], missing: dict[str, str]) -> None:
    from rich.console import Console

    tables: dict[str, Callable[[xarray.Dataset], Table]] = {
        Section.ERROR_FLOW: _error_flow,
        Section.FREE_ENERGY: _free_energy,
        Section.UPDATES: _updates,
        Section.EVENTS: _events,
        Section.SPARSITY: _sparsity,
        Section.RANGE: _range,
        Section.BACKPROP: _backprop,
    }
    console = Console()
    for name, one in found.items():
        console.print(tables[name](one), "")
    for name, why in missing.items():
        line = f"{name}: not recorded; this trace {why}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _new(title: str, words: Sequence[str], numbers: Sequence[str], names: int = 1) -> Table:
    """Return a table with columns of words, then of numbers; the first `names` tell the rows apart."""
    from pcsim.terminal import new_table

    table = new_table(title, names=names)
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _number(value: float, form: str = ".3g") -> str:
    """Return a number in short, a dash for NaN."""
    from pcsim.terminal import NOTHING

    return NOTHING if math.isnan(value) else f"{value:{form}}"


def _some(count: int) -> list[int]:
    """Return which iterations a table shows: first, last and evenly between."""
    room = min(count, MOST_ITERATIONS)
    return sorted({round(place * (count - 1) / max(room - 1, 1)) for place in range(room)})


def _shown(found: xarray.Dataset, some: Sequence[int]) -> str:
    """Say of how many iterations a table is, if not of all."""
    count = found.sizes["iteration"]
    return "" if len(some) == count else f"; {len(some)} of {count:,} iterations"


def _of(found: xarray.Dataset) -> str:
    """Say of how many training steps a table is."""
    broken = found.attrs["nonfinite_steps"]
    told = f", mean of {found.attrs['recorded_steps']:,} recorded training steps"
    return f"{told}, {broken:,} of them not finite and left out" if broken else told


def _error_flow(found: xarray.Dataset) -> Table:
    some = _some(found.sizes["iteration"])
    columns = [f"at {found.iteration.values[place]}" for place in some]
    title = f"Error flow: ‖e‖ by iteration{_of(found)}{_shown(found, some)}"
    table = _new(title, ["layer"], ["front", *columns, "share\nat end", "half-life"])
    for place, layer in enumerate(found.layer.values):
        front = int(found.front_earliest[place])
        table.add_row(
            str(layer),
            "never" if front < 0 else str(front),
            *(_number(float(found.error_norm_mean[iteration, place])) for iteration in some),
            _number(float(found.energy_share_mean[-1, place]), ".1%"),
            _number(float(found.half_life_mean[place])),
        )
    return table


def _free_energy(found: xarray.Dataset) -> Table:
    step, iteration = found.attrs["first_rise_step"], found.attrs["first_rise_iteration"]
    rises = "; it never rises" if step < 0 else f"; it first rises at step {step}, iteration {iteration}"
    if found.sizes["iteration"] < 2:
        rises = ""  # nothing could
    numbers = ("mean", "standard\ndeviation", "rises in\nsteps", "largest\nrise")
    some = _some(found.sizes["iteration"])
    table = _new(f"Free energy{_of(found)}{_shown(found, some)}{rises}", ["iteration"], numbers)
    for place in some:
        table.add_row(
            str(found.iteration.values[place]),
            _number(float(found.total_mean[place]), ".5g"),
            _number(float(found.total_std[place])),
            f"{int(found.rising_steps[place]):,}",
            _number(float(found.largest_rise[place])),
        )
    return table


def _updates(found: xarray.Dataset) -> Table:
    ratio, variation = float(found.ratio_of_means), float(found.variation_of_means)
    title = f"largest by smallest {_number(ratio)}, coefficient of variation {_number(variation)}"
    table = _new(
        f"Update magnitude{_of(found)}; {title}", ["connection"], ["mean |Δ|", "standard\ndeviation"]
    )
    for place, connection in enumerate(found.connection.values):
        mean, deviation = found.update_magnitude_mean[place], found.update_magnitude_std[place]
        table.add_row(
            f"{connection} → {connection + 1}", _number(float(mean), ".4g"), _number(float(deviation))
        )
    return table


def _events(found: xarray.Dataset) -> Table:
    title = f"Operations and messages of {found.attrs['recorded_steps']:,} recorded training steps"
    numbers = ("layer", "count", "multipli-\ncations", "values", "non-zero", "bytes", "time")
    table = _new(title, ["event"], numbers, names=2)
    for place, event in enumerate(found.event.values):
        for layer in found.layer.values:
            cell = found.isel(event=place, layer=layer)
            if int(cell["count"]):
                table.add_row(
                    f"{event} {cell.kind.item()}" if cell.kind.item() == "message" else str(event),
                    str(layer),
                    f"{int(cell['count']):,}",
                    f"{int(cell.multiplications):,}" if int(cell.multiplications) else "",
                    f"{int(cell['values']):,}" if int(cell["values"]) else "",
                    f"{float(cell.density):.1%}" if int(cell["values"]) else "",
                    f"{int(cell.bytes):,}" if int(cell.bytes) else "",
                    _number(float(cell.time), ".5g"),
                )
    return table


def _sparsity(found: xarray.Dataset) -> Table:
    some = _some(found.sizes["iteration"])
    columns = [f"at {found.iteration.values[place]}" for place in some]
    title = f"Share of zeros by iteration{_shown(found, some)}; silent: f(ĥ) = 0"
    table = _new(title, ["signal"], [*columns, "silent\nat end"])
    for place, signal in enumerate(found.signal.values):
        zeros = (_number(float(found.zero_share[place, iteration]), ".1%") for iteration in some)
        silent = _number(float(found.silent_share[place, -1]), ".1%")
        table.add_row(str(signal).removeprefix("probes/"), *zeros, silent)
    return table


def _range(found: xarray.Dataset) -> Table:
    title = f"Dynamic range, and signed fixed point for {found.attrs['snr']:g} dB (Qinteger.fraction)"
    numbers = ("minimum", "maximum", "smallest\nnon-zero", "zeros", "bits", "format")
    ratios = [name for name in ("predicted_snr", "measured_snr") if name in found]
    extra = found.extra_bits.values if "extra_bits" in found else []
    if short := sum(bits > 0 for bits in extra):
        title += f"; {short} {'misses' if short == 1 else 'miss'} it, +n: by so many fraction bits"
    table = _new(title, ["signal"], [*numbers, *(f"{name.partition('_')[0]}\ndB" for name in ratios)])
    for place, signal in enumerate(found.signal.values):
        one = found.isel(signal=place)
        table.add_row(
            str(signal).removeprefix("probes/"),
            _number(float(one.minimum)),
            _number(float(one.maximum)),
            _number(float(one.smallest_nonzero)),
            _number(float(one.sparsity), ".1%"),
            str(int(one.bits)) + (f" [red]+{extra[place]}[/]" if short and extra[place] else ""),
            f"Q{int(one.integer_bits)}.{int(one.fraction_bits)}",
            *(_number(float(one[name]), ".1f") for name in ratios),
        )
    return table


def _backprop(found: xarray.Dataset) -> Table:
    steps = found.step.values
    title = f"Weight updates against backprop's, angles in degrees, {len(steps):,} recorded training steps"
    at = [f"at step\n{step}, °" for step in (steps[0], steps[-1])]
    numbers = ("mean\nangle, °", *at, "mean ratio\nof lengths")
    table = _new(title, ["connection"], numbers)
    for place, connection in enumerate(found.connection.values):
        table.add_row(
            f"{connection} → {connection + 1}",
            _number(float(found.angle_mean[place]), ".2f"),
            _number(float(found.angle[0, place]), ".2f"),
            _number(float(found.angle[-1, place]), ".2f"),
            _number(float(found.length_ratio_mean[place])),
        )
    return table
