"""What the scripts of weak order 3 conclude, and that the candidates of the search have it."""

import math

import numpy as np
import pytest

from scripts import search_weak3 as search
from scripts import weak_error as weak
from seedsbench.solvers.seeds_multistep import SeedsMultistep
from seedsbench.solvers.seeds_weak3 import Seeds3Tilted, Seeds3Twice

CUBIC = {budget: 10.0 / budget**3 for budget in weak.BUDGETS}
SQUARE = {budget: 0.3 / budget**2 for budget in weak.BUDGETS}


def test_an_error_counts_at_the_budgets_that_its_evaluations_nearly_fill():
    assert weak.at_budget({12: 0.5, 15: 0.25}, 14) == 0.5
    assert math.isnan(weak.at_budget({12: 0.5}, 11))
    assert math.isnan(weak.at_budget({12: 0.5}, 16))


def test_the_page_says_where_a_solver_wins_and_where_it_loses():
    errors = dict.fromkeys(weak.NEW, CUBIC) | {"seeds3": SQUARE}
    assert weak.best_at(errors, 10) == ("seeds3", 0.3 / 100)
    said = weak.meaning(errors, "X", {})
    assert "X: the least error has seeds3 at NFE 10 to 30, seeds_multistep at NFE 40 to 400." in said
    assert (
        "`seeds4` beats every solver of weak order 2 or less that is measured at NFE 40, 80, 160, 400."
        in said
    )
    errors["er_sde"] = {10: 0.2, 20: 0.02}
    assert weak.meaning(errors, "X", {}).endswith("Not resolved, so not compared: er_sde above NFE 20.")
    part = errors | {"seeds4": {30: 1.0}}
    assert "`seeds4` beats every solver of weak order 2 or less that is measured at none" in weak.meaning(
        part, "X", {}
    )
    bounded = weak.meaning(part, "X", {"seeds4": {40: 1e-6}, "er_sde": {400: 1e-9}})
    assert "`seeds4` beats every solver of weak order 2 or less that is measured at NFE 40." in bounded
    page = weak.document({"X": errors}, {"er_sde": {40: 0.0034}})
    (row,) = [line for line in page.splitlines() if line.startswith("| er_sde")]
    assert [cell.strip() for cell in row.split("|")[2:7]] == ["2.0e-01", "-", "2.0e-02", "-", "<3e-03"]
    assert "| seeds4 " in page
    assert "seeds4" in [text.get_text() for text in weak.figure({"X": errors}).axes[0].texts]


def test_every_solver_with_a_weak_order_is_measured():
    assert {"seeds1", "seeds3", "er_sde", "ddpm", *weak.NEW} <= set(weak.solvers())
    assert not {"heun", "karras_sde", "adaptive_sde"} & set(weak.solvers())
    assert weak.steps_at("seeds4", (3, 10, 400)) == {8: 2, 400: 100}
    found = weak.gaussian_errors("seeds3", (24,))
    assert found == {24: pytest.approx(4.8e-4, rel=0.01)}


@pytest.mark.slow
def test_sampling_and_quadrature_agree():
    error, uncertainty = weak.common_noise_errors("seeds1", [8], paths=20_000)[8]
    assert error == pytest.approx(weak.mixture_errors("seeds1", (8,))[0][8], abs=4 * uncertainty)
    assert uncertainty < 0.1 * error


def test_candidates_of_the_search_keep_weak_order_three():
    for solver in search.candidates():
        assert solver.weak_order == 3
        assert solver.noise_free.order == 3
    at_home = search.TiltedAt(), search.TwiceAt(), search.MultistepAt()
    problem = search.SEARCHED["Gaussian 0.5"]
    for mine, ours in zip(at_home, (Seeds3Tilted(), Seeds3Twice(), SeedsMultistep()), strict=True):
        assert problem(mine, 4) == pytest.approx(problem(ours, 4), rel=1e-9)


def test_the_objective_is_in_powers_of_ten():
    assert search.objective(np.array([[1e-3, 1e-4]]), np.array([[1e-2, 1e-3]])) == pytest.approx(-1)
