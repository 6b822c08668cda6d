"""What traces tell, computed from trace files alone.

Each function takes an open trace or a path and returns an `xarray.Dataset` (`compare` a `Comparison`). All
read piece by piece: memory does not grow with the length of a trace.
"""

from pcsim.analysis.backprop import backprop_angles
from pcsim.analysis.comparison import compare
from pcsim.analysis.energy import error_norms, free_energy, update_magnitudes
from pcsim.analysis.events import event_counts
from pcsim.analysis.fixed_point import FixedPoint
from pcsim.analysis.messages import message_counts
from pcsim.analysis.signals import dynamic_range, quantised_snr, sparsity
from pcsim.analysis.verdict import Comparison

__all__ = [
    "Comparison",
    "FixedPoint",
    "backprop_angles",
    "compare",
    "dynamic_range",
    "error_norms",
    "event_counts",
    "free_energy",
    "message_counts",
    "quantised_snr",
    "sparsity",
    "update_magnitudes",
]
