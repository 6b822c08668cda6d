"""What pydantic finds wrong in a model file, in this program's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pcsim.config.model import SECTIONS, ModelConfig
from pcsim.config.sections import Section
from pcsim.config.variants import VARIANTS
from pcsim.config.wording import Location, Problem, dotted_key, shown
from pcsim.errors import closest, nearest


def problems_of(error: ValidationError) -> list[Problem]:
    """Everything that is wrong, unknown keys first: a misspelt key explains why another one is missing."""
    details = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    if details[0]["type"] == "contradiction":
        return list(details[0]["ctx"]["all"])
    return [_problem(one) for one in details]


def _problem(details: ErrorDetails) -> Problem:
    """Say one pydantic error in this program's words."""
    kind, context = details["type"], details.get("ctx", {})
    location = _without_tag(details["loc"])
    key = str(location[-1])
    dotted, given = dotted_key(location), shown(details["input"])
    if kind == "extra_forbidden":
        return Problem(dotted, f"{dotted} = {given}: {_unknown_key(details['loc'])}")
    if kind == "missing":
        description = _section_of(details["loc"]).model_fields[key].description
        return Problem(dotted, f"{dotted} is missing: expected {description}")
    if kind == "union_tag_invalid":
        tag_key = VARIANTS[key][0]
        dotted, given = f"{dotted}.{tag_key}", shown(details["input"][tag_key])
    if kind in ("literal_error", "union_tag_invalid"):
        names = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
        hint = closest(given, names)
        tail = f"; {hint}" if hint else ""
        return Problem(dotted, f"{dotted} = {given}: expected one of {', '.join(names)}{tail}")
    return Problem(dotted, f"{dotted} = {given}: expected {expected(kind, context, details['msg'])}")


def expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What a value should have been; kinds without a wording of ours keep pydantic's."""
    wordings = {
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text",
        "tuple_type": "a list",
        "greater_than": "a number greater than {gt:g}",
        "greater_than_equal": "a number of at least {ge:g}",
        "less_than": "a number less than {lt:g}",
        "less_than_equal": "a number of at most {le:g}",
        "too_short": "a list of {min_length} or more",
        "string_too_short": "text that is not empty",
        "string_pattern_mismatch": "letters, digits, '_', '.' and '-' only",
    }
    wordings |= dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table of keys")
    return wordings.get(kind, message.removeprefix("Input should be ")).format(**context)


def _unknown_key(location: Location) -> str:
    """Why a key is refused: misspelt, or one of another variant of its section."""
    key, section = str(location[-1]), _section_of(location)
    tag_key, variants = VARIANTS.get(str(location[0]), ("", {}))
    owners = [name for name, variant in variants.items() if key in variant.model_fields]
    if owners:
        takes = ", ".join(name for name in section.model_fields if name != tag_key)
        return (
            f"not used by {tag_key} '{location[1]}' but by {', '.join(owners)}: "
            f"expected {takes or 'no other key'}; remove it or change {location[0]}.{tag_key}"
        )
    if len(location) > 1:
        return f"unknown key: {nearest(key, section.model_fields)}"
    if places := _places_of(key):
        return f"no section has this name: did you mean {' or '.join(places)}?"
    return f"unknown section: {nearest(key, section.model_fields)}"


def _places_of(key: str) -> list[str]:
    """Where a key belongs that stands without its section: `schedule.iterations`."""
    fields = {name: set(section.model_fields) for name, section in SECTIONS.items()}
    for name, (_, variants) in VARIANTS.items():
        fields[name] = {field for variant in variants.values() for field in variant.model_fields}
    return [f"{'probe.NAME' if name == 'probe' else name}.{key}" for name in fields if key in fields[name]]


def _section_of(location: Location) -> type[Section]:
    """The model that holds the key at a pydantic location."""
    if len(location) == 1:
        return ModelConfig
    if location[0] in VARIANTS:
        return VARIANTS[str(location[0])][1][str(location[1])]
    return SECTIONS[str(location[0])]


def _without_tag(location: Location) -> Location:
    """Pydantic puts the variant's name into the location, which no key of the file has."""
    if location[:2] == ("network", "layers"):
        return location[:2] + location[3:]
    return location[:1] + location[2:] if location[0] in VARIANTS else location
