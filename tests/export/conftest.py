"""Traces of short runs, made once each."""

from __future__ import annotations

import dataclasses
import functools

import pytest

import pcsim
from pcsim.schedule.channel import PLAIN

QUANTITIES = ("activity", "error", "prediction", "message", "weight", "update", "bias", "bias_update")


@functools.cache
def digits():
    """Return a part of the digits that makes short runs."""
    full = pcsim.load_dataset("digits")
    return dataclasses.replace(full, test_inputs=full.test_inputs[:20], test_targets=full.test_targets[:20])


def experiment(order="sequential", **changes):
    """Return a run of seven training steps on the digits, with probes of everything."""
    given = {
        "sizes": (64, 6, 5, 4, 10),
        "iterations": 3,
        "step_size": 0.1,
        "step_decay": "harmonic",
        "record": QUANTITIES,
        "probe_dtype": "float64",
        "samples": 2,
        "every": 3,
        "batch": 200,
        "record_every": 2,
        "rate": 0.05,
        "hardware": None,
        "epochs": 1,
        "network": {},
        "layers": None,
        "channels": PLAIN,
    } | changes
    constants = {"activation": "tanh", "dtype": "float64", "seed": 2} | given["network"]
    if given["layers"]:
        network = pcsim.Network.of(given["layers"], **constants)
    else:
        network = pcsim.Network.dense(given["sizes"], **constants)
    how = {name: given[name] for name in ("samples", "every")} | {"dtype": given["probe_dtype"]}
    probes = (pcsim.Probe("all", given["record"], **how),) if given["record"] else ()
    schedule = pcsim.Schedule(order, given["iterations"], given["step_size"], given["step_decay"])
    others = {} if given["hardware"] is None else {"hardware": given["hardware"]}
    return pcsim.Experiment(
        network,
        digits(),
        pcsim.SGD(given["rate"]),
        schedule,
        probes=probes,
        batch=given["batch"],
        record_every=given["record_every"],
        epochs=given["epochs"],
        channels=given["channels"],
        **others,
    )


@pytest.fixture(scope="session")
def trace_of(tmp_path_factory):
    """Return what gives the path of a run's trace."""
    folder, made = tmp_path_factory.mktemp("traces"), {}

    def give(order="sequential", engine="event", **changes):
        key = repr((order, engine, sorted(changes.items())))
        if key not in made:
            made[key] = folder / f"{len(made)}.h5"
            kernels = pcsim.make_kernels("reference")
            pcsim.run(experiment(order, **changes), engine=engine, trace=made[key], kernels=kernels)
        return made[key]

    return give
