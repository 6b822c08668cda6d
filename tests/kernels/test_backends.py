"""Kernels by name."""

import numba
import pytest

from pcsim.errors import ConfigurationError
from pcsim.kernels import reference
from pcsim.kernels.backends import make_kernels


def test_a_compiler_that_is_off(monkeypatch):
    """With NUMBA_DISABLE_JIT, a debugging aid of Numba, a run ended in a traceback of Numba's insides."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(ConfigurationError, match="NUMBA_DISABLE_JIT"):
        make_kernels("cpu")
    assert make_kernels("reference") is reference
