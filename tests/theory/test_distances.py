"""Distances along T and β, figure 1, and `pcsim theory`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError, NonFiniteError
from pcsim.learning import MQ
from pcsim.schedule.program import Schedule
from pcsim.theory import digits_cases, draw_distances, draw_figure1, figure1, measure_distances
from pcsim.theory.distances import Contender, change_of, warm_case
from pcsim.theory.problem import Problem
from pcsim.theory.samples import random_data, random_network
from pcsim.theory.updates import update


def test_exact_setting_closes_in_and_the_printed_one_does_not():
    """What the page says: the first ends at the proximal update, the others do not."""
    along_t, along_beta = measure_distances(
        (0, 1, 600), (0.1, 10.0), networks=2, sizes=(4, 5, 3), most_iterations=20
    )
    found = {(row.name, row.iterations): row for row in along_t}
    exact = [found["Theorem 1, exact", t].median for t in (0, 1, 600)]
    assert exact[0] > exact[1] > exact[2]
    assert exact[2] < 1e-3
    assert found["Theorem 1, printed", 600].median > 0.02
    assert {row.proximal_step for row in along_beta} == {0.1, 10.0}
    assert all(len(row.distances) == 2 for row in (*along_t, *along_beta))
    assert draw_distances(along_t, along_beta).axes


def test_printed_and_rescaled_agree_at_one():
    """β = 1 hides where β belongs: there the two settings are one."""
    along_t, _ = measure_distances((20,), (), networks=1, sizes=(3, 4, 2))
    found = {row.name: row.median for row in along_t}
    assert found["Theorem 1, printed"] == pytest.approx(found["Theorem 1, printed, β moved"], rel=1e-12)


def test_mq_state_is_carried_into_the_update():
    """An update must use the v_l that it is given, and leave the network alone."""
    network = random_network(0, (3, 4, 2), proximal_step=10.0)
    before = [array.tobytes() for pair in network.parameters for array in pair]
    rule, data = MQ(rate=1e-3, minimum_rate=0.0, r=1e-300), random_data(0, network, 1)

    def change(v):
        carried = {"mean_gradient_0": np.array([v])}
        return Problem(network, *data, 1.0).pairs(update(network, Schedule(), rule, *data, carried))

    one, two = change(0.01), change(0.02)
    np.testing.assert_allclose(one[0][0], 2 * two[0][0], rtol=1e-12)
    np.testing.assert_array_equal(one[1][0], two[1][0])
    assert [array.tobytes() for pair in network.parameters for array in pair] == before


def test_blown_up_activities_are_named():
    """A step far too large must end in one line, not in NaN curves."""
    case = warm_case(0, (3, 4, 2), samples=30)
    wild = Contender("wild", "sequential", 1e4, MQ(1e-3), True)
    with pytest.raises(NonFiniteError, match="wild"):
        change_of(wild, case, case.problem(1.0), 200)


def test_figure1_falls_to_the_proximal_update():
    """The claim of figure 1 for the exact setting, and that nothing gets below the optimum."""
    result = figure1(digits_cases(2, sizes=(64, 12, 10)), iterations=(0, 1, 5, 30, 200))
    curves = {curve.name: curve for curve in result.curves}
    exact = curves["Theorem 1, exact"]
    assert list(exact.losses) == sorted(exact.losses, reverse=True)
    assert exact.gaps[-1] < 1e-6
    assert exact.losses[-1] == pytest.approx(result.optimum, rel=1e-6)
    assert min(min(curve.gaps) for curve in result.curves) > -1e-9
    assert result.backprop_gap <= result.sgd_gap
    assert draw_figure1(result).axes


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["theorem1", "--networks", "1", "--beta", "0.1", "--iterations", "100"], lambda out: out),
        (["theorem2", "--networks", "1"], lambda out: out),
        (["backprop-limit"], lambda out: out),
        (["figure1", "--samples", "1"], lambda out: out["curves"]),
        (["proximal", "--networks", "1", "--iterations", "5"], lambda out: out["along_iterations"]),
    ],
)
def test_commands_write_pictures_and_numbers(arguments, rows, tmp_path):
    """Each subcommand, as a script would call it."""
    picture = tmp_path / "picture.svg"
    outcome = CliRunner().invoke(app, ["theory", *arguments, "-o", str(picture), "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert rows(json.loads(outcome.stdout))
    assert picture.read_text().startswith("<?xml")
    again = CliRunner().invoke(app, ["theory", *arguments, "-o", str(picture)])
    assert isinstance(again.exception, ConfigurationError)
    assert "--force" in str(again.exception)


def test_commands_refuse_a_bad_step():
    """A proximal step of 0 divides by it."""
    outcome = CliRunner().invoke(app, ["theory", "theorem1", "--beta", "0"])
    assert isinstance(outcome.exception, ConfigurationError)
    assert "above 0" in str(outcome.exception)
