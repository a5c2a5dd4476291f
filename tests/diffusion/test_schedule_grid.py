"""Schedules invert and differentiate; grids decrease, meet their ends and snap; ranges are EDM's."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seedsbench
from seedsbench import registry
from seedsbench.api import noise_levels
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS
from seedsbench.diffusion.grid import EDM, DiscreteGrid, Explicit, FlowUniform, IDDPMGrid, iddpm_table
from seedsbench.diffusion.schedule import VE, VP, Discrete, Flow, Geometric, Linear, SubVP
from tests.support.cells import compose
from tests.support.golden import golden
from tests.support.parity import built

SCHEDULES = [VP(), VP(scaling="none"), VE(), VE(scaling="vp"), Linear(), Linear(scaling="vp"), Discrete()]
SCHEDULES += [Discrete(beta_schedule=b) for b in ("scaled_linear", "squaredcos_cap_v2")]
SCHEDULES += [SubVP(), SubVP(scaling="none"), Linear(scaling="subvp"), Geometric()]
SCHEDULES += [Flow(), Flow(scaling="vp"), Linear(scaling="flow")]
SIGMAS = torch.logspace(-2, 1.8, 50, dtype=torch.float64)
GRIDS = [
    n
    for n in registry.names("grid")
    if n not in ("explicit", "gits_cifar10", "searched", "discrete", "flow_uniform") and n[:3] != "ays"
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_sigma_inverts_and_derivatives_match_autograd(schedule):
    assert torch.allclose(schedule.sigma(schedule.sigma_inv(SIGMAS)), SIGMAS, rtol=1e-9)
    t = (schedule.sigma_inv(SIGMAS) + 1e-7).requires_grad_()
    pairs = (schedule.sigma(t), schedule.dsigma(t)), (schedule.scale(t), schedule.dscale(t))
    for value, derivative in pairs:
        if not value.requires_grad:  # a constant scale
            assert not derivative.any()
            continue
        (numeric,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        assert torch.allclose(derivative, numeric, rtol=1e-8)


@pytest.mark.parametrize(("schedule", "first"), [(VP(), 1e-3), (SubVP(), 1e-3), (Geometric(), 0.0)], ids=repr)
@pytest.mark.parametrize("low", [0.002, 0.005])
def test_a_fitted_schedule_has_the_range_at_its_ends(schedule, first, low):
    ends = schedule.through(low, 80.0).sigma(torch.tensor([first, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([low, 80.0], rel=1e-9)


def test_a_range_that_no_vp_schedule_fits_leaves_its_constants():
    assert VP().through(0.5, 2.0) == VP()


@settings(max_examples=60)
@given(
    name=st.sampled_from(GRIDS), n=st.integers(2, 200), low=st.floats(1e-3, 0.05), high=st.floats(5.0, 150.0)
)
def test_grids_decrease_between_the_ends_of_the_range(name, n, low, high):
    grid = built("grid", name)
    low, high = grid.range(low, high)
    levels = grid.levels(n, low, high, Linear())
    assert len(levels) == n
    assert levels.dtype == torch.float64
    assert float(levels[0]) <= high * (1 + 1e-9)
    assert float(levels[-1]) >= low * (1 - 1e-9)
    assert bool((levels.diff() <= 0).all())
    if name != "iddpm":
        assert bool((levels.diff() < 0).all())
        assert levels[[0, -1]].tolist() == pytest.approx([high, low], rel=1e-7)


RANGES = {"vp": (0.010485992786702987, 152.16697), "ve": (0.02, 100)}
RANGES |= {"iddpm": (0.006422337, 81), "edm": (0.002, 80), "flow": (0.002, 999)}


@pytest.mark.parametrize("regime", RANGES)
def test_regimes_have_the_ranges_of_edms_table_and_flow_its_start(regime):
    network = PRECONDITIONERS[regime]
    grid = registry.build(compose(f"regime={regime}").grid)
    assert grid.range(network.sigma_min, network.sigma_max) == pytest.approx(RANGES[regime], rel=1e-7)


def velocity(x, t):
    """On unit-variance data about 0.7, of x = (1 - t) data + t noise: E[noise - data | x]."""
    rest = x - (1 - t) * 0.7
    return (2 * t - 1) * rest / ((1 - t) ** 2 + t**2) - 0.7


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("final", ["denoise", "euler"])
def test_euler_on_the_flow_schedule_is_flow_matchings_euler(shift, final):
    x = START = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(7, 1, 1, 1)
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    times = shift * times / (1 + (shift - 1) * times) * 0.999
    x = 0.999 * x
    for t, t_next in itertools.pairwise(times.tolist()):
        x = x + (t_next - t) * velocity(x, t)

    def denoiser(x, sigma, labels):
        t = float(sigma / (1 + sigma))
        return (1 - t) * x - t * velocity((1 - t) * x, t)

    grid = {"name": "flow_uniform", "shift": shift}
    ours = seedsbench.sample(
        denoiser, START, solver="euler", steps=9, schedule="flow", grid=grid, final=final
    )
    torch.testing.assert_close(ours.x, x, rtol=1e-12, atol=1e-12)
    assert ours.nfe.tolist() == [10] * 7


def test_a_flow_grid_starts_where_it_says_or_where_the_network_ends():
    def first(sigma_max=math.inf, **options):
        network = SimpleNamespace(sigma_min=0.0, sigma_max=sigma_max)
        levels, schedule = noise_levels(network, Flow(), FlowUniform(**options), 9)
        return float(schedule.sigma_inv(levels[0]))

    assert first() == pytest.approx(0.999, rel=1e-12)
    assert first(start=0.9) == pytest.approx(0.9, rel=1e-12)
    assert first(sigma_max=3.0) == pytest.approx(0.75, rel=1e-12)
    assert first(shift=3.0) == pytest.approx(0.999, rel=1e-12)


def test_iddpm_levels_are_the_networks_own():
    network = PRECONDITIONERS["iddpm"]
    levels, _ = noise_levels(network, Linear(), IDDPMGrid(), 40)
    table = network.table("cpu")
    assert bool(torch.isin(levels, table.double()).all())
    published = torch.as_tensor(golden("nv_precond_tables").array("iddpm_default", "u"))
    assert torch.allclose(table, published, rtol=1e-5)  # float32 sines differ among processors
    assert torch.allclose(iddpm_table(0.001, 0.008, 1000)[:-1], published[:-1].double(), rtol=2e-4)


def test_a_grid_finer_than_the_table_merges_levels():
    levels, _ = noise_levels(PRECONDITIONERS["iddpm"], Linear(), EDM(), 400)
    assert len(levels) < 401
    assert bool((levels[1:] < levels[:-1]).all())


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: Explicit(sigmas=(1.0,)), "at least two"),
        (lambda: Explicit(sigmas=(1.0, 2.0)), "decrease"),
        (lambda: Explicit(sigmas=(1.0, 1.0)), "decrease"),
        (lambda: Explicit(sigmas=(1.0, 0.0)), r"sigmas\[1\]=0.0 must lie in \(0, "),
        (lambda: Explicit(sigmas=(math.nan, 1.0)), "must be a number"),
        (lambda: Explicit(sigmas=(math.inf, 1.0)), r"sigmas\[0\]=inf must lie in"),
        (lambda: DiscreteGrid().levels(5, 0.1, 1, Linear()), "use schedule=discrete"),
        (lambda: DiscreteGrid(steps_offset=1).levels(1000, 0, 0, Discrete()), "use steps_offset=0 or less"),
        (lambda: DiscreteGrid(steps_offset=1, timestep_spacing="trailing"), "set steps_offset=0 with"),
        (lambda: Discrete(trained_betas=0.1), r"trained_betas=0.1 must be a list of numbers in \(0, 1\)"),
        (lambda: EDM().range(100.0, 200.0), r"grid\.sigma_min"),
        (lambda: EDM(sigma_min=3.0, sigma_max=2.0), "sigma_min < sigma_max"),
    ],
)
def test_errors_of_grids_and_tables_say_what_would_work(use, message):
    with pytest.raises(ValueError, match=message):
        use()
