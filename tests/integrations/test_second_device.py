"""Schedulers on a stand-in for a GPU: no tensors of host and device are mixed, and nothing waits for it."""

import pytest
import torch

from tests.integrations.test_scheduler_contract import SAMPLE, SLOW
from tests.support.elsewhere import ELSEWHERE, SecondDevice

bridge = pytest.importorskip("seedsbench.integrations.diffusers", reason="needs seedsbench[diffusers]")


def run(solver, device, prediction):
    scheduler = bridge.SolverScheduler(solver=solver, prediction_type=prediction)
    scheduler.set_timesteps(4, device=device)
    scheduler.set_begin_index(0)
    x = SAMPLE.to(device)
    for t in scheduler.timesteps:
        x = scheduler.step(0.8 * torch.tanh(x), t, x).prev_sample
    return x


@pytest.mark.parametrize("solver", SLOW)
@pytest.mark.parametrize(
    "prediction",
    ["flow_prediction", *(pytest.param(p, marks=pytest.mark.slow) for p in ("epsilon", "v_prediction"))],
)
def test_the_same_samples(solver, prediction):
    with SecondDevice() as device:
        there = run(solver, ELSEWHERE, prediction)
        assert there.device == ELSEWHERE
        assert device.waits == 0
        there = there.cpu()
    torch.testing.assert_close(there, run(solver, "cpu", prediction), rtol=1e-6, atol=1e-6)


def test_add_noise_and_the_timestep_of_the_first_step():
    scheduler = bridge.SEEDSScheduler()
    with SecondDevice():
        scheduler.set_timesteps(3, device=ELSEWHERE)
        images, t = SAMPLE.to(ELSEWHERE), scheduler.timesteps[2:3]
        there = scheduler.add_noise(images, images, t)
        after = scheduler.step(images, scheduler.timesteps[2], there).prev_sample.cpu()
        there = there.cpu()
    scheduler.set_timesteps(3)
    assert torch.equal(there, scheduler.add_noise(SAMPLE, SAMPLE, scheduler.timesteps[2:3]))
    expected = scheduler.step(SAMPLE, scheduler.timesteps[2], there).prev_sample
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6)
