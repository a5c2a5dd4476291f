"""diffusers' Euler, Heun, LMS and KDPM2 schedulers, whose states are data + sigma noise: all 83 cases.

States are compared at every level and at every stage between them. The step to 0 returns the denoised
image, final="denoise" (LMS apart: it goes on with the multistep rule). Model outputs are replayed as
recorded: diffusers evaluates a stage at a time interpolated from its table.
"""

import pytest
import torch

import seedsbench
from tests.support.golden import Golden, cases
from tests.support.parity import close, lms_to_zero, run_from
from tests.support.replay import churned, replayed


class Stacked(Golden):
    """A scheduler's cases in one array, rows as in the json, padded with zeros; noise has one a case."""

    def array(self, case, name):
        if self.has(case, name):
            return super().array(case, name)
        scheduler = self.cases[case]["scheduler"]
        rows = [other for other, settings in self.cases.items() if settings["scheduler"] == scheduler]
        return super().array(scheduler, name)[rows.index(case)]


SOLVERS = {"Euler": "euler", "EulerAncestral": "euler_ancestral", "Heun": "heun", "LMS": "lms"}
SOLVERS |= {"KDPM2": "dpm2", "KDPM2Ancestral": "dpm2_ancestral"}
CASES = {
    solver: cases(
        Stacked("diffusers_sigma"), lambda s, name=f"{name}DiscreteScheduler": s["scheduler"] == name
    )
    for name, solver in SOLVERS.items()
}
LMS = CASES.pop("lms")


def test_every_case_is_covered():
    assert [len(found) for found in CASES.values()] == [19, 8, 15, 13, 12]
    assert len(LMS) == 16


def run(case, name):
    """Our states at the levels and the sample, and those at the stages in between."""
    config, listed, options = case.settings["config"], case["sigmas_f64"], case.settings["step_kwargs"] or {}
    levels = torch.unique_consecutive(listed[listed > 0])  # those with stages are listed twice
    # These two stop at their last level: log_linear has one more, and final_sigmas_type repeats it.
    stop = config.get("interpolation_type") == "log_linear" or "final_sigmas_type" in config
    replay, schedule = replayed(case)
    solver, noise = churned(case) if "s_churn" in options else ({"name": name, **options}, case.noise())
    limit = config["clip_sample_range"] if config.get("clip_sample") else torch.inf  # Heun has no clip_sample
    path = {"schedule": schedule, "final": "stop" if stop else "denoise", "noise": noise}
    denoiser = lambda *given: replay(*given).clamp(-limit, limit)  # noqa: E731
    result = run_from(case["x_traj_f64"][0], denoiser, solver, levels, **path)
    stages = seedsbench.solver(**solver).nfe(1)
    return result.trajectory[: -1 if stop else None], replay.asked, stages


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, found in CASES.items() for case in found], ids=str
)
def test_sigma_scheduler(name, case):
    trajectory, asked, stages = run(case, name)
    between = [x for i, x in enumerate(asked) if i % stages]
    reference = case["x_traj_f64"]
    if "final_sigmas_type" in case.settings["config"]:  # the last step, between equal levels, is none
        close(reference[-1], reference[-2])
        reference = reference[:-1]
    assert len(trajectory) + len(between) == len(reference)
    if between:  # one in each step but the last
        close(torch.stack(between), reference[1:-1:2])
        reference = torch.cat([reference[:-1:2], reference[-1:]])
    close(trajectory, reference)


@pytest.mark.parametrize("case", LMS, ids=str)
def test_lms(case):
    states, levels = run(case, "lms")[0][:-1], case["sigmas_f64"][:-1]
    order = (case.settings["step_kwargs"] or {"order": 4})["order"]
    replay, _ = replayed(case)
    # All states again, so that the outputs are handed out in their order.
    denoised = [replay(x, sigma, None) for x, sigma in zip(states, levels, strict=True)]
    sample = lms_to_zero(states, levels, denoised, order)
    close(torch.cat([states, sample[None]]), case["x_traj_f64"])
