"""Traces that are valid HDF5 and lie: about sizes, types, links, and what is stored where."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np

MANY = 10**7  # rows that nobody declares but a lie


def write_trace(path: Path, compression: str) -> None:
    """A small trace with events, a probe, numbers and words as coordinates."""
    from pcsim.tracing import Column, TraceWriter
    from pcsim.tracing.table import Storage

    attributes = {"layers": [4, 3], "iterations": 2, "experiment": {"rate": 0.1}, "name": "small"}
    attributes["created"] = "2026-01-01T00:00:00+00:00"  # so that the same seed makes the same damage
    with TraceWriter(path, attributes, storage=Storage(compression)) as writer:
        kinds = {
            "kind": Column((), "int8", "what", flags=("operation", "message")),
            "layer": Column((), "int32", "layer"),
            "step": Column((), "int64", "step"),
        }
        events = writer.table("events", "event", kinds)
        columns = {
            "step": Column((), "int64", "step"),
            "activity": Column(("sample", "neuron"), "float32", "activity", "1"),
        }
        names = {"sample": np.array([3, 5]), "neuron": 4}
        probe = writer.table("probes/p", "step", columns, names)
        learning = {"seconds": Column((), "float64", "seconds"), "loss": Column(("part",), "float32", "loss")}
        epochs = writer.table("learning", "epoch", learning, {"part": ["train", "test"]})
        events.extend(kind=np.arange(30) % 2, layer=np.arange(30) % 2, step=np.arange(30) // 10)
        probe.extend(step=np.arange(20), activity=np.ones((20, 2, 4), np.float32))
        epochs.extend(seconds=np.arange(3.0), loss=np.ones((3, 2), np.float32))


@cache
def trace_bytes(compression: str) -> bytes:
    """The content of such a trace."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        write_trace(path, compression)
        return path.read_bytes()


def damaged_trace(chance: random.Random) -> bytes:
    """Change what a valid trace says, with h5py itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        path.write_bytes(trace_bytes(chance.choice(("none", "gzip"))))
        with h5py.File(path, "r+") as file:
            for _ in range(chance.choice((1, 1, 2, 3))):
                try:
                    chance.choice(LIES)(chance, file)
                except (KeyError, IndexError, ValueError, OSError, RuntimeError, TypeError, AttributeError):
                    continue  # an earlier lie has taken away what this one is about
        return path.read_bytes()


def _objects(file: h5py.File) -> list[str]:
    found = ["/"]
    file.visit(found.append)
    return found


def _some(chance: random.Random, file: h5py.File, kind: type) -> str:
    return chance.choice([name for name in _objects(file) if isinstance(file[name], kind)])


def _attribute(chance: random.Random, file: h5py.File) -> None:
    """Give an attribute another value or type."""
    attributes = file[chance.choice(_objects(file))].attrs
    name = chance.choice([*attributes, "layers", "flag_meanings", "unlimited_dimension", "x"])
    values = (
        *(-1, 2**62, 1.5, float("nan"), "", "x" * 5000, b"\xff\xfe", "[" * 3000 + "]" * 3000, '{"a": 1e999}'),
        *(np.zeros((2, 3)), np.array([], "f8"), np.array(["a", "é"], h5py.string_dtype()), np.bool_(True)),
        *(h5py.Empty("f4"), np.array([(1, 2.0)], "i4,f8"), np.complex64(1), "[0, 1, 2]", "null", "operation"),
        *(np.zeros(3, h5py.ref_dtype), np.void(b"abc")),
    )
    value = chance.choice(values)
    if name in attributes:
        del attributes[name]
    attributes.create(name, value)


def _no_attribute(chance: random.Random, file: h5py.File) -> None:
    attributes = file[chance.choice(_objects(file))].attrs
    del attributes[chance.choice(list(attributes))]


def _huge_attribute(chance: random.Random, file: h5py.File) -> None:
    """An attribute of 1 TiB in a file that does not have it cannot be written by h5py: one of 60 KB can."""
    file[chance.choice(_objects(file))].attrs["big"] = np.zeros(7000)


def _extent(chance: random.Random, file: h5py.File) -> None:
    """Declare rows that are not there."""
    dataset = file[_some(chance, file, h5py.Dataset)]
    rows = chance.choice((0, 1, 1000, 10**6, 2**31, 2**40, 2**62))
    if max(dataset.shape, default=0) > MANY:
        return  # an earlier lie: libhdf5 would look for each chunk that is cut off, for years
    dataset.resize((rows, *dataset.shape[1:]))


def _dataset(chance: random.Random, file: h5py.File) -> None:
    """Put a dataset of another shape, type, chunk or fill value where one was, or beside it."""
    name = _some(chance, file, h5py.Dataset)
    if chance.random() < 0.3:
        name = f"{name}_"
    dtypes = (
        *("i1", "f8", ">i2", "c8", "i4,f8", "S5", "V7", "f2", h5py.string_dtype(), h5py.ref_dtype, "?"),
        *(h5py.vlen_dtype(np.int32), h5py.enum_dtype({"A": 1}), np.dtype(("i4", (3,)))),
    )
    shapes = ((), (0,), (5,), (20,), (2**40,), (30, 2), (20, 2**30), (20, 2, 4), (3, 2**20, 2**20), (2**62,))
    shape = chance.choice(shapes)
    grows = chance.random() < 0.7 and bool(shape)
    if name in file:
        del file[name]
    chunk = chance.choice((1, 8, 1024))
    file.create_dataset(
        name,
        shape,
        chance.choice(dtypes),
        maxshape=(None, *shape[1:]) if grows else None,
        chunks=tuple(min(chunk, max(1, size)) for size in shape) if grows else None,
    )


def _scale(chance: random.Random, file: h5py.File) -> None:
    """Attach or detach dimension scales, to anything."""
    dataset, other = (file[_some(chance, file, h5py.Dataset)] for _ in range(2))
    axis = chance.randrange(max(1, dataset.ndim))
    if chance.random() < 0.5:
        dataset.dims[axis].attach_scale(other)
    elif len(dataset.dims[axis]):
        dataset.dims[axis].detach_scale(dataset.dims[axis][0])


def _link(chance: random.Random, file: h5py.File) -> None:
    """Links in circles, into nothing, out of the file, and to a device that never ends."""
    group = file[_some(chance, file, h5py.Group)]
    links = (
        h5py.SoftLink("/nowhere"),
        h5py.SoftLink("/"),
        h5py.SoftLink("/loop"),
        h5py.ExternalLink("/etc/passwd", "/"),
        h5py.ExternalLink("/dev/zero", "/"),
        h5py.ExternalLink("t.h5", "/"),
        file["/"],
        group,
        file[_some(chance, file, h5py.Group)],
        file[_some(chance, file, h5py.Dataset)],
    )
    name = chance.choice(("loop", "table", "x", "step", "é", "..", "a b"))
    if name in group:
        del group[name]
    group[name] = chance.choice(links)


def _elsewhere(chance: random.Random, file: h5py.File) -> None:
    """Numbers that lie in another file: external storage and virtual datasets."""
    name = _some(chance, file, h5py.Dataset)
    del file[name]
    if chance.random() < 0.5:
        file.create_dataset(name, (20,), "i1", external=[("/etc/passwd", 0, 20)])
        return
    layout = h5py.VirtualLayout((20,), "i8", maxshape=(None,))
    layout[:] = h5py.VirtualSource(chance.choice(("/etc/passwd", ".")), "a", (20,))
    file.create_virtual_dataset(name, layout)


def _named_type(chance: random.Random, file: h5py.File) -> None:
    """A type with a name, which is neither group nor dataset."""
    name = _some(chance, file, h5py.Dataset)
    del file[name]
    file[name] = np.dtype("f8")


def _move(chance: random.Random, file: h5py.File) -> None:
    name = chance.choice(_objects(file)[1:])
    file.move(
        name, f"{chance.choice(('', 'events/', 'learning/', 'deep/er/'))}{chance.choice(('step', 'z'))}"
    )


LIES = (
    *(_attribute, _attribute, _attribute, _no_attribute, _huge_attribute, _extent, _extent, _dataset),
    *(_dataset, _scale, _link, _link, _elsewhere, _named_type, _move),
)
