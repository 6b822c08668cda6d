"""Sections that come in variants, and the key of each that chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import BeforeValidator, Field

from pcsim.config.sections import (
    AdamConfig,
    MachineHardwareConfig,
    MqConfig,
    NlmsConfig,
    ParametricHardwareConfig,
    Section,
    SgdConfig,
    UnitHardwareConfig,
)

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


Learning = Annotated[LearningConfig, Field(discriminator="rule"), _default_tag("rule", "mq")]
Hardware = Annotated[HardwareConfig, Field(discriminator="model"), _default_tag("model", "unit")]

VARIANTS: Mapping[str, tuple[str, Mapping[str, type[Section]]]] = {
    "learning": ("rule", RULES),
    "hardware": ("model", HARDWARE),
}
