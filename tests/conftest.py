"""Settings and fixtures that all tests share."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("pcsim", deadline=None)
settings.load_profile("pcsim")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20230513)
