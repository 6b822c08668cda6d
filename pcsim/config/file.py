"""Reads model files: TOML, overrides from the command line, and one clear line for whatever is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pcsim.config.model import ModelConfig
from pcsim.config.problems import problems_of
from pcsim.config.sections import safe_name
from pcsim.config.wording import Problem, dotted_key, one_key, shown, touches
from pcsim.errors import ConfigurationError
from pcsim.shipped import find_model

MOST_TOLD = 3  # problems in one line
MOST_NAMED = 5  # keys of further ones
LARGEST_FILE = 2**24  # bytes; a device such as /dev/zero never ends


def load_model(path: str | PathLike[str], overrides: Sequence[str] = ()) -> ModelConfig:
    """Read a model file and apply overrides to it; `pcsim.Experiment.from_model` makes what can be run of it.

    Args:
        path: TOML file, or the name of a shipped model, such as "digits".
        overrides: "section.key=value" each, later ones win; the value is read as TOML, and where it is none
            as bare text: `schedule.order=simultaneous`, `network.layers=[64,32,10]`.

    Raises:
        ConfigurationError: one line with file, key, what was given, what was expected, and the nearest
            right name where one is misspelt.
    """
    path = find_model(path)
    document = _read(path)
    overridden = dict(_override(document, override, str(path)) for override in overrides)
    document.setdefault("name", safe_name(path.stem))
    return model_from_dict(document, str(path), overridden)


def model_from_dict(
    document: Mapping[str, Any], source: str = "model", overridden: Mapping[str, str] | None = None
) -> ModelConfig:
    """Check a model that is a dictionary already: a parsed file, or what `ModelConfig.to_dict` gave.

    Args:
        document: sections by name.
        source: what an error names as the origin.
        overridden: override text by dotted key, so that an error blames the override and not the file.

    Raises:
        ConfigurationError: as `load_model`.
    """
    try:
        # An absent section is an empty one: the error then names the key that is missing.
        return ModelConfig.model_validate(
            {"network": {}, "data": {}, "learning": {}, "training": {}, **document}
        )
    except ValidationError as error:
        problems = problems_of(error)
    raise ConfigurationError(f"{source}{_in_one_line(problems, overridden or {})}") from None


def _in_one_line(problems: Sequence[Problem], overridden: Mapping[str, str]) -> str:
    """Say what is wrong and which override is to blame; of the problems after the first few only the keys."""
    parts: list[str] = []
    last = ""
    for one in problems[:MOST_TOLD]:
        blamed = next((text for key, text in overridden.items() if touches(one.key, key)), "")
        origin = f"(override {shown(blamed)})" if blamed else "(in the file)" if last else ""
        if not parts:
            parts.append(f" {origin}: {one.text}" if origin else f": {one.text}")
        else:
            parts.append(f"; {origin} {one.text}" if origin and blamed != last else f"; {one.text}")
        last = blamed
    if others := [one.key for one in problems[MOST_TOLD:]]:
        parts.append(f"; also wrong: {', '.join(others[:MOST_NAMED])}")
        parts.append(f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else "")
    return "".join(parts)


def _read(path: Path) -> dict[str, Any]:
    """Parse a TOML file; every way in which that can fail is a `ConfigurationError`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: expected a readable model file (TOML)") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8: expected a TOML file") from None
    if len(content) > LARGEST_FILE:
        raise ConfigurationError(f"{path}: more than {LARGEST_FILE} bytes: expected a model file (TOML)")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).replace("end of document", f"line {len(text.splitlines())}, the end of the file")
        raise ConfigurationError(f"{path}: broken TOML: {reason}") from None


def _override(document: dict[str, Any], override: str, source: str) -> tuple[str, str]:
    """Put one override into the document in place; returns its dotted key and its text."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigurationError(
            f"{source} (override {shown(override)}): expected section.key=value, as in schedule.iterations=5"
        )
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{source} (override {shown(override)}): {one_key(part)} = {shown(table)}: "
                "expected a section before the dot"
            )
    table[parts[-1]] = _parse_value(text.strip())
    return dotted_key(tuple(parts)), override


def _parse_value(text: str) -> object:
    """Read a TOML value, or take the text as it is; dates too are text, as no key holds a date."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = parsed.get("value")
    is_value = len(parsed) == 1 and isinstance(value, bool | int | float | str | list | dict)
    return value if is_value else text
