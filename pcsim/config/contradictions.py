"""What no section of a model file can see alone: lengths, layer numbers, settings that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pcsim.architecture import ConvLayer
from pcsim.config.sections import (
    DataConfig,
    FaultsConfig,
    MachineHardwareConfig,
    NetworkConfig,
    NlmsConfig,
    ProbeConfig,
    TrainingConfig,
)
from pcsim.config.variants import HardwareConfig, LearningConfig
from pcsim.config.wording import Problem, contradiction, dotted_key


def of_network(network: NetworkConfig) -> Iterator[Problem]:
    """Yield lists that are not one entry a layer."""
    sizes = network.architecture.sizes
    for key in ("precision", "activity_decay"):
        values = getattr(network, key)
        if values is not None and len(values) != len(sizes):
            yield contradiction(f"network.{key}", list(values), f"{len(sizes)} numbers, one a layer")


def of_data(data: DataConfig, network: NetworkConfig) -> Iterator[Problem]:
    """Yield a file that is not named, and a network that cannot have its input as target."""
    if data.name == "npz" and data.path is None:
        yield Problem("data.path", "data.path is missing: expected the .npz file, as data.name is 'npz'")
    sizes = network.architecture.sizes
    if data.target == "input" and sizes[0] != sizes[-1]:
        expected = "first = last, as data.target is 'input'"
        yield contradiction("network.layers", list(network.layers), expected)


def of_learning(
    learning: LearningConfig, network: NetworkConfig, training: TrainingConfig
) -> Iterator[Problem]:
    """Yield what NLMS cannot learn, or not with so many samples at a time."""
    if not isinstance(learning, NlmsConfig):
        return
    if any(isinstance(layer, ConvLayer) for layer in network.architecture.layers):
        expected = "dense layers only, as learning.rule is 'nlms'"
        yield contradiction("network.layers", list(network.layers), expected)
    if training.batch != 1:
        yield contradiction("training.batch", training.batch, "1, as learning.rule is 'nlms'")


def of_faults(faults: FaultsConfig, last: int) -> Iterator[Problem]:
    """Yield a dead layer that the network does not have, and delays of no time."""
    if faults.dead_layer is not None and faults.dead_layer > last:
        yield contradiction("faults.dead_layer", faults.dead_layer, f"one of the layers 0 to {last}")
    if (faults.delay or faults.reorder) and not faults.delay_time:
        expected = "a number greater than 0, as messages are held back"
        yield contradiction("faults.delay_time", faults.delay_time, expected)


def of_hardware(hardware: HardwareConfig, last: int) -> Iterator[Problem]:
    """Yield a machine file that is missing or of no use, and links that the network does not have."""
    if isinstance(hardware, MachineHardwareConfig):
        from_file = hardware.model == "file"
        if from_file and hardware.path is None:
            yield Problem("hardware.path", "hardware.path is missing: expected a machine file (TOML)")
        if not from_file and hardware.path is not None:
            yield contradiction("hardware.path", hardware.path, "no path unless hardware.model is 'file'")
    for link, latency in hardware.link_latency.items():
        ends = re.fullmatch(r"(0|[1-9][0-9]{0,5})-(0|[1-9][0-9]{0,5})", link)
        source, target = map(int, ends.groups()) if ends else (0, 0)
        if abs(source - target) != 1 or max(source, target) > last:
            expected = f"a link 'source-target' between neighbours among layers 0 to {last}"
            yield contradiction(dotted_key(("hardware", "link_latency", link)), latency, expected)


def of_probe(name: str, probe: ProbeConfig, last: int, batch: int) -> Iterator[Problem]:
    """Yield layers that the network does not have, and samples that no mini-batch has."""
    wrong = [layer for layer in probe.layers if isinstance(layer, int) and not 0 <= layer <= last]
    if wrong:
        expected = f"layers 0 to {last}; there is no layer {wrong[0]}"
        yield contradiction(dotted_key(("probe", name, "layers")), list(probe.layers), expected)
    if isinstance(probe.samples, tuple) and max(probe.samples) >= batch:
        expected = f"indices below {batch}, which is training.batch"
        yield contradiction(dotted_key(("probe", name, "samples")), list(probe.samples), expected)
