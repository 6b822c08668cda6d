"""The sweep file: what a SWEEP.toml may say, and one clear line where it says something else."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from pcsim.config.sections import NAME, Section, safe_name
from pcsim.errors import ConfigurationError, nearest

Table = dict[str, Any]


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class DrawsConfig(Section):
    """Random settings: so many draws, each of all keys at once."""

    draws: int = Field(ge=1, le=1_000_000, description="how many draws, a whole number from 1 to 1,000,000")
    seed: int = Field(default=0, ge=0, description="seed of the draws, a whole number from 0")
    keys: Table = Field(
        min_length=1,
        description="a table of model-file keys, each a list to choose from or {low = …, high = …}, "
        'with scale = "log" if its logarithm is drawn evenly',
    )


class HalvingConfig(Section):
    """Successive halving: who is among the best after a few epochs may train on."""

    first: int = Field(default=1, ge=1, description="epochs of the first round, a whole number from 1")
    factor: int = Field(
        default=3,
        ge=2,
        description="a whole number from 2: one of so many goes on, and then trains so many times as long",
    )


class SlurmConfig(Section):
    """What SLURM wants to know of a job, which holds one worker."""

    queue: str | None = Field(default=None, description="name of the partition")
    account: str | None = Field(default=None, description="name of the account")
    walltime: str = Field(default="04:00:00", description="text such as 04:00:00")
    memory: str = Field(default="4GB", description="text such as 4GB")
    interface: str | None = Field(
        default=None, description="name of the network interface that workers can reach, such as ib0"
    )
    directives: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description='a list of further directives, such as ["--constraint=haswell"]'
    )
    prologue: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description='a list of shell lines before the worker, such as ["module load python"]'
    )


class SweepConfig(Section):
    """A whole sweep file."""

    name: str = Field(
        pattern=NAME,
        description="a name of letters, digits, '_', '.' and '-'; the file's stem if omitted",
    )
    description: str = Field(default="", description="one sentence")
    model: str = Field(
        min_length=1,
        description="a model file, relative to the sweep file, or the name of one that pcsim ships",
    )
    engine: Literal["fast", "event", "backprop"] = Field(
        default="fast", description="one of fast, event, backprop"
    )
    set: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description='a list of "section.key=value" that hold for all runs'
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] = Field(
        default=(0,),
        description="a list of whole numbers from 0: each setting runs once with each training.seed",
    )
    grid: Annotated[tuple[Table, ...], Field(strict=False), BeforeValidator(_one_or_several)] = Field(
        default=(), description="a table of model-file keys with lists of values, or several such tables"
    )
    random: DrawsConfig | None = Field(default=None, description="a table with draws and keys")
    halving: HalvingConfig | None = Field(default=None, description="a table with first and factor")
    slurm: SlurmConfig = Field(default=SlurmConfig(), description="a table of what SLURM wants to know")


def read_sweep(path: Path) -> SweepConfig:
    """Read a sweep file.

    Raises:
        ConfigurationError: one line with the file, the key, what was given and what was expected.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: expected a readable sweep file (TOML)") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8: expected a TOML file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: broken TOML: {error}") from None
    document.setdefault("name", safe_name(path.stem))
    try:
        return SweepConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """Say the first thing that is wrong; unknown keys first, as a misspelt key explains a missing one."""
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    where = first["loc"]
    section, field = _field(where)
    dotted = ".".join(str(part) for part in where)
    given = repr(first["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    if first["type"] == "extra_forbidden":
        return f"{dotted} = {given}: unknown key: {nearest(str(where[-1]), section.model_fields)}"
    expected = section.model_fields[field].description
    if first["type"] == "missing":
        return f"{dotted} is missing: expected {expected}"
    return f"{dotted} = {given}: expected {expected}"


def _field(where: Sequence[int | str]) -> tuple[type[BaseModel], str]:
    """Return the section that holds the key at a place in the file, and the name of that key."""
    sections: Mapping[str, type[BaseModel]] = {
        "random": DrawsConfig,
        "halving": HalvingConfig,
        "slurm": SlurmConfig,
    }
    top = str(where[0])
    if top in sections and len(where) > 1:
        return sections[top], str(where[1])
    return SweepConfig, top
