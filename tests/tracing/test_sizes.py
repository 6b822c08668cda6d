"""How much room a trace takes, also of a trace that says strange things of its steps and clock."""

import h5py
import numpy as np
import pytest

from pcsim.tracing import Column, TraceWriter, open_trace
from pcsim.tracing.sizes import trace_sizes


@pytest.mark.parametrize(
    "strange", [np.zeros(3, "S5"), np.array(["a", "b", "c"], h5py.string_dtype()), np.zeros(3, bool)]
)
def test_steps_and_clocks_that_are_no_numbers(tmp_path, strange):
    """Found by the fuzz: `pcsim info` ended with a traceback where a step or the clock was text."""
    path = tmp_path / "t.h5"
    with TraceWriter(path, {}) as writer:
        columns = {name: Column((), "float64", name) for name in ("step", "seconds")}
        writer.table("learning", "epoch", columns).extend(step=np.arange(3.0), seconds=np.arange(3.0))
    with open_trace(path) as trace:
        sizes = trace_sizes(trace)
    assert (sizes.tables["learning"].steps, sizes.seconds) == (3, 2.0)
    with h5py.File(path, "r+") as file:
        for name in ("step", "seconds"):
            del file["learning"][name]
            made = file["learning"].create_dataset(name, data=strange, maxshape=(None,), chunks=(3,))
            made.dims[0].attach_scale(file["learning/epoch"])
    with open_trace(path) as trace:
        sizes = trace_sizes(trace)
    assert (sizes.tables["learning"].steps, sizes.seconds, sizes.bytes_a_second) == (None, None, None)
