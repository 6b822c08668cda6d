"""From an experiment to what a machine needs to know of it to charge it."""

from __future__ import annotations

from pcsim.errors import ConfigurationError
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.machine import Machine
from pcsim.hardware.machine_clock import clock_of
from pcsim.hardware.ways import Ways
from pcsim.hardware.work import UPDATES, Setting
from pcsim.learning import LearningRule
from pcsim.network.network import Network
from pcsim.schedule.program import Schedule


def setting_of(
    network: Network, batch: int, rule: LearningRule, machine: Machine, ways: Ways | None = None
) -> Setting:
    """Return what decides the work of a mini-batch besides the program.

    Raises:
        ConfigurationError: a learning rule of which nobody has counted what it does.
    """
    name = type(rule).__name__.lower()
    if name not in UPDATES:
        raise ConfigurationError(
            f"learning rule {rule!r} has no prices: expected one of {', '.join(UPDATES)}"
        )
    return Setting(network, batch, UPDATES[name], machine, ways or {})


def machine_hardware(
    machine: Machine, network: Network, batch: int, rule: LearningRule, schedule: Schedule, links: Links
) -> Hardware:
    """Return the event engine's clock with a machine's prices in time, ns.

    Raises:
        ConfigurationError: a machine without prices in time.
    """
    setting = setting_of(network, batch, rule, machine)
    return clock_of(setting, schedule.operations(network), links)
