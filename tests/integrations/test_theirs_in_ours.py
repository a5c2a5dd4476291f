"""Schedulers of diffusers as solvers against the same schedulers called by hand, over every recorded case."""

import sys

import pytest
import torch

import seedsbench
from seedsbench.denoisers.prediction import raw_output_of
from seedsbench.integrations.schedulers import KNOWN, REFUSED
from seedsbench.integrations.torch_randn import InPlaceOfTorch
from seedsbench.noise import Recorded
from seedsbench.solvers.integrate import NonFiniteError
from tests.support.golden import cases
from tests.support.measure import mixture
from tests.support.parity import relative_error

diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
FILES = ("ddpm", "diffusers_multistep", "diffusers_sigma", "dpm_diffusers")
NATIVE = cases("diffusers_native")[0]  # starts and ends of all cases, of diffusers as it is (0.42.1)
ENDS = zip(NATIVE["latents"], NATIVE["x_final"], strict=True)
RECORDED = dict(zip(NATIVE.settings["cases"], ENDS, strict=True))
CASES = [case for name in FILES for case in cases(name)]


def settings_of(case):
    s = case.settings
    name = s.get("scheduler", str(case).split("/")[0])
    return name, dict(s.get("config") or {}), dict(s.get("step_kwargs") or {}), s["num_inference_steps"]


def test_all_recorded_cases_are_here():
    assert len(CASES) == len({str(case) for case in CASES}) == len(RECORDED) == 246


def level_at(scheduler, t):
    """The noise level a network means by a timestep, written out once more."""
    name = type(scheduler).__name__
    if name == "IPNDMScheduler":
        return (t.double() * torch.pi / 2).tan()
    if name.startswith("EDM") or scheduler.config.get("timestep_type") == "continuous":
        return (4 * t.double()).exp()
    table = scheduler.alphas_cumprod.double()
    logs = 0.5 * ((1 - table) / table).log()
    low = t.double().floor().long().clamp(0, len(table) - 2)
    return (logs[low] + (t.double() - low) * (logs[low + 1] - logs[low])).exp()


def output_at(scheduler, given, sigma):
    """What a network of the mixture puts out for what it is given."""
    if not type(scheduler).__name__.startswith("EDM"):
        kind = scheduler.config.get("prediction_type", "v_prediction")
        denoised = mixture()(given * (1 + sigma**2).sqrt(), sigma)
        return raw_output_of(kind, denoised, given, sigma)
    data = scheduler.config.sigma_data
    spread = (sigma**2 + data**2).sqrt()
    x = given * spread
    out = (mixture()(x, sigma) - x * data**2 / spread**2) * spread / (sigma * data)
    return -out if scheduler.config.prediction_type == "v_prediction" else out


def by_hand(case):
    name, config, step, n = settings_of(case)
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(n)
    x = RECORDED[str(case)][0] * getattr(scheduler, "init_noise_sigma", 1.0)
    noise = InPlaceOfTorch(case.noise() or Recorded(x[:0]))
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t)
        out = output_at(scheduler, given, level_at(scheduler, t))
        with noise:
            x = scheduler.step(out, t, x, return_dict=False, **step)[0]
    return x, len(scheduler.timesteps)


def ours(case):
    name, config, step, n = settings_of(case)
    solver = seedsbench.solver("diffusers", scheduler=name, config=config, step_options=step, levels="own")
    latents = RECORDED[str(case)][0]
    noise = case.noise() or Recorded(latents[:0])
    return seedsbench.sample(mixture(), latents, solver=solver, steps=n - 1, noise=noise)


FIRST = {settings_of(case)[0]: str(case) for case in reversed(CASES)}.values()
# Its timesteps are log(sigma) / 4; the recorded network took them for places in the table.
OTHERWISE = "EulerDiscreteScheduler/continuous_v_karras_S8"


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=str(c), marks=() if str(c) in FIRST else pytest.mark.slow) for c in CASES],
)
def test_samples_are_those_of_the_scheduler_called_by_hand(case):
    """To 1e-6 of the largest value, and to 2e-5 those recorded: there tables of the network had float64.

    What diffusers makes NaN is an error here.
    """
    (expected, evaluations), recorded = by_hand(case), RECORDED[str(case)][1]
    if not expected.isfinite().all():
        assert case.settings["finite"] is False
        with pytest.raises(NonFiniteError):
            ours(case)
        return
    got = ours(case)
    assert got.nfe.tolist() == [evaluations] * 2
    assert relative_error(got.x, expected) <= 1e-6
    assert str(case) == OTHERWISE or relative_error(got.x, recorded) <= 2e-5


def drawn(indices, **options):
    solver = seedsbench.solver("diffusers", **options)
    z = seedsbench.noise.latents(indices, (2, 1, 1), seed=3)
    return seedsbench.sample(mixture(), z, solver=solver, steps=6, seed=3, indices=indices).x


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DDPMScheduler", {}),
        ("DDIMScheduler", {"step_options": {"eta": 1.0}}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"step_options": {"s_churn": 3.0}}),
        ("DPMSolverMultistepScheduler", {"config": {"algorithm_type": "sde-dpmsolver++"}}),
        ("SASolverScheduler", {"levels": "own"}),
    ],
)
def test_noise_is_ours_whatever_the_batch_and_torchs_seed(scheduler, options):
    assert seedsbench.solver("diffusers", scheduler=scheduler, **options).stochastic
    torch.manual_seed(0)
    whole = drawn(torch.arange(7), scheduler=scheduler, **options)
    torch.manual_seed(1)
    parts = [drawn(part, scheduler=scheduler, **options) for part in torch.arange(7).split(3)]
    assert torch.equal(torch.cat(parts), whole)
    torch.manual_seed(0)
    assert float(torch.rand(())) == float(torch.rand((), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler": "DPMSolverMultistep"}, "'DPMSolverMultistepScheduler'"),
        ({"config": {"algorithm": "dpmsolver"}}, "unknown option 'algorithm'. Did you mean 'algorithm_type'"),
        ({"config": {"algorithm_type": "euler"}}, "euler is not implemented"),
        ({"scheduler": "DDIMScheduler", "step_options": {"etta": 1}}, "Did you mean 'eta'"),
        ({"config": {"use_karras_sigmas": True}}, "use solver.levels=own"),
        ({"scheduler": "UnCLIPScheduler"}, "the variance that its network learnt"),
        ({"scheduler": "RePaintScheduler"}, "a mask to fill in"),
        ({"scheduler": "VQDiffusionScheduler"}, "states are tokens"),
        ({"scheduler": "TCDScheduler"}, "distilled"),
        ({"scheduler": "DPMSolverSDEScheduler"}, "torchsde"),
        ({"scheduler": "IPNDMScheduler"}, "use solver.levels=own"),
        ({"scheduler": "DDPMScheduler", "config": {"variance_type": "learned"}}, "has no variance"),
    ],
)
def test_what_cannot_be_driven_is_refused_in_one_line(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        seedsbench.solver("diffusers", **options).nfe(5)
    assert "\n" not in str(caught.value)


def test_every_scheduler_of_the_library_is_known_or_refused():
    names = {name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    assert names - set(KNOWN) - set(REFUSED) == set()


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    solver = seedsbench.solver("diffusers", config={"solver_order": 1})
    with pytest.raises(ValueError, match=r'pip install "seedsbench\[diffusers\]"'):
        solver.nfe(3)


@pytest.mark.parametrize("scheduler", [n for n, known in KNOWN.items() if not known.own_alone])
def test_it_visits_the_levels_of_the_grid(scheduler):
    asked = []

    def denoiser(x, sigma, labels):
        asked.append(float(sigma))
        return mixture()(x, sigma, labels)

    grid = [30.0, 10.0, 3.0, 1.0, 0.3, 0.05]
    solver = seedsbench.solver("diffusers", scheduler=scheduler)
    start = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    seedsbench.sample(denoiser, start, solver=solver, sigmas=grid)
    missing = [level for level in grid if not any(abs(level - s) < 1e-5 * level for s in asked)]
    assert not missing


def test_the_row_says_that_the_levels_were_not_the_grids():
    assert seedsbench.solver("diffusers").notes() == ()
    (note,) = seedsbench.solver("diffusers", levels="own").notes()
    assert "chose its own noise levels" in note
