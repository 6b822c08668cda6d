"""Training one run after the other in this process: no workers, nothing to install, the same results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pcsim.experiments.sweep.job import Job, Outcome, Tell, train


class Here:
    """A runner that trains as it is asked for the next outcome."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Train all jobs in their order."""
        for job in jobs:
            yield train(job, self._tell)
