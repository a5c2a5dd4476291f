"""Samplers on a stand-in for a GPU: they mix no tensors of host and device, and give the same bits."""

import pytest
import torch

import seedsbench
from seedsbench import registry
from seedsbench.denoisers.analytic import FiniteData
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.diffusion.process import Process, expand
from seedsbench.noise import Silent
from seedsbench.solvers.integrate import NonFiniteError, integrate
from tests.support.elsewhere import ELSEWHERE, SecondDevice
from tests.support.measure import mixture
from tests.support.parity import built

INDICES = torch.arange(3)
SHAPE = (2, 1, 1)
SCHEDULES = registry.names("schedule")
ADAPTIVE = [name for name in registry.names("solver") if seedsbench.solver(name).adaptive]


def unit_gaussian(x, sigma, labels):
    return x / (1 + expand(sigma, x) ** 2)


def drawn(solver, schedule, device="cpu"):
    start = latents(INDICES, SHAPE, seed=3, device=device)
    path = {"solver": solver, "steps": 2, "schedule": schedule, "grid": EDM()}
    noise = Philox(INDICES, SHAPE, seed=3, device=device)
    return seedsbench.sample(unit_gaussian, start, noise=noise, **path).x


@pytest.mark.one_of_each_family
@pytest.mark.parametrize(
    "schedule",
    [pytest.param(name, marks=() if name == "discrete" else pytest.mark.slow) for name in SCHEDULES],
)
def test_every_solver_on_every_schedule_gives_the_same_samples(schedule, solver_name):
    solver = solver_name
    with SecondDevice() as device:
        there = drawn(solver, schedule, ELSEWHERE)
        # Steps are counted on the host: it asks the device once, whether all states were finite.
        # Schedulers of diffusers look up their levels on the device.
        assert device.waits == 1 or solver in (*ADAPTIVE, "diffusers")
        assert there.device == ELSEWHERE
        there = there.cpu()
    assert torch.equal(there, drawn(solver, schedule))


def failing(after, spread):
    """A denoiser whose answers for the first sample are NaN after so many calls, for more of them later."""
    calls = 0

    def denoise(x, sigma, labels):
        nonlocal calls
        calls += 1
        bad = min(1 + spread * (calls - after), len(x)) if calls >= after else 0
        return torch.cat([x[:bad] * torch.nan, unit_gaussian(x, sigma, labels)[bad:]])

    return denoise


def failed(solver, after, final, device):
    """What is said of a path on which the network fails; None if it ends before that."""
    with SecondDevice():
        noise = Philox(INDICES, SHAPE, device=device)
        start = latents(INDICES, SHAPE, seed=0, device=device)
        try:
            seedsbench.sample(failing(after, 1), start, solver=solver, steps=4, final=final, noise=noise)
        except NonFiniteError as error:
            return str(error)


@pytest.mark.parametrize("final", ["denoise", "euler", "stop"])
@pytest.mark.parametrize(
    ("solver", "after"), [("euler", 1), ("euler", 3), ("euler", 5), ("heun", 4), ("seeds1", 2), ("rk45", 9)]
)
def test_the_first_state_that_is_not_finite_is_named_as_on_the_cpu(solver, after, final):
    said = failed(solver, after, final, "cpu")
    assert failed(solver, after, final, ELSEWHERE) == said
    if (after, final) == (5, "stop"):
        assert said is None
    elif solver == "euler":
        name = f"step {after} of 4" if after < 5 else f"the final step ({final})"
        assert said.startswith(f"1 of 3 samples became non-finite in {name}, leaving sigma=")


@pytest.mark.parametrize(("device", "seen"), [("cpu", 3), (ELSEWHERE, 5)])
def test_a_path_that_fails_hands_out_no_finished_sample(device, seen):
    schedule = built("schedule", "linear")
    times = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    process = Process(failing(3, 0), schedule, 3)
    with SecondDevice():
        start = latents(INDICES, SHAPE, seed=0, device=device)
        path = integrate(process, seedsbench.solver("euler"), start, times, Silent(SHAPE), "denoise")
        for _ in range(seen):
            next(path)
        with pytest.raises(NonFiniteError, match=r"1 of 3 .* in step 3 of 4"):
            next(path)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", ["mixture", "finite"])
def test_exact_denoisers_follow_their_input(kind, each):
    x = latents(INDICES, SHAPE, seed=1)
    model = mixture() if kind == "mixture" else FiniteData(latents(torch.arange(9), SHAPE, seed=2))
    sigma = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64) if each else torch.tensor(0.7).double()
    with SecondDevice():
        there = model(x.to(ELSEWHERE), sigma.to(ELSEWHERE) if each else sigma).cpu()
    torch.testing.assert_close(there, model(x, sigma), rtol=0, atol=0)


def test_the_stand_in_refuses_what_a_gpu_refuses():
    host = torch.ones(3)
    with SecondDevice() as device:
        there = host.to(ELSEWHERE)
        assert torch.equal((there * host[0] + 1).cpu(), 2 * host)
        assert device.waits == 1
        for mixed in (
            lambda: there + host,
            lambda: host[there.long()],
            lambda: torch.stack([host[0], there[0]]),
            lambda: torch.searchsorted(host, there),
            lambda: torch.add(host, 1, out=there),
        ):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                mixed()
        waits = device.waits
        bool(there.sum() > 0), there[there > 0], there.nonzero()
        assert device.waits == waits + 3
