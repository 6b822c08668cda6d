"""The model file as a whole: which sections it has, and that they fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pcsim.config import contradictions
from pcsim.config.sections import (
    NAME,
    DataConfig,
    FaultsConfig,
    MessagesConfig,
    NetworkConfig,
    ProbeConfig,
    ScheduleConfig,
    Section,
    StatesConfig,
    TraceConfig,
    TrainingConfig,
    UnitHardwareConfig,
)
from pcsim.config.variants import Hardware, Learning
from pcsim.config.wording import Problem


class ModelConfig(Section):
    """A whole model file, checked: every value in range, and the sections fit each other."""

    name: str = Field(
        min_length=1,
        pattern=NAME,
        description="name of the model and of its traces: letters, digits, '_', '.' and '-'; the file's stem "
        "if omitted",
    )
    description: str = Field(default="", description="one sentence for reports")
    network: NetworkConfig
    data: DataConfig
    schedule: ScheduleConfig = ScheduleConfig()
    learning: Learning
    training: TrainingConfig
    hardware: Hardware = UnitHardwareConfig()
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
        problems = list(self._contradictions())
        if problems:
            raise PydanticCustomError(
                "contradiction", "{first}", {"first": problems[0].text, "all": problems}
            )
        return self

    def _contradictions(self) -> Iterator[Problem]:
        """Yield what no section can see alone."""
        network, last = self.network, len(self.network.layers) - 1
        yield from contradictions.of_network(network)
        yield from contradictions.of_data(self.data, network)
        yield from contradictions.of_learning(self.learning, network, self.training)
        yield from contradictions.of_faults(self.faults, last)
        yield from contradictions.of_hardware(self.hardware, last)
        for name, probe in self.probe.items():
            yield from contradictions.of_probe(name, probe, last, self.training.batch)


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
