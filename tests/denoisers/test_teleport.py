"""The Gaussian's exact way: it is the ODE's solution, composes, and saves evaluations on other data."""

import pytest
import torch

import seedsbench
from seedsbench.denoisers.teleport import GaussianTeleport
from seedsbench.diffusion.noise import latents
from tests.support.measure import log_levels, mixture

MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64).reshape(2, 1, 1)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.2]], dtype=torch.float64)
START = latents(torch.arange(16), (2, 1, 1), seed=0)


def gaussian(x, sigma, labels):
    """E[data | x] of that Gaussian."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma.flatten()[0] ** 2 * torch.eye(2))
    return MEAN + ((x - MEAN).flatten(1) @ gain.T).reshape(x.shape)


def end(denoiser, start, sigmas):
    return seedsbench.sample(denoiser, start, solver="dpmpp_3m", sigmas=sigmas, final="stop").x


def test_it_is_the_solution_of_the_odes_of_a_gaussian():
    teleport = GaussianTeleport.of(MEAN, COVARIANCE)
    exact = end(gaussian, START, log_levels(800, 40.0, 0.5))
    assert torch.allclose(teleport(START, 40.0, 0.5) * 0.5, exact, atol=1e-6)


def test_two_jumps_are_one():
    teleport = GaussianTeleport.of(MEAN, COVARIANCE)
    assert torch.allclose(teleport(teleport(START, 40.0, 3.0), 3.0, 0.5), teleport(START, 40.0, 0.5))


def test_a_sample_does_not_depend_on_its_neighbours():
    teleport = GaussianTeleport.of(MEAN, COVARIANCE)
    whole = teleport(START, 40.0, 0.5)
    assert torch.allclose(
        torch.cat([teleport(part, 40.0, 0.5) for part in START.split(5)]), whole, atol=1e-14
    )


def test_on_a_mixture_it_saves_evaluations():
    """The mixture's own moments; from where they are enough, all steps are left for the rest of the way."""
    images = mixture().draw(torch.arange(4000), seed=0, stream=0x300)
    teleport = GaussianTeleport.of_images(images)
    exact = end(mixture(), START, log_levels(1000, 80.0, 0.05))
    whole = end(mixture(), START, log_levels(8, 80.0, 0.05))
    jumped = end(mixture(), teleport(START, 80.0, 3.0), log_levels(8, 3.0, 0.05))
    assert float((jumped - exact).norm()) < 0.5 * float((whole - exact).norm())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not belong together"):
        GaussianTeleport.of(MEAN, COVARIANCE[:1])
    with pytest.raises(ValueError, match="not symmetric"):
        GaussianTeleport.of(MEAN, COVARIANCE + torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="none below 0"):
        GaussianTeleport.of(MEAN, COVARIANCE - torch.eye(2))
    with pytest.raises(ValueError, match="high > low"):
        GaussianTeleport.of(MEAN, COVARIANCE)(START, 0.5, 40.0)
    with pytest.raises(ValueError, match="N from 2"):
        GaussianTeleport.of_images(START[:1])
