"""The schedulers against `seedsbench.sample` with the same noise, on a tiny random UNet2DModel: to 1e-6."""

from functools import cache

import pytest
import torch

import seedsbench
from seedsbench.denoisers.base import Wrapper
from seedsbench.denoisers.checkpoints.diffusers_folder import DiffusersDenoiser
from seedsbench.diffusion.grid import EDM, DiscreteGrid
from seedsbench.diffusion.schedule import Discrete
from tests.integrations.test_scheduler_contract import FIXED
from tests.support.pipelines import TINY

diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
bridge = pytest.importorskip("seedsbench.integrations.diffusers")

LEVELS = 5
QUICK = {"seeds2", "seeds3", "dpmpp_2m", "unipc", "karras_sde", "pc_ve", "restart"}


@cache
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**TINY).eval().requires_grad_(False)


class Seen(Wrapper):
    """A denoiser that remembers, unscaled, where it was evaluated first."""

    first = None

    def __call__(self, x, sigma, labels=None):
        self.first = self.first or (x, sigma)
        return self.denoiser(x, sigma, labels)


def compared(scheduler, solver, *, levels, schedule="discrete", prediction="v_prediction", final="denoise"):
    """The scheduler's sample and `sample`'s, both from the first state at which the latter evaluates."""
    latents = seedsbench.noise.latents(torch.arange(2), (3, 8, 8), seed=1)
    denoiser = Seen(DiffusersDenoiser(unet(), prediction, Discrete()))
    expected = seedsbench.sample(
        denoiser,
        latents,
        solver=solver,
        sigmas=levels,
        schedule=schedule,
        final=final,
        seed=scheduler.config.seed,
    )
    x, sigma = denoiser.first
    x = (x * (1 + sigma**2).rsqrt()).float()
    assert abs(float(x.std() / latents.std()) - scheduler.init_noise_sigma) < 0.2
    for t in scheduler.timesteps:
        x = scheduler.step(unet()(x, t).sample, t, x).prev_sample
    assert len(scheduler.timesteps) == int(expected.nfe[0])
    return x.double(), expected.x


def check(*given, **options):
    found, expected = compared(*given, **options)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FIXED]
)
def test_every_solver(name):
    scheduler = bridge.SolverScheduler(solver=name, prediction_type="v_prediction", seed=4)
    scheduler.set_timesteps(LEVELS)
    check(scheduler, name, levels=DiscreteGrid().levels(LEVELS, 0, 0, Discrete()))


@pytest.mark.parametrize(
    "options",
    [
        {"stages": 1, "prediction": "noise"},
        {"stages": 2, "eta": 0.5, "c2": 0.7},
        {"stages": 3, "c2": 0.4, "c3": 0.7, "variant": "b"},
        {"stages": 3, "prediction": "noise", "final": "stop"},
        {"stages": 2, "final": "euler"},
    ],
    ids=str,
)
def test_options_of_seeds(options):
    scheduler = bridge.SEEDSScheduler(prediction_type="v_prediction", timestep_spacing="trailing", **options)
    scheduler.set_timesteps(LEVELS)
    final = options.pop("final", "denoise")
    solver = {"name": f"seeds{options.pop('stages')}", **options}
    levels = DiscreteGrid(timestep_spacing="trailing").levels(LEVELS, 0, 0, Discrete())
    check(scheduler, solver, levels=levels, final=final)


@pytest.mark.parametrize("name", ["heun", "euler_maruyama"])
def test_a_solver_that_steps_in_sigma(name):
    scheduler = bridge.SolverScheduler(solver=name, native_time=False, use_karras_sigmas=True)
    scheduler.set_timesteps(LEVELS)
    levels = DiscreteGrid().levels(LEVELS, 0, 0, Discrete())
    karras = EDM().levels(LEVELS, float(levels[-1]), float(levels[0]), Discrete())
    check(scheduler, name, levels=karras, schedule={"name": "linear", "scaling": "vp"}, prediction="epsilon")
