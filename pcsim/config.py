"""The model file: what a TOML file under `models/` may say, and one clear line where it says something else.

`load_model` reads a file, applies overrides and turns whatever is wrong into a single `ConfigurationError`;
the sections themselves, with a description of every key, are in `config_sections`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from pcsim.architecture import ConvLayer
from pcsim.config_sections import (
    AdamConfig,
    DataConfig,
    FaultsConfig,
    MachineHardwareConfig,
    MessagesConfig,
    MqConfig,
    NetworkConfig,
    NlmsConfig,
    ParametricHardwareConfig,
    ProbeConfig,
    ScheduleConfig,
    Section,
    SgdConfig,
    StatesConfig,
    TraceConfig,
    TrainingConfig,
    UnitHardwareConfig,
)
from pcsim.errors import ConfigurationError, nearest
from pcsim.shipped import find_model

__all__ = [
    "AdamConfig",
    "DataConfig",
    "FaultsConfig",
    "HardwareConfig",
    "LearningConfig",
    "MachineHardwareConfig",
    "MessagesConfig",
    "ModelConfig",
    "MqConfig",
    "NetworkConfig",
    "NlmsConfig",
    "ParametricHardwareConfig",
    "ProbeConfig",
    "ScheduleConfig",
    "SgdConfig",
    "StatesConfig",
    "TraceConfig",
    "TrainingConfig",
    "UnitHardwareConfig",
    "load_model",
    "model_from_dict",
]

LARGEST_FILE = 2**24  # bytes; a device such as /dev/zero never ends
Location = tuple[int | str, ...]
LearningConfig = SgdConfig | MqConfig | AdamConfig | NlmsConfig
HardwareConfig = UnitHardwareConfig | ParametricHardwareConfig | MachineHardwareConfig

RULES: Mapping[str, type[Section]] = {
    "sgd": SgdConfig,
    "mq": MqConfig,
    "adam": AdamConfig,
    "nlms": NlmsConfig,
}
HARDWARE: Mapping[str, type[Section]] = {
    "unit": UnitHardwareConfig,
    "parametric": ParametricHardwareConfig,
    **dict.fromkeys(get_args(MachineHardwareConfig.model_fields["model"].annotation), MachineHardwareConfig),
}


def _default_tag(key: str, tag: str) -> BeforeValidator:
    """Let the key that chooses between the variants of a section be omitted."""
    return BeforeValidator(lambda value: {key: tag, **value} if isinstance(value, dict) else value)


_Learning = Annotated[LearningConfig, Field(discriminator="rule"), _default_tag("rule", "mq")]
_Hardware = Annotated[HardwareConfig, Field(discriminator="model"), _default_tag("model", "unit")]


class ModelConfig(Section):
    """A whole model file, checked: every value in range, and the sections fit each other."""

    name: str = Field(
        min_length=1, pattern=r"^[\w.-]+$", description="name of the model; the file's stem if omitted"
    )
    description: str = Field(default="", description="one sentence for reports")
    network: NetworkConfig
    data: DataConfig
    schedule: ScheduleConfig = ScheduleConfig()
    learning: _Learning
    training: TrainingConfig
    hardware: _Hardware = UnitHardwareConfig()
    messages: MessagesConfig = MessagesConfig()
    states: StatesConfig = StatesConfig()
    faults: FaultsConfig = FaultsConfig()
    trace: TraceConfig = TraceConfig()
    probe: dict[str, ProbeConfig] = Field(default_factory=dict, description="probes by name")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, fit for JSON; `model_from_dict` takes it back."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _sections_fit(self) -> ModelConfig:
        problems = list(_contradictions(self))
        if problems:
            raise PydanticCustomError(
                "contradiction", "{first}", {"first": problems[0].text, "all": problems}
            )
        return self


SECTIONS: Mapping[str, type[Section]] = {
    "network": NetworkConfig,
    "data": DataConfig,
    "schedule": ScheduleConfig,
    "training": TrainingConfig,
    "messages": MessagesConfig,
    "states": StatesConfig,
    "faults": FaultsConfig,
    "trace": TraceConfig,
    "probe": ProbeConfig,
}
VARIANTS: Mapping[str, tuple[str, Mapping[str, type[Section]]]] = {
    "learning": ("rule", RULES),
    "hardware": ("model", HARDWARE),
}


def load_model(path: str | PathLike[str], overrides: Sequence[str] = ()) -> ModelConfig:
    """Read a model file and apply overrides to it.

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
    document.setdefault("name", path.stem)
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
        problems = _problems(error)
    first = problems[0]
    blamed = next((text for key, text in (overridden or {}).items() if _touches(first.key, key)), None)
    origin = f"{source} (override {_shown(blamed)})" if blamed else source
    more = len(problems) - 1
    tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
    raise ConfigurationError(f"{origin}: {first.text}{tail}") from None


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
            f"{source} (override {_shown(override)}): expected section.key=value, as in schedule.iterations=5"
        )
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{source} (override {_shown(override)}): {_name(part)} = {_shown(table)}: "
                "expected a section before the dot"
            )
    table[parts[-1]] = _parse_value(text.strip())
    return _dotted(tuple(parts)), override


def _parse_value(text: str) -> object:
    """Read a TOML value, or take the text as it is; dates too are text, as no key holds a date."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = parsed.get("value")
    is_value = len(parsed) == 1 and isinstance(value, bool | int | float | str | list | dict)
    return value if is_value else text


class _Problem(NamedTuple):
    """One thing that is wrong: the dotted key it is about, and the line that says so."""

    key: str
    text: str


def _contradiction(key: str, given: object, expected: str) -> _Problem:
    return _Problem(key, f"{key} = {_shown(given)}: expected {expected}")


def _contradictions(model: ModelConfig) -> Iterator[_Problem]:
    """What no section can see alone: lengths, layer numbers, and settings that exclude each other."""
    sizes, last = model.network.architecture.sizes, len(model.network.layers) - 1
    for key in ("precision", "activity_decay"):
        values = getattr(model.network, key)
        if values is not None and len(values) != len(sizes):
            yield _contradiction(f"network.{key}", list(values), f"{len(sizes)} numbers, one a layer")
    if model.data.name == "npz" and model.data.path is None:
        yield _Problem("data.path", "data.path is missing: expected the .npz file, as data.name is 'npz'")
    if model.data.target == "input" and sizes[0] != sizes[last]:
        expected = "first = last, as data.target is 'input'"
        yield _contradiction("network.layers", list(model.network.layers), expected)
    if isinstance(model.learning, NlmsConfig) and any(
        isinstance(layer, ConvLayer) for layer in model.network.architecture.layers
    ):
        expected = "dense layers only, as learning.rule is 'nlms'"
        yield _contradiction("network.layers", list(model.network.layers), expected)
    if isinstance(model.learning, NlmsConfig) and model.training.batch != 1:
        yield _contradiction("training.batch", model.training.batch, "1, as learning.rule is 'nlms'")
    dead = model.faults.dead_layer
    if dead is not None and dead > last:
        yield _contradiction("faults.dead_layer", dead, f"one of the layers 0 to {last}")
    if (model.faults.delay or model.faults.reorder) and not model.faults.delay_time:
        expected = "a number greater than 0, as messages are held back"
        yield _contradiction("faults.delay_time", model.faults.delay_time, expected)
    if isinstance(model.hardware, MachineHardwareConfig):
        from_file = model.hardware.model == "file"
        if from_file and model.hardware.path is None:
            yield _Problem("hardware.path", "hardware.path is missing: expected a machine file (TOML)")
        if not from_file and model.hardware.path is not None:
            yield _contradiction(
                "hardware.path", model.hardware.path, "no path unless hardware.model is 'file'"
            )
    for link in model.hardware.link_latency:
        ends = re.fullmatch(r"(0|[1-9][0-9]{0,5})-(0|[1-9][0-9]{0,5})", link)
        source, target = map(int, ends.groups()) if ends else (0, 0)
        if abs(source - target) != 1 or max(source, target) > last:
            key = _dotted(("hardware", "link_latency", link))
            expected = f"a link 'source-target' between neighbours among layers 0 to {last}"
            yield _contradiction(key, model.hardware.link_latency[link], expected)
    for name, probe in model.probe.items():
        wrong = [layer for layer in probe.layers if isinstance(layer, int) and not 0 <= layer <= last]
        if wrong:
            key = _dotted(("probe", name, "layers"))
            yield _contradiction(key, list(probe.layers), f"layers 0 to {last}; there is no layer {wrong[0]}")
        if isinstance(probe.samples, tuple) and max(probe.samples) >= model.training.batch:
            key = _dotted(("probe", name, "samples"))
            expected = f"indices below {model.training.batch}, which is training.batch"
            yield _contradiction(key, list(probe.samples), expected)


def _problems(error: ValidationError) -> list[_Problem]:
    """Everything that is wrong, unknown keys first: a misspelt key explains why another one is missing."""
    details = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    if details[0]["type"] == "contradiction":
        return list(details[0]["ctx"]["all"])
    return [_problem(one) for one in details]


def _problem(details: ErrorDetails) -> _Problem:
    """Say one pydantic error in this program's words."""
    kind, context = details["type"], details.get("ctx", {})
    location = _without_tag(details["loc"])
    key = str(location[-1])
    dotted, given = _dotted(location), _shown(details["input"])
    if kind == "extra_forbidden":
        return _Problem(dotted, f"{dotted} = {given}: {_unknown_key(details['loc'])}")
    if kind == "missing":
        description = _section_of(details["loc"]).model_fields[key].description
        return _Problem(dotted, f"{dotted} is missing: expected {description}")
    if kind == "union_tag_invalid":
        tag_key = VARIANTS[key][0]
        dotted, given = f"{dotted}.{tag_key}", _shown(details["input"][tag_key])
    if kind in ("literal_error", "union_tag_invalid"):
        names = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
        hint = nearest(given, names)
        # Without a near name, `nearest` lists them all, and they are listed already.
        tail = f"; {hint}" if hint.startswith("did you mean") else ""
        return _Problem(dotted, f"{dotted} = {given}: expected one of {', '.join(names)}{tail}")
    return _Problem(dotted, f"{dotted} = {given}: expected {_expected(kind, context, details['msg'])}")


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What a value should have been; kinds without a wording of ours keep pydantic's."""
    wordings = {
        "int_type": "a whole number",
        "float_type": "a number",
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
    return f"unknown {'key' if len(location) > 1 else 'section'}: {nearest(key, section.model_fields)}"


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


def _touches(key: str, other: str) -> bool:
    """Whether one dotted key is the other or lies in it, as `probe.a` does with `probe.a.layers[0]`."""
    outer, inner = sorted((key, other), key=len)
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))


def _dotted(location: Location) -> str:
    """Write a location as in the file: `network.layers[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in location)[1:]


def _name(part: str) -> str:
    return part if part.isprintable() else repr(part)


def _shown(value: object) -> str:
    """Write a value on one line of bounded length."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
