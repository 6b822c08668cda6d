"""Writes the tables of `model-file.md` from the descriptions in `pcsim.config.sections`.

`python docs/model_file.py` renews the page in place; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcsim.config import ModelConfig, model_from_dict
from pcsim.training.datasets.npz import LAYOUT

PAGE = Path(__file__).with_name("model-file.md")
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
SMALLEST = model_from_dict(
    {
        "name": "smallest",
        "network": {"layers": [1, 1]},
        "data": {"name": "digits"},
        "learning": {"rate": 1.0},
        "training": {"epochs": 1},
    }
)
BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def renewed(page: str) -> str:
    """Return the page with the tables of today."""
    for name, text in (("layout", layout()), ("keys", keys())):
        begin, end = f"<!-- {name}: begin, written by docs/model_file.py -->\n", f"<!-- {name}: end -->\n"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    return page


def layout() -> str:
    """Return a table of the arrays of a data set of one's own."""
    rows = [f"| `{name}` | {shape} | {kind} |" for name, (shape, kind) in LAYOUT.items()]
    return "\n".join(["| array | shape | type |", "|---|---|---|", *rows]) + "\n"


def keys() -> str:
    """Return a heading and a table for each section, and for each variant of one."""
    schema = ModelConfig.model_json_schema()
    sections = {name: one for name, one in schema["properties"].items() if not _is_plain(one)}
    plain = {name: one for name, one in schema["properties"].items() if _is_plain(one)}
    parts = ["### Above all sections\n\n", _table(plain, ()), "\n"]
    for name, one in sections.items():
        required = name in schema.get("required", ())
        parts += _section(name, one, schema["$defs"], required)
    return "".join(parts).rstrip("\n") + "\n"


def _is_plain(one: dict[str, Any]) -> bool:
    return one.get("type") == "string"


def _section(name: str, one: dict[str, Any], models: dict[str, Any], required: bool) -> list[str]:
    """Return the part about a section; of variants, one table each, the keys that all have included."""
    if "discriminator" in one:
        key, chosen = one["discriminator"]["propertyName"], one["discriminator"]["mapping"]
        variants: dict[str, list[str]] = {}
        for value, model in chosen.items():
            variants.setdefault(model, []).append(f'"{value}"')
        default = getattr(getattr(SMALLEST, name), key)
        parts = [f'### [{name}]\n\n`{key}` chooses the keys; `"{default}"` if omitted.\n']
        for model in [entry["$ref"] for entry in one["oneOf"]]:
            found = models[model.rpartition("/")[2]]
            values = " or ".join(variants[model])
            others = {entry: value for entry, value in found["properties"].items() if entry != key}
            parts.append(f"\n**`{key} = {values}`** {_sentence(found['description'])}\n\n")
            parts.append(_table(others, found.get("required", ())) if others else "No other key.\n")
        return [*parts, "\n"]
    many = "additionalProperties" in one
    found = models[(one["additionalProperties"] if many else one)["$ref"].rpartition("/")[2]]
    title = f"{name}.NAME" if many else name
    may = "" if required else " May be left out."
    several = " As many as you like, each with a name of its own." if many else may
    text = f"### [{title}]\n\n{_sentence(found['description'])}{several}\n\n"
    return [text, _table(found["properties"], found.get("required", ())), "\n"]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _table(properties: dict[str, Any], required: Sequence[str]) -> str:
    """Return a table of keys."""
    rows = ["| key | type and range | default | meaning |", "|---|---|---|---|"]
    for key, one in properties.items():
        default = "*required*" if key in required else _default(one)
        rows.append(f"| `{key}` | {_type(one)} | {default} | {_escaped(one['description'])} |")
    return "\n".join(rows) + "\n"


def _default(one: dict[str, Any]) -> str:
    value = one.get("default")
    return "–" if value in (None, "", {}) else f"`{json.dumps(value)}`"


def _type(one: dict[str, Any]) -> str:
    """Say in words what a value may be."""
    options = [entry for entry in one.get("anyOf", one.get("oneOf", [])) if entry.get("type") != "null"]
    if options:
        return ", or ".join(_type(entry) for entry in options)
    if "enum" in one or "const" in one:
        return ", ".join(f'`"{value}"`' for value in one.get("enum", [one.get("const")]))
    if one["type"] == "array":
        least = f" of {one['minItems']} or more" if "minItems" in one else ""
        return f"list{least}: {_type(one['items'])}"
    if one["type"] == "object":
        return f"table: {_type(one['additionalProperties'])}"
    bounds = [f"{sign} {one[name]:,}" for name, sign in BOUNDS if name in one]
    return " ".join([WORDS[one["type"]], ", ".join(bounds)]).strip()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
