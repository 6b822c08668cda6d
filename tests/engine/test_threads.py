"""The self-test that chooses how many threads share products."""

import pytest

from pcsim.engine import threads
from pcsim.network.network import Network


@pytest.mark.parametrize(
    ("milliseconds", "best"),
    [
        ({1: 10.0, 2: 6.0}, 2),
        ({1: 10.0, 2: 9.0}, 1),
        ({1: 10.0}, 1),
        ({1: 9.0, 2: 6.0, 3: 5.0, 4: 7.0}, 3),
        ({1: 10.0, 2: 6.1, 4: 6.0, 8: 5.95}, 2),
    ],
    ids=["two pay", "two hardly pay", "a library multiplies", "four are too many", "eight gain a hair"],
)
def test_choice(milliseconds, best, monkeypatch):
    """The fastest number is taken if it is worth the processors that others could use."""
    monkeypatch.setattr(threads, "time_threads", lambda *_: milliseconds)
    said = []
    assert threads.choose_threads(Network.dense([1024, 1024, 2]), 1, said.append) == best
    assert bool(said) == (len(milliseconds) > 1)


def test_small_networks_are_not_tested(monkeypatch):
    """Where there is little to share, a run begins at once."""
    monkeypatch.delattr(threads, "time_threads")
    assert threads.choose_threads(Network.dense([64, 128, 10]), 64) == 1


@pytest.mark.parametrize("batch", [1, 64])
def test_every_number_of_threads_is_timed(batch, monkeypatch):
    """Threads that must wake up first are given the time to: that is not what they cost later."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("pcsim.kernels.products.WORTH_A_TEST", 10**9)  # nobody but our own
    found = threads.time_threads(Network.dense([1024, 1024]), batch)
    assert found.keys() == {1, 2}
    assert all(0 < time < 1000 for time in found.values())


@pytest.mark.parametrize(
    ("cores", "batch", "expected"),
    [(1, 64, [1]), (2, 64, [1, 2]), (6, 64, [1, 2, 4, 6]), (16, 64, [1, 2, 4, 8, 16]), (64, 1, [1, 2, 4])],
)
def test_few_numbers_are_tried(cores, batch, expected, monkeypatch):
    """With 64 cores the self-test took seconds; and a pass over a weight has but four blocks to share."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("pcsim.kernels.products.WORTH_A_TEST", 10**9)
    monkeypatch.setattr(threads, "WARMING", 0.0)
    monkeypatch.setattr(threads, "REPETITIONS", 1)
    assert list(threads.time_threads(Network.dense([128, 64]), batch)) == expected
