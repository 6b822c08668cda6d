"""What can go wrong, each in one line: what was given, what was expected, what to do.

Every error that a user can cause derives from `PcsimError`; the command line prints it without a traceback
and leaves with exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import inf
from numbers import Integral, Real

MOST_LISTED = 12  # names beside one that is close to the given one


class PcsimError(Exception):
    """Base of all errors that pcsim raises on purpose."""


class ConfigurationError(PcsimError):
    """A model file, option or argument says something that cannot be."""


class ShapeError(PcsimError):
    """Arrays, layers or data that do not fit each other."""


class DataError(PcsimError):
    """A data set that is missing, damaged, or holds values that make no sense."""


class LocalityError(PcsimError):
    """An operation touches something that is neither its layer's own nor in its layer's inbox."""


class ProgramError(PcsimError):
    """A program that cannot run: an operation reads what nothing has written or sent yet."""


class TraceError(PcsimError):
    """A trace file that cannot be written, or is not one, or is not whole."""


class CheckpointError(PcsimError):
    """A checkpoint that cannot be written, or is not one, or belongs to another run."""


class StudyError(PcsimError):
    """A folder of runs that cannot be read or written, is none, or whose workers cannot be had."""


class NetworkError(PcsimError):
    """A file of a network is missing, damaged, of something else, or cannot be written."""


class PeerError(PcsimError):
    """A process of a distributed run has died, hangs or cannot be reached."""


class NonFiniteError(PcsimError):
    """Activities or energy became infinite or NaN during a run.

    Attributes:
        step: training step, counted from 0.
        layer: index of the first layer that is affected.
        iteration: number of inference iterations done when it was seen; 0 is the state before the first.
    """

    def __init__(self, what: str, step: int, layer: int, iteration: int) -> None:
        super().__init__(
            f"{what} of layer {layer} is not finite at training step {step}, iteration {iteration}: "
            "expected finite numbers; lower schedule.step_size or learning.rate"
        )
        self.step, self.layer, self.iteration = step, layer, iteration


def refuse_unless(good: bool, what: str, given: object, expected: str) -> None:
    """Raise ConfigurationError if a value is not what it should be: the check of a constructor."""
    if not good:
        text = " ".join(repr(given).split())
        shown = text if len(text) <= 100 else f"{text[:97]}..."
        raise ConfigurationError(f"{what} = {shown}: expected {expected}")


_AS_IN = {
    "Dataset": "pcsim.load_dataset('digits')",
    "Experiment": "pcsim.Experiment.from_model(pcsim.load_model('digits'))",
    "Hardware": "pcsim.unit()",
    "Network": "pcsim.Network.dense([64, 32, 10])",
    "Schedule": "pcsim.Schedule('sequential', iterations=3)",
}


def check_kind(what: str, given: object, kind: type) -> None:
    """Raise ConfigurationError if an argument is no object of a public type; say how to come by one."""
    name = kind.__name__
    refuse_unless(isinstance(given, kind), what, given, f"a pcsim.{name}, as in {_AS_IN[name]}")


def misshapen(what: str, given: object, expected: str) -> ShapeError:
    """Return what to raise on something that is no array of an expected shape."""
    if hasattr(given, "shape"):
        return ShapeError(f"{what} of shape {tuple(given.shape)}: expected {expected}")
    return ShapeError(f"{what} is a {type(given).__name__}: expected a NumPy array of shape {expected}")


def whole(given: object, least: int) -> bool:
    """Whether this is a whole number, of Python or NumPy, and no less than `least`."""
    return isinstance(given, Integral) and not isinstance(given, bool) and int(given) >= least


def real(
    given: object, *, least: float = -inf, above: float = -inf, most: float = inf, below: float = inf
) -> bool:
    """Whether this is a number, of Python or NumPy, within bounds; infinity and NaN never are."""
    if not isinstance(given, Real) or isinstance(given, bool):
        return False
    return least <= float(given) <= most and above < float(given) < below


def nearest(given: object, known: Iterable[str]) -> str:
    """Say which known name is closest to the given one, and list them all unless they are many.

    The tail of an error message.
    """
    names = sorted(known)
    close, listed = closest(given, names), f"known: {', '.join(names)}"
    if not close:
        return listed
    return f"{close} {listed}" if len(names) <= MOST_LISTED else close


def closest(given: object, known: Iterable[str]) -> str:
    """Ask whether the known name that is closest to the given one was meant; nothing where none is close."""
    close = get_close_matches(str(given), list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""
