"""Attributes of a trace's root; a kill while one is set must not cost the trace its state."""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np

from pcsim.tracing.schema import Attribute

STATE_BYTES = 256
_STATE_TYPE = h5py.string_dtype("utf-8", STATE_BYTES)


def set_attributes(file: h5py.File, encoded: Mapping[str, Attribute]) -> None:
    """Set root attributes."""
    for name, value in encoded.items():
        _set_attribute(file.attrs, name, value)


def _set_attribute(attributes: h5py.AttributeManager, name: str, value: Attribute) -> None:
    """Set an attribute, in its place where that is one write: numbers of the same type, and `state`.

    Assigning deletes an attribute for a moment, and text of any length lies outside it in the file. `state`
    is changed at every close, so it has a fixed length: a kill then finds the old or the new one.
    """
    new = np.asarray(value)
    if name == "state":
        new = np.asarray(str(value).encode()[:STATE_BYTES].decode(errors="ignore").encode(), _STATE_TYPE)
        if name not in attributes:
            attributes.create(name, new, dtype=_STATE_TYPE)
    if name in attributes and new.dtype.kind != "U":
        identifier = attributes.get_id(name)
        if identifier.shape == () and identifier.dtype == new.dtype:
            identifier.write(new)
            return
    attributes[name] = value
