"""Arrays for results that live for a moment: allocated once a thread, use and shape."""

from __future__ import annotations

import threading

import numpy as np

from pcsim.kernels import Array
from pcsim.kernels.layout import roomy


class Scratch(threading.local):
    """Hands out the same array for the same use; each thread has its own."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...], str], Array] = {}

    def __call__(self, use: str, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Array:
        """Return an array that the next call with the same arguments returns again."""
        key = use, shape, dtype.char
        if key not in self._arrays:
            self._arrays[key] = roomy(shape, dtype)
        return self._arrays[key]
