"""pcsim: an event-driven simulator of predictive coding networks.

The names below are the public face; each is loaded when it is first used, so that `import pcsim` and the
command line start at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcsim.config import ModelConfig, load_model
    from pcsim.engine.event import EventEngine
    from pcsim.engine.fast import FastEngine
    from pcsim.engine.observer import Observer, Statistics
    from pcsim.engine.totals import Event, Totals
    from pcsim.errors import LocalityError, NonFiniteError, PcsimError, ProgramError
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.run import run
    from pcsim.experiments.summary import RunSummary
    from pcsim.experiments.verify import verify
    from pcsim.hardware.clock import Hardware, Links, unit
    from pcsim.kernels.backends import make_kernels
    from pcsim.learning import MQ, NLMS, SGD, Adam
    from pcsim.network.layer import MessageKind
    from pcsim.network.network import Network
    from pcsim.schedule.operation import Operation, Operations, Place
    from pcsim.schedule.orders import Reactive
    from pcsim.schedule.program import Program, Schedule
    from pcsim.tracing.probes import Probe
    from pcsim.tracing.reader import open_trace
    from pcsim.training.data import Dataset, load_dataset

_HOMES = {
    "pcsim.config": ("ModelConfig", "load_model"),
    "pcsim.engine.event": ("EventEngine",),
    "pcsim.engine.totals": ("Event", "Totals"),
    "pcsim.engine.fast": ("FastEngine",),
    "pcsim.engine.observer": ("Observer", "Statistics"),
    "pcsim.errors": ("LocalityError", "NonFiniteError", "PcsimError", "ProgramError"),
    "pcsim.experiments.experiment": ("Experiment",),
    "pcsim.experiments.run": ("run",),
    "pcsim.experiments.summary": ("RunSummary",),
    "pcsim.experiments.verify": ("verify",),
    "pcsim.hardware.clock": ("Hardware", "Links", "unit"),
    "pcsim.kernels.backends": ("make_kernels",),
    "pcsim.learning": ("MQ", "NLMS", "SGD", "Adam"),
    "pcsim.network.layer": ("MessageKind",),
    "pcsim.network.network": ("Network",),
    "pcsim.schedule.orders": ("Reactive",),
    "pcsim.schedule.operation": ("Operation", "Operations", "Place"),
    "pcsim.schedule.program": ("Program", "Schedule"),
    "pcsim.tracing.reader": ("open_trace",),
    "pcsim.tracing.probes": ("Probe",),
    "pcsim.training.data": ("Dataset", "load_dataset"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "MQ",
    "NLMS",
    "SGD",
    "Adam",
    "Dataset",
    "Event",
    "EventEngine",
    "Experiment",
    "FastEngine",
    "Hardware",
    "Links",
    "LocalityError",
    "MessageKind",
    "ModelConfig",
    "Network",
    "NonFiniteError",
    "Observer",
    "Operation",
    "Operations",
    "PcsimError",
    "Place",
    "Probe",
    "Program",
    "ProgramError",
    "Reactive",
    "RunSummary",
    "Schedule",
    "Statistics",
    "Totals",
    "load_dataset",
    "load_model",
    "make_kernels",
    "open_trace",
    "run",
    "unit",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pcsim' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
