"""Threads that share a pass: each block is done once, whoever comes, and nobody waits for who does not."""

import os
import signal
import threading
import time
from concurrent.futures import Future

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.kernels import mail
from pcsim.kernels.crew import ALONE, Crew
from pcsim.kernels.mail import address_of, block_function, do_blocks


@numba.njit(nogil=True)
def count_block(operands, block):
    """Count that a block was done, after some work."""
    done, work, rounds = operands
    for _ in range(rounds):
        work[block] += 1.0
    done[block] += 1


@numba.njit(nogil=True)
def count(post, done, work, rounds, blocks):
    """Count how often each block is done."""
    operands = done, work, rounds
    return do_blocks(post, block_function(count_block, operands), address_of(operands), blocks)


@numba.njit(nogil=True)
def note_block(operands, block):
    """Write down which block it is."""
    order, count = operands
    order[count[0]] = block
    count[0] += 1


@numba.njit(nogil=True)
def note(post, order, count):
    """Write down in which order blocks are done."""
    operands = order, count
    return do_blocks(post, block_function(note_block, operands), address_of(operands), len(order))


def passes(crew, number, blocks=4, rounds=100):
    """Do some passes; return how often each block was done."""
    done, work = np.zeros(blocks, np.int64), np.zeros(blocks)
    for _ in range(number):
        crew.share(count, 10**9, done, work, rounds, blocks)
    return done


def helped(crew):
    """Return whether helpers have done blocks of the last pass."""
    return crew._mail[mail.DONE] > 0


def work_until(crew, condition, seconds=20.0):
    """Do passes until a condition holds; return whether it ever did."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        passes(crew, 100, rounds=20_000)
    return condition()


@given(threads=st.integers(1, 4), blocks=st.integers(1, mail.MOST_BLOCKS), rounds=st.integers(0, 2000))
@settings(max_examples=30, deadline=None)
def test_every_block_once(threads, blocks, rounds):
    """However many threads take blocks from each other, none is left out and none is done twice."""
    assert (passes(Crew(threads), 300, blocks, rounds) == 300).all()


@given(
    threads=st.integers(1, 9),
    blocks=st.integers(1, mail.MOST_BLOCKS),
    looks=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=600),
)
@settings(max_examples=100, deadline=None)
def test_shares(threads, blocks, looks):
    """In whatever order threads take from their own share and from others', every block is taken once."""
    post = mail.new_mail(threads)
    for _ in range(2):  # of the second pass, too: its shares replace what is left of the first
        mail.give_out(post, blocks)
        found = [mail.take(post, thread, last) for thread, last in looks if thread < threads]
        taken = [block for block in found if block >= 0]
        assert len(set(taken)) == len(taken)
        for thread in range(threads):
            while (block := mail.take(post, thread, False)) >= 0:
                taken.append(block)
        assert sorted(taken) == list(range(blocks))


def test_a_thread_keeps_its_blocks():
    """What a thread has written lies in its cache: it begins with its own blocks, others with the last."""
    post = mail.new_mail(3)
    for _ in range(2):
        mail.give_out(post, 10)
        assert [mail.take(post, 0, False) for _ in range(5)] == [0, 1, 2, 3, -1]
        assert [mail.take(post, 1, False), mail.take(post, 1, True), mail.take(post, 1, False)] == [4, 6, 5]
        assert [mail.take(post, 2, True) for _ in range(4)] == [9, 8, 7, -1]


def test_order_of_blocks():
    """Of others' blocks the last come first: they would have begun those last themselves."""
    post, order = mail.new_mail(2), np.full(8, -1)
    mail.expect(post, 1)  # a helper that is on its way
    assert note(post, order, np.zeros(1, np.int64))
    assert order.tolist() == [0, 1, 2, 3, 7, 6, 5, 4]


def test_who_posts_has_something_to_do():
    """Of fewer blocks than threads, the first is for the thread that is there already."""
    post = mail.new_mail(8)
    mail.give_out(post, 3)
    assert mail.take(post, 0, False) == 0


def test_helpers_help():
    """The tests here would pass if one thread did everything."""
    crew = Crew(2)
    assert work_until(crew, lambda: helped(crew))


def test_helpers_fall_asleep():
    """Who has no passes for a moment has its processors to itself; the next pass wakes the helpers again."""
    crew = Crew(3)
    for _ in range(3):
        assert work_until(crew, lambda: helped(crew))
        end = time.monotonic() + 20
        while crew._mail[mail.AWAKE] and time.monotonic() < end:
            time.sleep(0.01)
        assert crew._mail[mail.AWAKE] == 0
        crew._mail[mail.DONE] = 0


def test_nobody_waits_for_a_helper():
    """A helper that never comes, as its processor has other things to do, holds up nothing."""
    crew, free = Crew(2), threading.Event()
    busy = crew._pool.submit(free.wait)
    assert (passes(crew, 1000) == 1000).all()
    assert crew._mail[mail.AWAKE] == 1  # it was called
    assert not helped(crew)
    free.set()
    busy.result()


def test_each_helper_has_a_share_of_its_own():
    """Two that look at the same share would leave the other to whoever is done first."""
    crew, asked = Crew(3), []

    class Pool:
        """Takes down who is called."""

        def submit(self, help_out, post, patience, thread):
            asked.append(thread)
            done = Future()
            done.set_result(None)
            return done

    crew._pool = Pool()
    passes(crew, 1)
    assert asked == [1, 2]


def test_small_passes_are_done_alone():
    """To hand over a pass of a microsecond takes as long as to do it."""
    crew, done, work = Crew(2), np.zeros(2, np.int64), np.zeros(2)
    for _ in range(100):
        crew.share(count, 1000, done, work, 1, 2)
    assert (done == 100).all()
    assert crew._mail[mail.AWAKE] == 0


def test_crews_do_not_meddle():
    """Kernels that train at once in several threads have passes of their own, and so have threads of one."""
    found, shared = {}, Crew(3)
    crews = [Crew(2), shared, shared, ALONE, ALONE]
    workers = [
        threading.Thread(target=lambda at=at, crew=crew: found.update({at: passes(crew, 5000)}))
        for at, crew in enumerate(crews)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((done == 5000).all() for done in found.values())
    assert len(found) == len(crews)


def test_parts_in_python():
    """Library calls are handed to the same threads, even while they look for passes; an error comes back."""
    crew, work = Crew(3), 10**9
    assert work_until(crew, lambda: helped(crew))
    start = time.monotonic()
    assert crew.split(lambda first, last: (first, last), 200, work) == [(0, 64), (64, 128), (128, 200)]
    assert crew.split(lambda first, last: (first, last), 2, work) == [(0, 2)]  # fewer than threads
    assert crew.split(lambda first, last: (first, last), 200, 10) == [(0, 200)]  # not worth it
    with pytest.raises(ZeroDivisionError):
        crew.split(lambda first, last: 1 // (200 - last), 200, work)
    assert time.monotonic() - start < 10
    assert work_until(crew, lambda: helped(crew))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks processes")
def test_after_a_fork():
    """A child process has none of its parent's helpers, waits for none, and gets its own."""
    crew = Crew(2)
    assert work_until(crew, lambda: helped(crew))
    assert len(crew.split(lambda first, last: last, 200, 10**9)) == 2
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # if it waits for them, it ends by this
        right = (passes(crew, 100) == 100).all() and crew.split(lambda *part: part, 128, 10**9)[1] == (
            64,
            128,
        )
        os._exit(0 if right and work_until(crew, lambda: helped(crew)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_helpers_are_called_once():
    """Two threads that find all asleep at once called them twice, and then never again: the count was off."""
    crew = Crew(3)
    for _ in range(20):
        crew.share(lambda post: False, 10**9)
    crew._pool.shutdown()
    assert crew._mail[mail.AWAKE] == 0


@pytest.mark.parametrize("calls", [0, 1])
def test_an_interrupt_while_helpers_are_called(calls, monkeypatch):
    """After Ctrl-C between counting on helpers and calling them, none was ever called again."""
    crew = Crew(3)
    submit, called = crew._pool.submit, []

    def interrupted(*call):
        if len(called) == calls:
            raise KeyboardInterrupt
        called.append(submit(*call))
        return called[-1]

    monkeypatch.setattr(crew._pool, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        passes(crew, 1)
    for call in called:
        call.result(20)
    assert crew._mail[mail.AWAKE] == 0
    monkeypatch.undo()
    assert work_until(crew, lambda: helped(crew))


def test_a_wrong_count_is_put_right():
    """Whatever an interrupt leaves, there are no fewer helpers than none."""
    crew = Crew(2)
    crew._mail[mail.AWAKE] = -1
    assert work_until(crew, lambda: helped(crew))
    crew._pool.shutdown()
    assert crew._mail[mail.AWAKE] == 0


def test_the_interpreter_shuts_down(monkeypatch):
    """A thread that still trains when the main one has ended gets no helpers, and ends its work alone."""
    crew = Crew(3)

    def refuse(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(crew._pool, "submit", refuse)
    assert (passes(crew, 10) == 10).all()
    assert crew._mail[mail.AWAKE] == 0
    assert crew.split(lambda *part: part, 192, 10**9) == [(0, 64), (64, 128), (128, 192)]


def test_no_part_goes_on_after_an_error():
    """The arrays that a part writes to are somebody else's as soon as the error is out."""
    crew, begun, ended = Crew(2), threading.Event(), []

    def part(first, last):
        if threading.current_thread() is threading.main_thread():
            begun.wait(20)
            raise ZeroDivisionError
        begun.set()
        time.sleep(0.1)
        ended.append(first)

    with pytest.raises(ZeroDivisionError):
        crew.split(part, 128, 10**9)
    assert len(ended) == 1


def test_parts_do_not_wait_for_who_does_not_come():
    """As with passes: threads that others keep busy are not needed."""
    crew, free = Crew(2), threading.Event()
    busy = crew._pool.submit(free.wait)
    assert crew.split(lambda *part: part, 128, 10**9) == [(0, 64), (64, 128)]
    free.set()
    busy.result()


@pytest.mark.parametrize(("shortest", "patience"), [(20e-6, 50 * mail.TRIAL), (1.0, 1000)])
def test_patience_is_measured_on_a_busy_machine(shortest, patience, monkeypatch):
    """Helpers of a run that began next to others gave up at once, for as long as it took."""
    lengths = iter([1.0] * (mail.TRIALS - 1) + [shortest])
    times = iter([time for length in lengths for time in (5.0, 5.0 + length)])
    monkeypatch.setattr(mail.time, "perf_counter", lambda: next(times))
    assert mail.moments(1e-3) == pytest.approx(patience, rel=1e-3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that binds processes")
def test_one_processor_for_all():
    """Where all threads have one processor, whoever waits gives way: three take no longer than one."""
    before = os.sched_getaffinity(0)
    seconds = {1: [], 3: []}
    os.sched_setaffinity(0, {min(before)})
    try:
        crews = {threads: Crew(threads) for threads in seconds}
        for crew in crews.values():
            passes(crew, 500)
        for _ in range(8):
            for threads, crew in crews.items():
                start = time.perf_counter()
                passes(crew, 200, rounds=20_000)
                seconds[threads].append(time.perf_counter() - start)
    finally:
        os.sched_setaffinity(0, before)
    assert min(seconds[3]) < 1.4 * min(seconds[1])  # without giving way it takes twice as long
