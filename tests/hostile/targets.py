"""What is fuzzed: for each reader its whole files, how they are damaged, and everything that reads them."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from data_files import cifar_pickle, cifar_tar, idx, jpeg, svhn_mat, tiny_files, tiny_zip
from hostile import mutate
from hostile.trace_seeds import damaged_trace, trace_bytes

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader of files that anybody may have written.

    Attributes:
        file: name under which it finds its file.
        make: a damaged file from random numbers.
        read: reads everything in it; raises a PcsimError, or gives what the file says.
    """

    file: str
    make: Make
    read: Callable[[Path], object]


# ------------------------------------------------------------------------------------------- data sets

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)


def _check_dataset(found: object) -> None:
    """What was accepted must be usable."""
    from pcsim.training.dataset import Dataset

    assert isinstance(found, Dataset)
    assert len(found.train_inputs) == len(found.train_targets) > 0
    assert len(found.test_inputs) == len(found.test_targets) > 0
    assert found.inputs(np.array([0]), "float32").shape == (1, found.features)
    assert found.targets(np.array([0]), "float32").shape == (1, found.outputs)


def _read_idx(path: Path) -> None:
    from pcsim.training.datasets.idx import read_idx

    assert read_idx(path, (28, 28), 100).shape[1:] == (28, 28)


def _make_idx(chance: random.Random) -> bytes:
    return mutate.damage_bytes(chance, idx(IMAGES[:, :784].reshape(2, 28, 28)), dense=20)


def _make_idx_gz(chance: random.Random) -> bytes:
    plain = idx(IMAGES[:, :784].reshape(2, 28, 28))
    if chance.random() < 0.5:
        return gzip.compress(mutate.damage_bytes(chance, plain, dense=20), 1)
    return mutate.damage_bytes(chance, gzip.compress(plain, 1), dense=30)


def _read_batch(path: Path) -> None:
    from pcsim.training.datasets.cifar10 import _batch

    images, labels = _batch(path.read_bytes(), str(path))
    assert images.shape == (len(labels), 3072)


@cache
def _pickles() -> tuple[bytes, ...]:
    import pickle

    rewritten = {b"labels": [3, 9], b"data": IMAGES, b"filenames": [b"a", b"b"]}
    return (cifar_pickle(IMAGES, [3, 9]), *(pickle.dumps(rewritten, protocol=number) for number in (2, 4)))


def _make_pickle(chance: random.Random) -> bytes:
    content = chance.choice(_pickles())
    pixels = content.find(bytes(IMAGES[0, :8]))
    if chance.random() < 0.05:
        return b"\x80\x02}" + chance.randbytes(chance.randint(0, 200))
    return mutate.damage_bytes(chance, content, dense=pixels if pixels > 0 else 200)


def _read_cifar(path: Path) -> None:
    from pcsim.training.datasets.cifar10 import read_cifar10

    _check_dataset(read_cifar10(path))


def _make_tar(chance: random.Random) -> bytes:
    whole = _seed("tar")
    if chance.random() < 0.5:
        return mutate.damage_bytes(chance, whole)
    return gzip.compress(mutate.damage_bytes(chance, _seed("plain tar"), dense=600), 1)


def _read_mat(path: Path) -> None:
    from pcsim.training.datasets.svhn import _half

    images, labels = _half(path)
    assert images.shape == (len(labels), 3072)


def _make_mat(chance: random.Random) -> bytes:
    return mutate.damage_bytes(chance, _seed(chance.choice(("mat", "packed mat"))), dense=230)


def _read_npz(path: Path) -> None:
    from pcsim.training.datasets.npz import read_npz

    _check_dataset(read_npz(path))


def _npz_arrays() -> dict[str, bytes]:
    inputs, labels = IMAGES[:, :12].reshape(2, 3, 2, 2), np.array([0, 1])
    members = {}
    for name, array in {"x_train": inputs, "y_train": labels, "x_test": inputs, "y_test": labels}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        members[f"{name}.npy"] = buffer.getvalue()
    return members


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _make_npz(chance: random.Random) -> bytes:
    members = _npz_arrays()
    if chance.random() < 0.4:  # the archive itself, which its checksums guard
        return mutate.damage_bytes(chance, _zip(members))
    name = chance.choice(sorted(members))
    return _zip(members | {name: mutate.damage_bytes(chance, members[name], dense=80)})


def _read_tiny(path: Path) -> None:
    from pcsim.training.datasets.tiny_imagenet import read_tiny_imagenet

    _check_dataset(read_tiny_imagenet(path))


def _make_tiny(chance: random.Random) -> bytes:
    files = _tiny()
    match chance.randrange(3):
        case 0:
            return mutate.damage_bytes(chance, _seed("tiny"))
        case 1:
            name = chance.choice(("wnids.txt", "val/val_annotations.txt"))
        case _:
            name = chance.choice([one for one in sorted(files) if one.startswith(("train", "val/images"))])
    damaged = files | {name: mutate.damage_bytes(chance, files[name], dense=640)}
    return _zip({f"tiny-imagenet-200/{file}": data for file, data in damaged.items()})


@cache
def _tiny() -> dict[str, bytes]:
    return tiny_files()


@cache
def _seed(name: str) -> bytes:
    makers: dict[str, Callable[[], bytes]] = {
        "tar": lambda: cifar_tar(1),
        "plain tar": lambda: gzip.decompress(cifar_tar(1)),
        "mat": lambda: svhn_mat(2, compressed=False)[0],
        "packed mat": lambda: svhn_mat(2)[0],
        "tiny": tiny_zip,
        "jpeg": lambda: jpeg((200, 30, 90)),
        "mapping": _mapping,
        "checkpoint": _checkpoint,
    }
    return makers[name]()


# ---------------------------------------------------------------------------------- settings and mappings


def _make_toml(files: tuple[str, ...], chance: random.Random) -> bytes:
    return mutate.damage_toml(chance, (ROOT / chance.choice(files)).read_bytes())


def _read_model(path: Path) -> None:
    from pcsim.config import load_model, model_from_dict

    model = load_model(path)
    assert model_from_dict(model.to_dict()) == model


def _read_machine(path: Path) -> None:
    from pcsim.hardware.machine import load_machine

    load_machine(path)


def _read_sweep(path: Path) -> None:
    from pcsim.experiments.sweep.plan import read_plan

    assert read_plan(path).runs


def _mapping() -> bytes:
    from pcsim.hardware.chip import Chip
    from pcsim.hardware.mapping import Mapping, Tile

    tiles = (Tile(0, 0, 4, 0), Tile(1, 0, 2, 1), Tile(1, 2, 5, 2), Tile(2, 0, 3, 3))
    return json.dumps(Mapping("loihi2018", Chip(2, 2, 4, 1000), (4, 5, 3), tiles, "row").to_json()).encode()


def _read_mapping(path: Path) -> None:
    from pcsim.hardware.mapping import Mapping

    found = Mapping.load(path)
    assert Mapping.from_json(json.loads(json.dumps(found.to_json()))) == found


# -------------------------------------------------------------------------------------------- checkpoints


@cache
def _experiment() -> tuple[object, dict[str, object]]:
    """A small experiment, and what its checkpoint has to say that it belongs to it."""
    from pcsim.config import model_from_dict
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.task import Task

    model = model_from_dict(
        {
            "name": "small",
            "network": {"layers": [64, 6, 10]},
            "data": {"name": "digits"},
            "learning": {"rule": "mq", "rate": 1e-3},
            "training": {"epochs": 1, "batch": 256},
            "trace": {"events": False},
        }
    )
    experiment = Experiment.from_model(model)
    return experiment, Task.build(experiment, "fast", None).describe()


def _checkpoint() -> bytes:
    from safetensors import safe_open
    from safetensors.numpy import save

    from pcsim.experiments.checkpoint import FILE
    from pcsim.experiments.run import run
    from pcsim.kernels import reference

    with tempfile.TemporaryDirectory() as folder:
        run(_experiment()[0], kernels=reference, checkpoint=folder)  # type: ignore[arg-type]
        path = Path(folder) / FILE
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
            kept = json.loads(file.metadata()["pcsim"])
        kept["facts"]["epochs"][0]["seconds"] = 1.0  # so that the same seed makes the same damage
        return save(arrays, {"pcsim": json.dumps(kept)})


def _make_checkpoint(chance: random.Random) -> bytes:
    whole = _seed("checkpoint")
    length = struct.unpack("<Q", whole[:8])[0]
    header, numbers = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    match chance.randrange(4):
        case 0:
            return mutate.damage_bytes(chance, whole, dense=length)
        case 1:  # names, types, shapes and places of arrays
            text = mutate.damage_json(chance, json.dumps(header).encode())
        case _:  # facts: results, random states, counters; only now and then whose they are
            kept = json.loads(header["__metadata__"]["pcsim"])
            facts = mutate.damage_json(chance, json.dumps(kept["facts"]).encode()).decode("latin-1")
            rest = json.dumps({"version": kept["version"], "experiment": kept["experiment"]})
            header["__metadata__"]["pcsim"] = f'{rest[:-1]}, "facts": {facts}}}'
            text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def _read_checkpoint(path: Path) -> None:
    from pcsim.engine.fast import FastEngine
    from pcsim.experiments.checkpoint import Bookmark
    from pcsim.kernels import reference

    experiment, described = _experiment()
    bookmark = Bookmark.open(path.parent, resume=True, experiment=described)
    network = experiment.network  # type: ignore[attr-defined]
    layers = network.layers(experiment.batch, experiment.rule, reference)  # type: ignore[attr-defined]
    engine = FastEngine(experiment.schedule.plan(network), layers)  # type: ignore[attr-defined]
    assert bookmark.training_steps >= 0
    position = bookmark.restore(engine)
    rng = np.random.default_rng(0)
    if position.order is not None:
        rng.bit_generator.state = position.order
        rng.permutation(5)
    assert [epoch.epoch for epoch in position.epochs] == list(range(1, len(position.epochs) + 1))


# ------------------------------------------------------------------------------------------------ traces


def _read_trace(path: Path) -> None:
    """Everything that `pcsim info` shows, and every number."""
    from pcsim.tracing.reader import open_trace
    from pcsim.tracing.sizes import trace_sizes

    with open_trace(path) as trace:
        str(trace.state)
        trace_sizes(trace).to_dict()
        trace.verify()
        for name in trace.tables:
            table = trace.table(name)
            for column in table.columns:
                for dim in table.dims(column):
                    table.coordinate(dim)
                if table.flags(column):
                    table.decode(column)


def _make_trace_bytes(chance: random.Random) -> bytes:
    whole = trace_bytes(chance.choice(("none", "gzip")))
    if chance.random() < 0.1:
        return mutate.damage_bytes(chance, whole)
    return mutate.damage_in_place(chance, whole)


TARGETS: dict[str, Target] = {
    "model file": Target(
        "m.toml", partial(_make_toml, ("models/digits.toml", "models/cifar10_conv.toml")), _read_model
    ),
    "machine file": Target(
        "m.toml",
        partial(_make_toml, ("pcsim/hardware/presets/loihi2018.toml", "pcsim/hardware/presets/mesh.toml")),
        _read_machine,
    ),
    "sweep file": Target("s.toml", partial(_make_toml, ("tests/hostile/sweep.toml",)), _read_sweep),
    "mapping": Target("m.json", lambda chance: mutate.damage_json(chance, _seed("mapping")), _read_mapping),
    "checkpoint": Target("checkpoint.safetensors", _make_checkpoint, _read_checkpoint),
    "trace, bytes": Target("t.h5", _make_trace_bytes, _read_trace),
    "trace, structure": Target("t.h5", damaged_trace, _read_trace),
    "IDX": Target("a", _make_idx, _read_idx),
    "IDX, gzip": Target("a.gz", _make_idx_gz, _read_idx),
    "CIFAR-10 pickle": Target("data_batch_1", _make_pickle, _read_batch),
    "CIFAR-10 tar": Target("cifar-10-python.tar.gz", _make_tar, _read_cifar),
    "SVHN .mat": Target("a.mat", _make_mat, _read_mat),
    "NPZ": Target("a.npz", _make_npz, _read_npz),
    "Tiny ImageNet zip": Target("tiny-imagenet-200.zip", _make_tiny, _read_tiny),
}
