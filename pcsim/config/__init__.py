"""The model file: what a TOML file under `models/` may say, and one clear line where it says something else.

`load_model` reads a file, applies overrides and turns whatever is wrong into a single `ConfigurationError`;
the sections themselves, with a description of every key, are in `sections`.
"""

from pcsim.config.file import load_model, model_from_dict
from pcsim.config.model import ModelConfig
from pcsim.config.sections import (
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
    SgdConfig,
    StatesConfig,
    TraceConfig,
    TrainingConfig,
    UnitHardwareConfig,
)
from pcsim.config.variants import HardwareConfig, LearningConfig

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
