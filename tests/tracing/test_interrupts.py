"""Ctrl-C that Python loses is found again."""

import signal

import pytest

from pcsim.tracing.interrupts import interrupt_afterwards, remembered


class Swallows:
    """Python drops what is raised here."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lost_in_a_finalizer():
    """It is raised at the next check, and the handler before is back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    with remembered() as check:
        check()
        Swallows()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_not_lost():
    """Otherwise it is raised at once, also behind a block that puts it off."""
    with pytest.raises(KeyboardInterrupt), remembered():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), remembered(), interrupt_afterwards():
        signal.raise_signal(signal.SIGINT)
