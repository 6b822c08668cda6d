"""A process that trains again and again, as notebooks and sweeps do, keeps nothing of the runs before."""

import gc
import time
from collections import Counter

import psutil
import pytest

import pcsim
from pcsim.engine.distributed.plan import Distribution
from pcsim.kernels import reference


@pytest.fixture
def uncollected():
    """Objects that only refer to each other stay, so that a test can see them."""
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    gc.collect()


def run(engine, trace, **options):
    """Train once, and keep nothing."""
    experiment = pcsim.Experiment(
        network=pcsim.Network.dense([64, 8, 10], seed=1),
        dataset=pcsim.load_dataset("digits"),
        rule=pcsim.MQ(1e-3),
        schedule=pcsim.Schedule("sequential", iterations=2),
        batch=256,
        epochs=1,
    )
    pcsim.run(experiment, engine=engine, kernels=reference, trace=trace, overwrite=True, **options)


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_nothing_of_ours_waits_for_the_collector(tmp_path, uncollected, engine):
    """Found by the soak: each trace kept its buffers until Python's next full collection, 100 runs later."""
    run(engine, tmp_path / "t.h5")  # what is made once and kept is made now
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    run(engine, tmp_path / "t.h5")
    gc.collect()
    ours = [type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("pcsim")]
    assert Counter(ours) == {}


def test_a_distributed_run_lets_its_sockets_go(tmp_path, uncollected):
    """Found by the soak: 23 files and 8 threads stayed open of each run, until the next full collection."""
    process = psutil.Process()

    def held():
        return process.num_fds(), process.num_threads()

    run("distributed", tmp_path / "t.h5", distribution=Distribution(2))
    end, before = time.monotonic() + 20, held()
    for _ in range(2):
        run("distributed", tmp_path / "t.h5", distribution=Distribution(2))
    while held() > before and time.monotonic() < end:
        time.sleep(0.05)  # the pulse ends by itself, within a second
    assert held() <= before
