"""Gradients through `sample`: none unless asked for, and right when asked for."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import seedsbench
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.embedded import load_glyphs
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, Preconditioned
from tests.support.measure import mixture

START = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2, 1, 1)


class Net(nn.Module):
    """A network of three numbers; any call of it fits. It notes whether gradients are recorded."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.weights, self.seen = nn.Parameter(torch.tensor([0.6, -0.2, 0.1], dtype=dtype)), set()

    def forward(self, x, t, labels=None):
        self.seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        a, b, c = self.weights
        return a * x + b * torch.tanh(x) + c


def kinds(net):
    """The network as each kind of denoiser, its noise levels apart."""
    table = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    preconditioned = Preconditioned(net, PRECONDITIONERS["edm"], img_channels=2, img_resolution=1)
    return {
        "module": net,
        "function": lambda x, sigma, labels: net(x, sigma),
        "preconditioned": preconditioned,
        "in threads": FixedBatch(preconditioned, 2),
        "predicted": seedsbench.denoiser(net, "v", alphas_cumprod=table, shape=(2, 1, 1)),
    }


KINDS = list(kinds(Net()))


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_ordinary_tensors_without_a_graph(kind):
    net, start = Net(), START.clone().requires_grad_()
    result = seedsbench.sample(kinds(net)[kind], start, solver="heun", steps=3, return_trajectory=True)
    for tensor in (result.x, result.trajectory):
        assert not tensor.requires_grad
        assert not tensor.is_inference()
    assert net.seen == {(False, False)}
    (result.x.requires_grad_() ** 2).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_latents_and_parameters_are_those_of_finite_differences(kind):
    net = Net()
    denoiser = kinds(net)[kind]

    def drawn(start, weights):  # the network's own, which gradcheck changes in place
        return seedsbench.sample(denoiser, start, solver="heun", sigmas=[3.0, 1.0, 0.3], gradients=True).x

    assert gradcheck(drawn, (START.clone().requires_grad_(), net.weights), rtol=1e-6, atol=1e-8)


@pytest.mark.one_of_each_family
@pytest.mark.parametrize("schedule", ["vp", pytest.param("linear", marks=pytest.mark.slow)])
def test_every_solver_can_be_differentiated(solver_name, schedule):
    if solver_name == "diffusers":
        pytest.skip("its schedulers compute in float32, too coarse for differences")

    def drawn(start):
        run = {"solver": solver_name, "steps": 4, "schedule": schedule, "gradients": True}
        return seedsbench.sample(mixture(), start, **run).x

    assert gradcheck(drawn, START.clone().requires_grad_(), rtol=1e-4, atol=1e-7, fast_mode=True)


def test_gradients_reach_the_latents_through_an_embedded_network():
    start = seedsbench.noise.latents(torch.arange(2), (3, 16, 16), seed=0).requires_grad_()
    run = {"solver": "euler", "steps": 2, "labels": torch.eye(10)[:2]}
    x = seedsbench.sample(load_glyphs("edm"), start, gradients=True, **run).x
    (found,) = torch.autograd.grad(x.square().sum(), start)
    assert found.isfinite().all()
    assert float(found.norm()) > 0
    assert torch.equal(x, seedsbench.sample(load_glyphs("edm"), start, **run).x)


def test_gradients_asked_for_are_recorded_whatever_the_mode_around():
    net = Net()
    with torch.no_grad():
        x = seedsbench.sample(net, START, solver="euler", steps=2, gradients=True).x
    assert x.requires_grad


def test_gradients_reach_the_parameters_of_a_diffusers_network():
    diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
    from seedsbench.denoisers.checkpoints.diffusers_folder import DiffusersDenoiser
    from seedsbench.diffusion.schedule import Discrete
    from tests.support.pipelines import TINY

    unet = diffusers.UNet2DModel(**TINY)
    start = seedsbench.noise.latents(torch.arange(1), (3, 8, 8), seed=0)
    run = {"solver": "euler", "steps": 1, "gradients": True}
    seedsbench.sample(DiffusersDenoiser(unet, "epsilon", Discrete()), start, **run).x.sum().backward()
    assert all(value.grad is not None for value in unet.parameters())
