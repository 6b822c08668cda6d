"""Does what is missing of a plan: a process a run, so that one that fails or is killed harms no other."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal, Protocol

from pcsim.errors import PcsimError
from pcsim.experiments.reproduce.jobs import Job, Standing, look, note_failure
from pcsim.experiments.reproduce.worker import to_request
from pcsim.experiments.workers import environment

NO_PIXELS = "no pixels here"
NOT_RUN = "not run"
PATIENCE = 20.0  # seconds that an interrupted run has to write what it knows

Kind = Literal["finished", "done", "failed", "no data"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        kind: finished before, done now, failed, or no data set.
        reason: why it failed or could not be tried.
    """

    kind: Kind
    reason: str = ""


class Watcher(Protocol):
    """Who wants to know how the runs go."""

    def plan(self, epochs: int) -> None:
        """Learn how many epochs there are to do, all runs together."""
        ...

    def begin(self, job: Job, standing: Standing) -> None:
        """Learn that a run begins, or goes on."""
        ...

    def advance(self, job: Job, done: int, steps: int, news: str) -> None:
        """Learn how many of its training steps are done, and how it stands."""
        ...

    def end(self, job: Job, outcome: Outcome) -> None:
        """Learn what became of a run; also of those that were not begun."""
        ...


def run_all(
    jobs: Iterable[Job], watcher: Watcher, *, processes: int = 1, threads: int = 1
) -> dict[Job, Outcome]:
    """Do what is missing, in this order; a run that fails is noted in its folder and the others go on.

    Args:
        jobs: the runs that are wanted.
        watcher: is told how they go.
        processes: runs at a time.
        threads: of each.

    Returns:
        What became of each.

    Raises:
        PcsimError: the folder of the runs cannot be written.
        KeyboardInterrupt: after all runs have been interrupted and have written what they know.
    """
    outcomes: dict[Job, Outcome] = {}
    waiting: list[tuple[Job, Standing]] = []
    for job in dict.fromkeys(jobs):
        early, standing = _before(job)
        if early is None:
            waiting.append((job, standing))
        else:
            outcomes[job] = early
            watcher.end(job, early)
    watcher.plan(sum(job.epochs - standing.epochs for job, standing in waiting))
    with _Crew(watcher, threads) as crew:
        while waiting or crew.busy:
            while waiting and crew.busy < processes:
                crew.start(*waiting.pop(0))
            outcomes |= crew.wait()
    return outcomes


def _before(job: Job) -> tuple[Outcome | None, Standing]:
    """Return what is known of a run without trying it, and how far it has come."""
    try:
        standing = look(job)
    except PcsimError as error:
        return Outcome("failed", str(error)), Standing("other")
    if standing.state == "finished":
        return Outcome("finished"), standing
    if standing.why:
        return Outcome("failed", standing.why), standing
    if not job.place.has(job.task.data):
        return Outcome("no data", f"{NO_PIXELS}: pcsim data fetch {job.task.data}"), standing
    return None, standing


@dataclass
class _Run:
    """A run that is under way."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    rest: bytes = b""
    steps: int = 0
    done: int = 0
    news: str = ""
    error: str = ""
    whole: bool = False


@dataclass
class _Crew:
    """The processes at work."""

    watcher: Watcher
    threads: int
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    @property
    def busy(self) -> int:
        """How many there are."""
        return len(self._selector.get_map())

    def start(self, job: Job, standing: Standing) -> None:
        """Start a process for a run."""
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            log = (job.folder / "log").open("ab")
        except OSError as error:
            raise PcsimError(
                f"cannot write {job.folder}: {error.strerror}; give another --runs folder"
            ) from error
        process = subprocess.Popen(
            [sys.executable, "-m", "pcsim.experiments.reproduce.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(self.threads),
            start_new_session=True,  # Ctrl-C is for us; we pass it on, once
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(to_request(job, self.threads)).encode() + b"\n")
        process.stdin.close()
        self._selector.register(process.stdout, selectors.EVENT_READ, _Run(job, process, log))  # type: ignore[arg-type]
        self.watcher.begin(job, standing)

    def wait(self) -> dict[Job, Outcome]:
        """Listen until something is heard; return what became of the runs that have ended."""
        ended = {}
        for key, _ in self._selector.select():
            one: _Run = key.data
            heard = os.read(key.fd, 65_536)
            *lines, one.rest = (one.rest + heard).split(b"\n")
            for line in lines:
                self._hear(one, json.loads(line))
            if not heard:
                self._selector.unregister(key.fileobj)
                ended[one.job] = self._finish(one)
        return ended

    def _hear(self, one: _Run, news: Mapping[str, object]) -> None:
        """Take in one line."""
        one.steps = int(str(news.get("steps", one.steps)))
        one.done = int(str(news.get("step", one.done)))
        one.error = str(news.get("error", one.error))
        one.whole = one.whole or "done" in news
        if "epoch" in news:
            accuracy, loss = news["test_accuracy"], news["test_loss"]
            said = f"loss {loss:.4g}" if accuracy is None else f"{accuracy:.2%}"
            one.news = f"epoch {news['epoch']}: {said}"
        self.watcher.advance(one.job, one.done, one.steps, one.news)

    def _finish(self, one: _Run) -> Outcome:
        code = one.process.wait()
        one.log.close()
        if one.whole and code == 0:
            outcome = Outcome("done")
        else:
            ended = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            outcome = Outcome("failed", one.error or f"{ended}; see {one.job.folder / 'log'}")
        note_failure(one.job, outcome.reason or None)
        self.watcher.end(one.job, outcome)
        return outcome

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        """Interrupt what still runs, and wait for it to write what it knows."""
        left: Sequence[_Run] = [key.data for key in list(self._selector.get_map().values())]
        for one in left:
            one.process.send_signal(signal.SIGINT)
        for one in left:
            try:
                one.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            one.log.close()
        self._selector.close()
