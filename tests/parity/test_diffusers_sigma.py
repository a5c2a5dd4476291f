"""diffusers' Euler, Heun, LMS and KDPM2 schedulers, whose states are data + sigma noise.

Tolerance: 1e-10 of the largest state of the case, at every level and at every stage between them. The
step to 0 returns the denoised image, final="denoise" (LMS apart: it goes on with the multistep rule). Model
outputs are replayed as recorded: diffusers evaluates a stage at a time interpolated from its table. All
83 cases are covered; none is left out.
"""

import pytest
import torch

import seedsbench
from seedsbench.noise import Recorded
from seedsbench.solvers.linear_multistep import lms_weights
from tests.parity.test_edm_and_seeds import close
from tests.support.golden import Golden
from tests.support.replay import churned, replayed, unit


class Stacked(Golden):
    """Arrays of a scheduler's cases in one, rows in the order of the json: an array each doubles the file.

    Levels are padded with zeros. Noise has an array for each case.
    """

    def array(self, case, name):
        if self.has(case, name):
            return super().array(case, name)
        scheduler = self.cases[case]["scheduler"]
        rows = [other for other, settings in self.cases.items() if settings["scheduler"] == scheduler]
        return super().array(scheduler, name)[rows.index(case)]


DATA = Stacked("diffusers_sigma")
SOLVERS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "lms",
    "KDPM2DiscreteScheduler": "dpm2",
    "KDPM2AncestralDiscreteScheduler": "dpm2_ancestral",
}
LMS = [case for case, settings in DATA.cases.items() if settings["scheduler"] == "LMSDiscreteScheduler"]


def choice(case):
    """The solver of a case, and the noise it draws."""
    settings = DATA.cases[case]
    options = settings["step_kwargs"] or {}
    if "s_churn" in options:
        return churned(DATA, case)
    noise = Recorded(DATA.tensor(case, "noise")) if DATA.has(case, "noise") else None
    return {"name": SOLVERS[settings["scheduler"]], **options}, noise


def clipped(denoiser, limit):
    """clip_sample, which our Heun has no switch for."""
    return lambda *given: denoiser(*given).clamp(-limit, limit)


def run(case):
    """Our states at the levels and the sample, and those at the stages in between."""
    config, listed = DATA.cases[case]["config"], DATA.tensor(case, "sigmas_f64")
    levels = torch.unique_consecutive(listed[listed > 0])  # those with stages are listed twice
    # These two stop at their last level: log_linear has one more, and final_sigmas_type repeats it.
    stop = config.get("interpolation_type") == "log_linear" or "final_sigmas_type" in config
    replay, scaling = replayed(DATA, case)
    solver, noise = choice(case)
    result = seedsbench.sample(
        clipped(replay, config["clip_sample_range"]) if config.get("clip_sample") else replay,
        unit(DATA.tensor(case, "x_traj_f64")[0], levels[0], scaling),
        solver=solver,
        sigmas=levels,
        schedule={"name": "linear", "scaling": scaling},
        final="stop" if stop else "denoise",
        noise=noise,
        return_trajectory=True,
    )
    stages = seedsbench.solver(**solver).nfe(1)
    between = [x for i, x in enumerate(replay.asked) if i % stages]
    return result.trajectory[: -1 if stop else None], between


@pytest.mark.parametrize("case", [case for case in DATA.cases if case not in LMS])
def test_sigma_scheduler(case):
    trajectory, between = run(case)
    reference = DATA.tensor(case, "x_traj_f64")
    if "final_sigmas_type" in DATA.cases[case]["config"]:  # the last step, between equal levels, is none
        close(reference[-1], reference[-2])
        reference = reference[:-1]
    assert len(trajectory) + len(between) == len(reference)
    if between:  # one in each step but the last
        close(torch.stack(between), reference[1:-1:2])
        reference = torch.cat([reference[:-1:2], reference[-1:]])
    close(trajectory, reference)


@pytest.mark.parametrize("case", LMS)
def test_lms(case):
    """The step to 0 is the multistep rule too: our weights, from the slopes of the run, give it."""
    states, levels = run(case)[0][:-1], DATA.tensor(case, "sigmas_f64")[:-1]
    order = (DATA.cases[case]["step_kwargs"] or {"order": 4})["order"]
    replay, _ = replayed(DATA, case)
    # All states again, so that the outputs are handed out in their order.
    slopes = [(x - replay(x, sigma, None)) / sigma for x, sigma in zip(states, levels, strict=True)]
    x = states[-1]
    nodes = list(levels.flip(0)[:order])
    for weight, slope in zip(lms_weights(nodes, torch.zeros(())), reversed(slopes[-order:]), strict=True):
        x = x + weight * slope
    close(torch.cat([states, x[None]]), DATA.tensor(case, "x_traj_f64"))


def test_every_case_is_covered():
    counts = [sum(s["scheduler"] == name for s in DATA.cases.values()) for name in SOLVERS]
    assert counts == [19, 8, 15, 16, 13, 12]
    assert sum(counts) == len(DATA.cases) == 83
