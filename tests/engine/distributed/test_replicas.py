"""Replicas that share mini-batches learn what one process learns, to rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from distributed_runs import engine_of, run_distributed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import Case, cases, run

from pcsim.engine.distributed.learning import check_replicas
from pcsim.engine.distributed.plan import Distribution
from pcsim.engine.distributed.team import Team
from pcsim.errors import ConfigurationError
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.network import Network

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
SHARED_RULES = st.sampled_from(["sgd", "mq", "adam"])


@pytest.fixture(scope="module")
def replicas():
    """Two replicas of two stages: four processes."""
    with Team.start(Distribution(2, replicas=2, timeout=60)) as started:
        yield started


@settings(max_examples=8, suppress_health_check=SLOW)
@given(case=cases(depth=st.integers(2, 5), batch=st.sampled_from([2, 4]), rule=SHARED_RULES))
def test_replicas_agree_with_the_whole_batch(replicas, case):
    """Half the samples each, sums by all-reduce: one process with all of them, to rounding."""
    expected, found = run(case, "fast").bits(), run_distributed(replicas, case)
    assert expected.keys() == found.keys()
    for name, bits in expected.items():
        one, other = np.frombuffer(bits), np.frombuffer(found[name])
        assert np.abs(one - other).max() <= 1e-12 * max(1.0, np.abs(one).max()), name


def test_replicas_of_convolutions(replicas):
    """Windows of all samples count alike, wherever they are."""
    sizes = Network.of(["1x6x6", "conv 3 3x3/1", "dense 2"]).sizes
    case = Case(sizes=sizes, rule="mq", batch=4)

    def network():
        return Network.of(["1x6x6", "conv 3 3x3/1", "dense 2"], dtype="float64", seed=1)

    expected = run(case, "fast", network=network()).bits()
    found = run_distributed(replicas, case, network=network())
    for name, bits in expected.items():
        one, other = np.frombuffer(bits), np.frombuffer(found[name])
        assert np.abs(one - other).max() <= 1e-12 * max(1.0, np.abs(one).max()), name


def test_what_replicas_refuse(replicas):
    """A sample cannot be halved, and NLMS takes one at a time."""
    with pytest.raises(ConfigurationError, match="2 replicas of a mini-batch of 3"):
        engine_of(replicas, Case(batch=3))
    with pytest.raises(ConfigurationError, match="replicas with nlms"):
        engine_of(replicas, Case(rule="nlms"))


@dataclasses.dataclass(frozen=True)
class OwnArithmetic:
    """A rule, and its learner, that look at the errors at their synapses themselves."""

    def __call__(self, weight, bias):
        return self

    def learn(self, kernels, weight, bias, error_above, activity, activation):
        weight += 0.1 * np.sign(error_above.T @ activity)
        return 0.1

    def state(self):
        return {}

    def place(self, *where):
        """Nothing to move."""


def test_own_arithmetic_is_refused():
    """Each replica would learn from its own samples, and their weights would drift apart in silence."""
    with pytest.raises(ConfigurationError, match="replicas with OwnArithmetic: it looks at errors"):
        check_replicas(OwnArithmetic(), 4, 2, "cpu")
    check_replicas(OwnArithmetic(), 4, 1, "cpu")
    for rule in (SGD(0.1), MQ(0.1), Adam(0.1)):
        check_replicas(rule, 4, 2, "cpu")
