"""Weak order 3: what the coefficients say, what is measured, and that wrong noises have neither."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import seedsbench
from seedsbench.certify.weak import gaussian_moments, kolmogorov_order
from seedsbench.diffusion.noise import Recorded
from seedsbench.solvers.parts.stage_noise import PATH, OnPath, Redrawn, StageNoise, Tilted, path_covariance
from seedsbench.solvers.parts.weak_conditions import joint_covariance, weak_conditions, weak_order
from seedsbench.solvers.seeds_weak3 import Seeds3Tilted, Seeds3Twice, Seeds4
from tests.support.measure import plane_covariance, weak_orders

NEW = {"seeds4": Seeds4, "seeds3twice": Seeds3Twice, "seeds3_tilted": Seeds3Tilted}
OPTIONS = [
    *({}, {"prediction": "noise"}, {"prediction": "edm"}, {"eta": 0.5}),
    {"prediction": "noise", "eta": 0.5},
]


def with_law(kind, law):
    """The solver with another law of its noises."""

    @dataclass(frozen=True)
    class Changed(kind):
        stage_noise: ClassVar[StageNoise] = law

    return Changed()


CONTROLS = [
    pytest.param(with_law(Seeds4, Redrawn(0.0)), id="seeds4, midpoints independent given the end"),
    pytest.param(with_law(Seeds4, PATH), id="seeds4 on the path"),
    pytest.param(with_law(Seeds3Twice, Redrawn(1.0)), id="seeds3twice on the path"),
    pytest.param(with_law(Seeds3Twice, Redrawn(0.5)), id="seeds3twice, redraws correlated"),
    pytest.param(with_law(Seeds3Tilted, Tilted(1 / 16)), id="seeds3_tilted, half the tilt"),
    pytest.param(with_law(Seeds3Tilted, PATH), id="seeds3_tilted on the path"),
]


def measured(solver):
    """The order of a Gaussian's variance, in a range of levels where it shows with few steps."""
    return weak_orders(solver, 128, std=0.8, low=0.2)[1]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NEW)
def test_variance_of_a_gaussian_converges_with_order_three(name, options):
    solver = seedsbench.solver(name, **options)
    assert solver.weak_order == 3
    # The splitting of EDM's network shows its order later: 3.15, 3.08 at twice the steps with seeds4.
    assert measured(solver) == pytest.approx(3, abs=0.2 if options.get("prediction") == "edm" else 0.15)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, marks=() if (name, options) == ("seeds4", {}) else pytest.mark.slow)
        for name, options in itertools.product(NEW, OPTIONS)
    ],
)
def test_expectations_on_the_mixture_converge_with_order_three(name, options):
    """At eta = 0.5 errors are near the quadrature's own, 5e-8, before the limit shows."""
    within = 0.25 if options else 0.15
    assert kolmogorov_order(seedsbench.solver(name, **options), 32).order == pytest.approx(3, abs=within)


@pytest.mark.parametrize("solver", CONTROLS)
def test_with_other_correlations_the_order_is_two_by_conditions_and_by_measurement(solver):
    assert solver.weak_order == 2
    assert 1.7 < measured(solver) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("solver", CONTROLS)
def test_with_other_correlations_the_order_is_two_on_the_mixture(solver):
    assert kolmogorov_order(solver, 32).order < 2.6


def test_which_conditions_are_met():
    for name, kind in NEW.items():
        conditions = weak_conditions(kind.coefficients, kind.stage_noise, symmetric=False)
        broken = [one.name for one in conditions if not one.holds]
        assert broken == (["sum b a g", "sum b b C"] if name == "seeds3_tilted" else [])
    assert weak_order(Seeds3Tilted.coefficients, Seeds3Tilted.stage_noise, symmetric=False) == 2


@pytest.mark.parametrize("name", [name for name in seedsbench.solver_names() if name[:4] in ("seed", "etd_")])
def test_noise_off_the_path_alone_has_weak_order_three(name):
    solver = seedsbench.solver(name, eta=1.0)
    if name not in (*NEW, "seeds_multistep"):
        assert solver.weak_order == min(solver.order, 2)


# --- a drift with and without a symmetric Jacobian ---


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_tilt_needs_a_symmetric_jacobian_and_the_others_do_not(name, symmetric):
    matrix = torch.tensor([[0.3, 0.7], [0.7, 0.6]] if symmetric else [[0.3, 0.9], [0, 0.6]]).double()
    ends = [plane_covariance(seedsbench.solver(name), matrix, n) for n in (32, 64, 128)]
    coarse, fine = (float((b - a).norm()) for a, b in itertools.pairwise(ends))
    wanted = 3 if symmetric or name != "seeds3_tilted" else 2
    assert np.log2(coarse / fine) == pytest.approx(wanted, abs=0.25)


# --- laws ---

LAWS = {
    "path": (PATH, (0.0, 0.4, 0.7, 1.0)),
    "redrawn": (Redrawn(-0.3), (0.0, 0.4, 0.7, 0.7, 1.0)),
    "redrawn from the start": (Redrawn(0.5), (0.0, 0.5, 0.5, 1.0, 1.0)),
    "tilted": (Tilted(1 / 8), (0.0, 1 / 3, 2 / 3, 1.0)),
}


@pytest.mark.parametrize("name", LAWS)
@given(span=st.floats(0.01, 12.0), falling=st.booleans(), power=st.floats(0.3, 2.0))
def test_noises_drawn_have_the_covariance_declared(name, span, falling, power):
    """On short steps and long, in clocks that speed up and that slow down."""
    law, nodes = LAWS[name]
    rate = torch.tensor(power * span * (-1 if falling else 1), dtype=torch.float64)
    clocks = [torch.expm1(rate * node) / rate for node in nodes]
    ratio, size = torch.tensor(-span, dtype=torch.float64).exp(), 6
    noise = Recorded(torch.eye(size, dtype=torch.float64).reshape(size, size, 1, 1, 1))
    drawn = [value.expand(size, 1, 1, 1).flatten() for value in law.draw(nodes, clocks, ratio, noise)]
    assert drawn[0].abs().max() == 0
    inner = [i for i, node in enumerate(nodes[:-1]) if 0 < node < 1] + [len(nodes) - 1]
    wanted = law.covariance([clocks[i] - clocks[0] for i in inner], ratio)
    for i, j in itertools.product(range(len(inner)), repeat=2):
        found = float(drawn[inner[i]] @ drawn[inner[j]])
        assert found == pytest.approx(float(wanted[i][j]), rel=1e-6, abs=1e-9 * float(clocks[-1]))


def test_a_stage_at_the_end_has_the_ends_noise():
    joint = joint_covariance(Seeds4.coefficients, Seeds4.stage_noise)
    assert joint[3].tolist() == joint[4].tolist() == joint[:, 4].tolist() == [0, 0.5, 0.5, 1, 1]
    assert joint[1, 2] == pytest.approx(1 / 4 + 1 / 8)


@dataclass(frozen=True)
class Impossible(OnPath):
    """The first stage has more in common with the end than it varies."""

    def covariance(self, times, ratio):
        found = path_covariance(times)
        found[0][-1] = found[-1][0] = torch.ones(())
        return found


@dataclass(frozen=True)
class LopSided(OnPath):
    """Two answers to one question."""

    def covariance(self, times, ratio):
        found = path_covariance(times)
        found[0][-1] = torch.zeros(())
        return found


@pytest.mark.parametrize(("law", "said"), [(Impossible(), "no noises at"), (LopSided(), "must be symmetric")])
def test_a_law_that_cannot_be_is_refused_on_construction(law, said):
    with pytest.raises(ValueError, match=said):
        with_law(Seeds3Tilted, law)


def test_on_long_steps_the_tilt_fades_and_the_path_is_left():
    """One step from 80 to 0.002: the variance is that of seeds3."""
    tilted, path = (gaussian_moments(name, 1, high=80.0, low=0.002) for name in ("seeds3_tilted", "seeds3"))
    assert tilted == pytest.approx(path, rel=1e-4)
