"""A process that trains one run: reads what to do from standard input, tells how it goes in lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from pcsim.experiments.alone import alone
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.reproduce.jobs import Job, Place, take
from pcsim.experiments.reproduce.plans import TASKS, Algorithm
from pcsim.experiments.workers import one_line, train_in
from pcsim.training.loop import Epoch

EVERY = 0.2  # seconds between news of training steps


class Reporter:
    """Tells the parent process how far training has come."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._done, self._next = out, 0, 0.0

    def tell(self, **news: object) -> None:
        """Send one line."""
        print(json.dumps(news), file=self._out, flush=True)

    def begin(self, label: str, steps: int) -> None:
        """Tell how many training steps are to do."""
        self.tell(steps=steps)

    def step(self) -> None:
        """Tell how many are done, now and then."""
        self._done += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self.tell(step=self._done)

    def epoch(self, epoch: Epoch) -> None:
        """Tell how the epoch went."""
        accuracy = epoch.test_accuracy if epoch.test_accuracy >= 0 else None
        self.tell(step=self._done, epoch=epoch.epoch, test_accuracy=accuracy, test_loss=epoch.test_loss)


def to_request(job: Job, threads: int) -> dict[str, Any]:
    """Return a job as JSON can say it."""
    place, algorithm = job.place, job.algorithm
    return {
        "place": {
            "runs": str(place.runs),
            "models": str(place.models),
            "data_dir": None if place.data_dir is None else str(place.data_dir),
            "subset": place.subset,
        },
        "task": job.task.name,
        "algorithm": {
            "name": algorithm.name,
            "title": algorithm.title,
            "rule": algorithm.rule,
            "rate": algorithm.rate,
            "backprop": algorithm.backprop,
            "settings": list(algorithm.settings),
        },
        "seed": job.seed,
        "epochs": job.epochs,
        "threads": threads,
    }


def from_request(request: dict[str, Any]) -> Job:
    """Return the job that `to_request` has put into JSON."""
    where, algorithm = request["place"], request["algorithm"]
    place = Place(
        Path(where["runs"]),
        Path(where["models"]),
        None if where["data_dir"] is None else Path(where["data_dir"]),
        where["subset"],
    )
    chosen = Algorithm(**algorithm | {"settings": tuple(algorithm["settings"])})
    return Job(place, TASKS[request["task"]], chosen, request["seed"], request["epochs"])


def train(job: Job, threads: int, reporter: Reporter) -> None:
    """Begin a run, or go on with it.

    Raises:
        PcsimError: it cannot be done, or activities became infinite or NaN.
    """
    experiment = Experiment.from_model(job.model())
    experiment = replace(experiment, dataset=take(experiment.dataset, job.place.subset))
    train_in(job.folder, experiment, engine=job.algorithm.engine, threads=threads, progress=reporter)


def main() -> int:
    """Train; replies go to the real standard output, what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reporter = Reporter(out)
    request = json.loads(sys.stdin.readline())
    job = from_request(request)
    try:
        with alone(job.folder):
            train(job, request["threads"], reporter)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the parent is gone: what is checkpointed will be taken up again
        return 1
    except Exception as error:
        reporter.tell(error=one_line(error))
        return 1
    reporter.tell(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
