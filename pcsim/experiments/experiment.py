"""Everything that one training run needs, as objects; a model file is one way to get there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pcsim.config import (
    AdamConfig,
    DataConfig,
    FaultsConfig,
    HardwareConfig,
    LearningConfig,
    MachineHardwareConfig,
    MessagesConfig,
    ModelConfig,
    MqConfig,
    NetworkConfig,
    ParametricHardwareConfig,
    SgdConfig,
    StatesConfig,
)
from pcsim.errors import ConfigurationError, check_kind, refuse_unless, whole
from pcsim.experiments.pricing import machine_hardware
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.hardware.machine import load_machine
from pcsim.learning import MQ, NLMS, SGD, Adam, LearningRule
from pcsim.network.network import Network, check_rule
from pcsim.schedule.channel import PLAIN, Channels, Dead, Faults, Messages, Rounding
from pcsim.schedule.precisions import CONSTANT, check_mini_batch, check_precisions
from pcsim.schedule.program import Schedule
from pcsim.tracing.probes import Probe
from pcsim.tracing.table import Storage
from pcsim.tracing.writer import WAITING_BYTES
from pcsim.training.data import Dataset, load_dataset


@dataclass(frozen=True)
class Experiment:
    """A network, what it learns, how, and what is recorded.

    Attributes:
        network: trained in place.
        dataset: training and test samples.
        rule: how connections learn.
        schedule: when layers act.
        batch: samples a mini-batch.
        epochs: passes through the training set.
        seed: of the order of samples.
        shuffle: whether each epoch draws a new order.
        hardware: what the clock believes.
        channels: what happens to messages on their way, and to the activities that layers keep.
        probes: what is recorded besides the summary.
        record_every: training steps from one summary row, and one timeline, to the next.
        flush_seconds: longest time that records stay in memory.
        storage: compression and chunks of the trace, where a probe has none of its own.
        buffer_bytes: of records that may wait for the disk; 0 writes at once, without a thread.
        events: whether timelines are recorded (by the event engine).
        name: for tables and file names.
        configuration: kept with the trace.

    Raises:
        ConfigurationError: one of them is of another type, out of its range, or does not go with the others.
    """

    network: Network
    dataset: Dataset
    rule: LearningRule
    schedule: Schedule = field(default_factory=Schedule)
    batch: int = 64
    epochs: int = 1
    seed: int = 0
    shuffle: bool = True
    hardware: Hardware = field(default_factory=unit)
    channels: Channels = PLAIN
    probes: tuple[Probe, ...] = ()
    record_every: int = 10
    flush_seconds: float = 1.0
    storage: Storage = field(default_factory=Storage)
    buffer_bytes: int = WAITING_BYTES
    events: bool = True
    name: str = "experiment"
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say who learns what and how, but no arrays."""
        told = self.network, self.dataset, self.rule, self.schedule
        return (
            f"Experiment({self.name}; {', '.join(map(repr, told))}; batch {self.batch}, {self.epochs} epochs)"
        )

    def __post_init__(self) -> None:
        check_kind("network", self.network, Network)
        check_kind("dataset", self.dataset, Dataset)
        check_rule("rule", self.rule)
        check_kind("schedule", self.schedule, Schedule)
        check_kind("hardware", self.hardware, Hardware)
        for setting, kind in (("storage", Storage), ("channels", Channels)):
            given = getattr(self, setting)
            expected = f"a pcsim.{kind.__module__.removeprefix('pcsim.')}.{kind.__name__}"
            refuse_unless(isinstance(given, kind), setting, given, expected)
        refuse_unless(isinstance(self.shuffle, bool), "shuffle", self.shuffle, "True or False")
        refuse_unless(
            isinstance(self.probes, tuple | list) and all(isinstance(one, Probe) for one in self.probes),
            "probes",
            self.probes,
            "a tuple of probes, as in (pcsim.Probe('all', ('activity',)),)",
        )
        for name, least in (("batch", 1), ("epochs", 0), ("seed", 0), ("record_every", 1)):
            number = getattr(self, name)
            refuse_unless(whole(number, least), name, number, f"a whole number from {least}")
            object.__setattr__(self, name, int(number))  # JSON knows none of NumPy's
        precisions = self.schedule.precisions
        check_precisions(precisions, self.network)
        check_mini_batch(precisions, self.batch)
        if precisions != CONSTANT and self.channels.active:
            raise ConfigurationError(
                f"schedule.precisions = '{precisions}': expected a model without messages, states and "
                "faults, as norms and predictions share a link"
            )

    @property
    def training_steps(self) -> int:
        """Mini-batches of the whole run; a last short one of each epoch is dropped."""
        return self.training_steps_until(self.epochs)

    def training_steps_until(self, epoch: int) -> int:
        """Mini-batches up to the end of an epoch, counted from 1."""
        return len(self.dataset.train_inputs) // self.batch * epoch

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the numbers, fit for JSON, whether or not there was a model file.

        But for the engine and its clock, which `pcsim.experiments.task.Task` adds.
        """
        schedule = self.schedule
        refreshed = {} if schedule.precisions == CONSTANT else {"precisions": schedule.precisions}
        channels = {"channels": self.channels.describe()} if self.channels.active else {}
        return {
            "network": self.network.describe(),
            "schedule": {
                "order": schedule.name,
                "iterations": schedule.iterations,
                "step_size": schedule.step_size,
                "step_decay": schedule.step_decay,
            }
            | refreshed,
            "learning": describe_rule(self.rule),
            "data": self.dataset.name,
            "samples": self.dataset.digest(),
            "training": {name: getattr(self, name) for name in ("batch", "epochs", "seed", "shuffle")},
        } | channels

    @classmethod
    def from_model(cls, model: ModelConfig) -> Experiment:
        """Build what a model file describes: loads the data set, draws the initial weights.

        Raises:
            DataError: the data set is missing or damaged.
            ConfigurationError: values that do not go together.
        """
        training = model.training
        network, rule = build_network(model.network, training.seed), build_rule(model.learning)
        schedule = Schedule(**model.schedule.model_dump())
        return cls(
            network=network,
            dataset=build_dataset(model.data),
            rule=rule,
            schedule=schedule,
            batch=training.batch,
            epochs=training.epochs,
            seed=training.seed,
            shuffle=training.shuffle,
            hardware=build_hardware(model.hardware, network, training.batch, rule, schedule),
            channels=build_channels(model.messages, model.states, model.faults),
            probes=tuple(
                Probe(
                    name,
                    probe.record,
                    None if probe.layers == "all" else probe.layers,
                    probe.samples,
                    probe.every,
                    probe.dtype,
                    probe.compression,
                    None if probe.chunk_kib is None else probe.chunk_kib * 2**10,
                )
                for name, probe in model.probe.items()
            ),
            record_every=model.trace.every,
            flush_seconds=model.trace.flush_seconds,
            storage=Storage(model.trace.compression, model.trace.chunk_kib * 2**10),
            buffer_bytes=model.trace.buffer_mib * 2**20,
            events=model.trace.events,
            name=model.name,
            configuration=model.to_dict(),
        )


def describe_rule(rule: LearningRule) -> str:
    """Return what a rule is called and its constants: the same in every process, so without addresses."""
    named = getattr(rule, "__qualname__", None)  # a function or a class
    if named is None and type(rule).__repr__ is object.__repr__:
        constants = ", ".join(f"{name}={value!r}" for name, value in vars(rule).items())
        named = f"{type(rule).__qualname__}({constants})"
    return without_addresses(named or repr(rule))


def without_addresses(text: str) -> str:
    """Return what Python says of an object without where it lies in this process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def check_channels(experiment: Experiment, engine: str) -> None:
    """Refuse channels that an engine or the network cannot have, before anything is begun.

    Raises:
        ConfigurationError: says which, and what to do.
    """
    channels = experiment.channels
    channels.check(experiment.network)
    if engine == "fast":
        channels.faults.check_timeless()
    if engine == "backprop" and channels.active:
        raise ConfigurationError(
            "backprop sends no messages: expected a model without messages, states and faults"
        )


def build_network(network: NetworkConfig, seed: int) -> Network:
    """Return the network of a model file."""
    return Network.build(
        network.architecture,
        activation=network.activation,
        output=network.output,
        proximal_step=network.proximal_step if network.clamp == "soft" else float("inf"),
        precision=network.precision,
        activity_decay=network.activity_decay,
        dtype=network.dtype,
        seed=seed,
        learn_output_from=network.learn_output_from,
    )


def build_dataset(data: DataConfig) -> Dataset:
    """Load the data set of a model file."""
    return load_dataset(
        data.name,
        path=data.path,
        directory=data.directory,
        test_fraction=data.test_fraction,
        split_seed=data.split_seed,
        target=data.target,
        validation_fraction=data.validation_fraction,
    )


def build_rule(learning: LearningConfig) -> LearningRule:
    """Return the learning rule of a model file."""
    match learning:
        case SgdConfig():
            return SGD(learning.rate)
        case MqConfig():
            return MQ(learning.rate, learning.minimum_rate, learning.r, learning.decay)
        case AdamConfig():
            return Adam(learning.rate, learning.beta1, learning.beta2, learning.epsilon)
        case _:
            return NLMS()


def build_channels(messages: MessagesConfig, states: StatesConfig, faults: FaultsConfig) -> Channels:
    """Return what a model file says about messages, activities and faults."""
    same = messages.rounding, messages.seed
    threshold = messages.threshold if messages.error_threshold is None else messages.error_threshold
    chances = faults.model_dump()
    layer, share, step = (chances.pop(f"dead_{name}") for name in ("layer", "share", "step"))
    return Channels(
        Messages(messages.threshold, Rounding(messages.format, *same)),
        Messages(threshold, Rounding(messages.error_format or messages.format, *same)),
        Faults(**chances, dead=None if layer is None else Dead(layer, share, step)),
        Rounding(**states.model_dump()),
    )


def build_links(hardware: HardwareConfig) -> Links:
    """Return what a model file adds to the time of messages."""
    ends = {link: link.split("-") for link in hardware.link_latency}
    return Links(
        hardware.latency,
        {(int(ends[link][0]), int(ends[link][1])): time for link, time in hardware.link_latency.items()},
        hardware.jitter,
        hardware.seed,
    )


def build_hardware(
    hardware: HardwareConfig, network: Network, batch: int, rule: LearningRule, schedule: Schedule
) -> Hardware:
    """Return the hardware of a model file.

    Raises:
        ConfigurationError: a machine file that is none, or without prices in time.
    """
    links = build_links(hardware)
    if isinstance(hardware, MachineHardwareConfig):
        machine = load_machine(hardware.path or hardware.model)
        return machine_hardware(machine, network, batch, rule, schedule, links)
    if not isinstance(hardware, ParametricHardwareConfig):
        return unit(links)
    return Hardware(
        time_per_operation=hardware.time_per_operation,
        time_per_multiplication=hardware.time_per_multiplication,
        time_per_message=hardware.time_per_message,
        time_per_byte=hardware.time_per_byte,
        links=links,
    )
