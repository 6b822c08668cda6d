"""The golden numbers, on both engines, and proof that the comparison can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conv_oracle import ConvOracle
from oracle import Oracle

from pcsim.errors import ConfigurationError, DataError
from pcsim.experiments.verify import verify

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.npz"))


def test_the_golden_cases_are_here():
    """An empty folder would pass every comparison."""
    assert len(GOLDEN) >= 5


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_numbers(path, engine):
    """float64 numbers that were made elsewhere, to 1e-10: activities, errors, energy, weights, MQ's v."""
    deviation = verify(path, engine=engine)
    assert deviation.largest <= 1e-10
    assert (deviation.mq is not None) == ("mq" in path.stem)


def oracle_of(case) -> Oracle:
    """The oracle with the constants of a golden case."""
    depth, beta = sum(name.startswith("init/W") for name in case), float(case["beta"])
    given = [
        [case[f"init/W{i}"] for i in range(depth)],
        [case[f"init/b{i}"] for i in range(depth)],
        *(str(case[name]) for name in ("activation", "output", "order")),
        int(case["iterations"]),
        float(case["step_size"]),
        str(case["step_decay"]),
        0.0 if np.isinf(beta) else 1 / (1 + beta),
    ]
    constants = {name: float(case[name]) for name in ("alpha", "alpha_min", "r", "rho")}
    constants["rule"] = str(case["optimizer"])
    if "convs" not in case:
        return Oracle(*given, **constants)
    constants["image"] = tuple(case["image"].tolist())
    constants["convs"] = [(stride, "none", 1) for _, _, stride in case["convs"].tolist()]
    return ConvOracle(*given, **constants, from_label=str(case["learn_output_from"]) == "label")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_oracle_reproduces_them_too(path):
    """The oracle is the other half of most tests here: it must be right by the same measure."""
    case = np.load(path)
    oracle = oracle_of(case)
    depth = oracle.L

    def flat(array):
        return array.reshape(len(array), -1)

    for step in range(int(case["steps"])):
        for t, (a, e) in enumerate(oracle.step(flat(case[f"{step}/x"]), case[f"{step}/y"])):
            for layer in range(1, depth + 1):
                np.testing.assert_allclose(a[layer], flat(case[f"{step}/{t}/a{layer}"]), atol=1e-10)
                np.testing.assert_allclose(e[layer], flat(case[f"{step}/{t}/e{layer}"]), atol=1e-10)
    for i in range(depth):
        np.testing.assert_allclose(oracle.weights[i], case[f"final/W{i}"], atol=1e-10)
        np.testing.assert_allclose(oracle.biases[i], case[f"final/b{i}"], atol=1e-10)


@pytest.fixture(params=["seq_mq", "conv_seq_mq"])
def altered(tmp_path, request):
    """Return a function that writes a golden case with one array changed."""

    def write(name, change):
        case = dict(np.load(GOLDEN[0].with_name(f"{request.param}.npz")))
        case[name] = change(case[name])
        np.savez(tmp_path / "altered.npz", **case)
        return tmp_path / "altered.npz"

    return write


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("init/W1", "activity"),
        ("final/W0", "weight"),
        ("final/b1", "weight"),
        ("0/0/a1", "activity"),
        ("0/1/e2", "error"),
        ("1/0/energy", "energy"),
        ("1/v", "mq"),
    ],
)
def test_a_change_of_a_millionth_is_seen(altered, engine, name, field):
    """A comparison that cannot fail proves nothing: one number off by 1e-6."""

    def nudge(array):
        array = array.copy()
        array.flat[array.size // 2] += 1e-6
        return array

    deviation = verify(altered(name, nudge), engine=engine)
    assert 1e-9 < getattr(deviation, field) < 1e-2
    assert deviation.largest >= 1e-9


def test_nan_is_the_largest_deviation(altered):
    """NaN compares as not larger than anything: it must not pass."""
    path = altered("0/0/a1", lambda array: np.full_like(array, np.nan))
    assert verify(path).largest == float("inf")


def test_what_is_no_golden_case(tmp_path, altered):
    """One line in place of a traceback."""
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(DataError, match="expected a golden case"):
        verify(tmp_path / "text.npz")
    np.savez(tmp_path / "empty.npz", nothing=1)
    with pytest.raises(DataError, match="no 'dims'"):
        verify(tmp_path / "empty.npz")
    np.savez(tmp_path / "conv.npz", convs=np.ones((1, 3)))
    with pytest.raises(DataError, match="no 'image'"):
        verify(tmp_path / "conv.npz")
    with pytest.raises(DataError, match="expected mq, sgd, adam or nlms"):
        verify(altered("optimizer", lambda _: np.array("rprop")))
    with pytest.raises(ConfigurationError, match="backend 'abacus'"):
        verify(GOLDEN[0], backend="abacus")
