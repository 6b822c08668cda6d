"""The sections of a model file: one frozen pydantic model each, every field with its own description.

`pcsim.config` puts them together, reads files and words the errors; import the sections from there.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from pcsim.architecture import Architecture, DenseLayer, parse
from pcsim.errors import ConfigurationError


def _each_once(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list that names something twice: it would be recorded twice under one name."""
    if len(set(entries)) < len(entries):
        raise PydanticCustomError("repeated", "each entry once")
    return entries


def _fitting(layers: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse words that are no layers, or layers that do not fit each other."""
    try:
        parse(layers)
    except ConfigurationError as error:
        raise PydanticCustomError("layers", "layers that fit: {reason}", {"reason": str(error)}) from None
    return layers


def _number_format(name: str) -> str:
    """Refuse what names no number format; `pcsim.schedule.number_format` reads it."""
    fixed = re.fullmatch(r"[Qq](-?\d{1,2})\.(-?\d{1,2})", name)
    if name not in ("float16", "bfloat16", "float32") and not (
        fixed and 2 <= 1 + int(fixed[1]) + int(fixed[2]) <= 53
    ):
        raise PydanticCustomError(
            "number_format", "float16, bfloat16, float32 or Qm.n of 2 to 53 bits, such as Q3.12"
        )
    return name


def _in_words(layers: object) -> str:
    """Return which form a list of layers has, so that its errors are about that form."""
    entries = layers if isinstance(layers, list | tuple) else ()
    return "words" if any(isinstance(entry, str) for entry in entries) else "sizes"


def safe_name(stem: str) -> str:
    """Return a file's stem as a name for files: whatever `NAME` has not becomes a dash."""
    return re.sub(r"[^\w.-]+", "-", stem).strip("-") or "model"


NAME = r"^[\w.-]+$"
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
# TOML has lists, frozen models want tuples: only the container is converted, its entries stay strict.
Sizes = Annotated[tuple[Count, ...], Field(strict=False, min_length=2)]
Words = Annotated[tuple[str, ...], Field(strict=False, min_length=2), AfterValidator(_fitting)]
Layers = Annotated[Annotated[Sizes, Tag("sizes")] | Annotated[Words, Tag("words")], Discriminator(_in_words)]
Positives = Annotated[tuple[Positive, ...], Field(strict=False)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
NumberFormatName = Annotated[str, AfterValidator(_number_format)]
NotNegatives = Annotated[tuple[NotNegative, ...], Field(strict=False)]
Recordable = Literal["activity", "error", "prediction", "message", "weight", "update", "bias", "bias_update"]
Compression = Literal["none", "gzip", "lzf", "zstd"]
Kibibytes = Annotated[int, Field(ge=1, le=65_536)]
Record = Annotated[tuple[Recordable, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]


class Section(BaseModel):
    """What all sections share: immutable, no unknown keys, no silent conversions, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkConfig(Section):
    """The network: layer sizes, non-linearities, and the weights of the terms of the free energy."""

    layers: Layers = Field(
        description="layer sizes from input to output, at least 2, each at least 1; or in words, such as "
        "'3x32x32', 'conv 64 5x5/2', 'conv 64 5x5/1 max 2', 'dense 10'"
    )
    activation: Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"] = Field(
        default="relu", description="f, the non-linearity of the hidden layers; of a conv, after its weights"
    )
    output: Literal["softmax", "sigmoid", "identity"] = Field(
        default="softmax",
        description="output function: softmax for classes, sigmoid for [0, 1], identity else",
    )
    clamp: Literal["soft", "hard"] = Field(
        default="soft",
        description="soft: the output activity is a mix of target and prediction; hard: the target",
    )
    proximal_step: Positive = Field(
        default=100.0,
        description="beta; the soft clamp takes 1/(1 + beta) of the prediction, the rest of the target",
    )
    precision: Positives | None = Field(
        default=None,
        description="weight of half the squared error of each layer, one a layer; all 1 if omitted",
    )
    activity_decay: NotNegatives | None = Field(
        default=None,
        description="weight of half the squared activity of each layer, one a layer; all 0 if omitted",
    )
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="number type of all arithmetic"
    )
    learn_output_from: Literal["activity", "label"] = Field(
        default="activity",
        description="what the output error of the learning phase starts from: the clamped activity, or the "
        "label itself",
    )

    @property
    def architecture(self) -> Architecture:
        """The shapes that `layers` gives, in either form."""
        first, *others = self.layers
        if isinstance(first, int):
            return Architecture((first,), tuple(DenseLayer(int(size)) for size in others))
        return parse([str(layer) for layer in self.layers])


class DataConfig(Section):
    """The data set, where it lies, and what the network has to answer."""

    name: Literal["digits", "fashion-mnist", "mnist", "cifar-10", "svhn", "tiny-imagenet", "npz"] = Field(
        description="data set: digits, fashion-mnist, mnist, cifar-10, svhn, tiny-imagenet or npz"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="the set's own folder or archive, or the .npz file, relative to the current folder; if "
        "omitted, the set's folder in data.directory",
    )
    directory: str | None = Field(
        default=None,
        min_length=1,
        description="folder with a folder for each set, relative to the current folder; PCSIM_DATA or "
        "~/.cache/pcsim/data if omitted",
    )
    test_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="share of the samples kept for testing, where the set has no own split",
    )
    validation_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the training samples that are held out as a validation set, of each class",
    )
    split_seed: Seed = Field(default=0, description="seed of these splits")
    target: Literal["label", "input"] = Field(
        default="label",
        description="label: learn the set's targets; input: autoencoder, targets are x * 0.99 + 0.005",
    )


class ScheduleConfig(Section):
    """When layers act in the inference phase, how often and how far."""

    order: Literal["simultaneous", "sequential", "bottom-up", "red-black", "incremental", "asynchronous"] = (
        Field(default="sequential", description="the order in which layers relax within an iteration")
    )
    iterations: int = Field(default=3, ge=0, le=100_000, description="T, inference iterations a mini-batch")
    step_size: Positive = Field(default=0.05, description="epsilon, step of the activity updates")
    step_decay: Literal["harmonic", "none"] = Field(
        default="harmonic",
        description="harmonic: iteration t takes step_size / (1 + t); none: always step_size",
    )
    precisions: Literal["constant", "theorem 1", "theorem 1 as printed", "theorem 1 with printed decay"] = (
        Field(
            default="constant",
            description="constant: network.precision; theorem 1: refreshed from the state of one sample, "
            "beta is network.proximal_step; as printed in the paper; or with its decay only (docs/theory.md)",
        )
    )


class SgdConfig(Section):
    """Plain gradient steps on the weights."""

    rule: Literal["sgd"] = Field(default="sgd", description="learning rule")
    rate: Positive = Field(description="learning rate, a number greater than 0")


class MqConfig(Section):
    """MQ: one learning rate a matrix, from a running mean of the gradient's absolute values."""

    rule: Literal["mq"] = Field(default="mq", description="learning rule")
    rate: Positive = Field(description="learning rate, a number greater than 0")
    minimum_rate: NotNegative = Field(default=1e-3, description="alpha_min, added to every adapted rate")
    r: Positive = Field(default=1e-6, description="keeps the division by the running mean finite")
    decay: float = Field(default=0.9999, ge=0, le=1, description="rho, decay of the running mean")


class AdamConfig(Section):
    """Adam on the local gradients, one optimizer a layer."""

    rule: Literal["adam"] = Field(default="adam", description="learning rule")
    rate: Positive = Field(description="learning rate, a number greater than 0")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the second moment")
    epsilon: Positive = Field(default=1e-8, description="keeps the division by the second moment finite")


class NlmsConfig(Section):
    """Normalised least mean squares: the rate follows from the activities, so there is none to set."""

    rule: Literal["nlms"] = Field(default="nlms", description="learning rule; needs training.batch = 1")


class TrainingConfig(Section):
    """How long to train and on what mini-batches."""

    epochs: int = Field(ge=0, description="passes over the training set, at least 0")
    batch: Count = Field(default=64, description="samples a mini-batch; a last short one is dropped")
    seed: Seed = Field(default=0, description="seed of initial weights and shuffling")
    shuffle: bool = Field(
        default=True, description="whether each epoch takes the samples in a new random order"
    )


class UnitHardwareConfig(Section):
    """A clock that charges one unit of time an operation."""

    model: Literal["unit"] = Field(default="unit", description="cost model")
    jitter: NotNegative = Field(
        default=0.0,
        description="a message takes up to this much time more, uniformly at random; units of time",
    )
    latency: NotNegative = Field(
        default=0.0, description="units of time added to every message, unless `link_latency` names its link"
    )
    link_latency: dict[str, NotNegative] = Field(
        default_factory=dict,
        description='units of time on single links instead of `latency`, such as {"0-1" = 2.5}',
    )
    seed: Seed = Field(default=0, description="seed of the jitter")


class ParametricHardwareConfig(UnitHardwareConfig):
    """A clock that charges multiplications, bytes and messages."""

    model: Literal["parametric"] = Field(default="parametric", description="cost model")  # type: ignore[assignment]
    time_per_operation: NotNegative = Field(
        default=0.0, description="units of time of one operation, whatever it does"
    )
    time_per_multiplication: NotNegative = Field(
        default=0.0, description="units of time of one multiplication"
    )
    time_per_byte: NotNegative = Field(default=0.0, description="units of time of one byte sent")
    time_per_message: NotNegative = Field(
        default=0.0, description="units of time of one message, whatever its size"
    )


class MessagesConfig(Section):
    """Which entries of a message are sent, and in which number format."""

    threshold: NotNegative | None = Field(
        default=None,
        description="theta: an entry is sent if it differs by more from what was sent last; all if omitted",
    )
    error_threshold: NotNegative | None = Field(
        default=None, description="theta of errors; messages.threshold if omitted"
    )
    format: NumberFormatName | None = Field(
        default=None, description="float16, bfloat16, float32 or Qm.n; the network's dtype if omitted"
    )
    error_format: NumberFormatName | None = Field(
        default=None, description="format of errors; messages.format if omitted"
    )
    rounding: Literal["nearest", "stochastic"] = Field(
        default="nearest", description="how values are rounded"
    )
    seed: Seed = Field(default=0, description="seed of stochastic rounding")


class StatesConfig(Section):
    """In which number format layers keep their activities."""

    format: NumberFormatName | None = Field(
        default=None, description="float16, bfloat16, float32 or Qm.n; the network's dtype if omitted"
    )
    rounding: Literal["nearest", "stochastic"] = Field(
        default="nearest", description="how values are rounded"
    )
    seed: Seed = Field(default=0, description="seed of stochastic rounding")


class FaultsConfig(Section):
    """What goes wrong with messages, each with a probability."""

    loss: Probability = Field(default=0.0, description="probability that a message is lost")
    duplication: Probability = Field(default=0.0, description="probability that a message comes twice")
    delay: Probability = Field(default=0.0, description="probability that a message takes delay_time longer")
    reorder: Probability = Field(
        default=0.0, description="probability that a message steps aside for delay_time and is overtaken"
    )
    delay_time: NotNegative = Field(
        default=0.0, description="how long messages are held back, in the hardware's units of time"
    )
    dead_layer: NotNegativeCount | None = Field(
        default=None,
        description="a layer that is silent from training step dead_step on; none if omitted",
    )
    dead_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the dead layer's lines that are silent"
    )
    dead_step: NotNegativeCount = Field(
        default=0, description="the first training step in which the dead layer is silent"
    )
    seed: Seed = Field(default=0, description="seed of all faults")


class MachineHardwareConfig(UnitHardwareConfig):
    """A clock that takes a machine's prices in time; its unit of time is the nanosecond."""

    model: Literal["file", "gpu-like", "loihi2018", "mesh", "sanafe-loihi"] = Field(  # type: ignore[assignment]
        description="cost model"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="machine file (TOML), relative to the current folder; only with model = 'file'",
    )


class TraceConfig(Section):
    """How much of the run is written to the trace."""

    every: Count = Field(default=10, description="training steps between recorded steps")
    flush_seconds: Positive = Field(
        default=1.0, description="longest time in seconds that records stay in memory"
    )
    events: bool = Field(
        default=True, description="whether operations and messages are recorded, not only sums"
    )
    compression: Compression = Field(
        default="none",
        description="how arrays are compressed: none; gzip, which everything reads; lzf; zstd, the fastest "
        "and smallest, which needs hdf5plugin to write and to read",
    )
    chunk_kib: Kibibytes = Field(
        default=1024, description="largest chunk of an array in KiB, which is read and compressed as a whole"
    )
    buffer_mib: NotNegativeCount = Field(
        default=64,
        description="MiB of records that may wait for the disk before the simulation waits; 0 writes at "
        "once, without a thread",
    )


class ProbeConfig(Section):
    """Arrays that are recorded while the network runs."""

    record: Record = Field(
        description="what to record, at least one of activity, error, prediction, "
        "message (what layers send), weight, update (change of the weight), bias, bias_update"
    )
    layers: Literal["all"] | tuple[int, ...] = Field(
        default="all", description="'all' or a list of layer numbers"
    )
    samples: Count | tuple[int, ...] = Field(
        default=1,
        description="samples of the mini-batch that are recorded: how many from its start, or their indices",
    )
    every: Count = Field(default=100, description="training steps between records")
    dtype: Literal["float16", "float32", "float64"] = Field(
        default="float32", description="number type on disk"
    )
    compression: Compression | None = Field(
        default=None, description="as trace.compression, which holds if this is omitted"
    )
    chunk_kib: Kibibytes | None = Field(
        default=None, description="as trace.chunk_kib, which holds if this is omitted"
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: object) -> object:
        """Check both forms by hand: pydantic reports a union once a member, which nobody can read."""
        if value == "all":
            return value
        entries = tuple(value) if isinstance(value, list | tuple) else ()
        if not entries or any(type(entry) is not int for entry in entries):
            raise PydanticCustomError("layers", "'all' or a list of layer numbers")
        return _each_once(entries)

    @field_validator("samples", mode="before")
    @classmethod
    def _samples(cls, value: object) -> object:
        """Check both forms by hand, as those of `layers`."""
        if type(value) is int and value >= 1:
            return value
        entries = tuple(value) if isinstance(value, list | tuple) else ()
        if not entries or any(type(entry) is not int or entry < 0 for entry in entries):
            raise PydanticCustomError("samples", "a number of at least 1, or a list of indices from 0")
        return _each_once(entries)
