"""The sections of a model file: one frozen pydantic model each, every field with its own description.

`pcsim.config` puts them together, reads files and words the errors; import the sections from there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError


def _each_once(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list that names something twice: it would be recorded twice under one name."""
    if len(set(entries)) < len(entries):
        raise PydanticCustomError("repeated", "each entry once")
    return entries


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
# TOML has lists, frozen models want tuples: only the container is converted, its entries stay strict.
Sizes = Annotated[tuple[Count, ...], Field(strict=False, min_length=2)]
Positives = Annotated[tuple[Positive, ...], Field(strict=False)]
NotNegatives = Annotated[tuple[NotNegative, ...], Field(strict=False)]
Recordable = Literal["activity", "error", "prediction", "weight"]
Record = Annotated[tuple[Recordable, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]


class Section(BaseModel):
    """What all sections share: immutable, no unknown keys, no silent conversions, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkConfig(Section):
    """The network: layer sizes, non-linearities, and the weights of the terms of the free energy."""

    layers: Sizes = Field(description="layer sizes from input to output, at least 2, each at least 1")
    activation: Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"] = Field(
        default="relu", description="f, the non-linearity of the hidden layers"
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


class DataConfig(Section):
    """The data set, where it lies, and what the network has to answer."""

    name: Literal["digits", "fashion-mnist", "npz"] = Field(
        description="data set: digits, fashion-mnist or npz"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="folder (fashion-mnist) or file (npz) of the data; needed for npz",
    )
    test_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="share of the samples kept for testing, where the set has no own split",
    )
    split_seed: Seed = Field(default=0, description="seed of that split")
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
        default=0.0, description="a message takes up to this much time more, uniformly at random"
    )
    latency: NotNegative = Field(default=0.0, description="time added to every message")
    link_latency: dict[str, NotNegative] = Field(
        default_factory=dict, description='time added on single links, "source-target" = time'
    )
    seed: Seed = Field(default=0, description="seed of the jitter")


class ParametricHardwareConfig(UnitHardwareConfig):
    """A clock that charges multiplications, bytes and messages."""

    model: Literal["parametric"] = Field(default="parametric", description="cost model")  # type: ignore[assignment]
    time_per_operation: NotNegative = Field(
        default=0.0, description="time of one operation, whatever it does"
    )
    time_per_multiplication: NotNegative = Field(default=0.0, description="time of one multiplication")
    time_per_byte: NotNegative = Field(default=0.0, description="time of one byte sent")
    time_per_message: NotNegative = Field(default=0.0, description="time of one message, whatever its size")


class TraceConfig(Section):
    """How much of the run is written to the trace."""

    every: Count = Field(default=10, description="training steps between recorded steps")
    flush_seconds: Positive = Field(
        default=1.0, description="longest time in seconds that records stay in memory"
    )
    events: bool = Field(
        default=True, description="whether operations and messages are recorded, not only sums"
    )


class ProbeConfig(Section):
    """Arrays that are recorded while the network runs."""

    record: Record = Field(description="what to record: activity, error, prediction, weight; at least one")
    layers: Literal["all"] | tuple[int, ...] = Field(
        default="all", description="'all' or a list of layer numbers"
    )
    samples: Count = Field(
        default=1, description="samples of the mini-batch that are recorded, from its start"
    )
    every: Count = Field(default=100, description="training steps between records")
    dtype: Literal["float16", "float32", "float64"] = Field(
        default="float32", description="number type on disk"
    )

    @field_validator("layers", mode="plain")
    @classmethod
    def _layers(cls, value: object) -> object:
        """Check both forms by hand: pydantic reports a union once a member, which nobody can read."""
        if value == "all":
            return value
        entries = tuple(value) if isinstance(value, list | tuple) else ()
        if not entries or any(type(entry) is not int for entry in entries):
            raise PydanticCustomError("layers", "'all' or a list of layer numbers")
        return _each_once(entries)
