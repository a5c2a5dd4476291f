"""k-diffusion's sample_* functions, replayed: every level evaluated, every state, and the sample.

k-diffusion appends 0 to its levels; its step there returns the denoised image, which is final="denoise"
(LMS apart: see its test).
"""

import math

import pytest
import torch

import seedsbench
from seedsbench.diffusion.schedule import Linear
from seedsbench.solvers.ancestral import split
from tests.support.golden import cases
from tests.support.measure import log_levels, mixture, run
from tests.support.parity import built, close, lms_to_zero

NO_CHURN = {"S_churn": 0.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0}
# The reference's noises of a step are recorded as independent normals, and its 3M halves a weight.
SOLVERS = {
    "sample_euler": {"name": "karras_sde", "rk_order": 1, **NO_CHURN},
    "sample_heun": {"name": "karras_sde", "rk_order": 2, **NO_CHURN},
    "sample_dpm_2": {"name": "dpm2"},
    "sample_euler_ancestral": {"name": "euler_ancestral"},
    "sample_dpm_2_ancestral": {"name": "dpm2_ancestral"},
    "sample_dpmpp_2s_ancestral": {"name": "dpmpp_2s_ancestral"},
    "sample_dpmpp_2m": {"name": "dpmpp_2m"},
    "sample_dpmpp_sde": {"name": "dpmpp_sde", "noise_law": "independent"},
    "sample_dpmpp_2m_sde": {"name": "dpmpp_2m_sde"},
    "sample_dpmpp_3m_sde": {"name": "dpmpp_3m_sde", "compat": "k_diffusion"},
    "sample_lms": {"name": "lms"},
    "sample_dpm_fast": {"name": "dpm_fast"},
}
CHURN = {"s_churn": "S_churn", "s_tmin": "S_min", "s_tmax": "S_max", "s_noise": "S_noise"}
CASES = {name: cases("kdiffusion", lambda s, name=name: s.get("sampler") == name) for name in SOLVERS}
OTHERS = {str(case): case for case in cases("kdiffusion", lambda s: s.get("sampler") not in SOLVERS)}
GRIDS, ADAPTIVE = (
    [case for name, case in OTHERS.items() if name.startswith(start)]
    for start in ("sigmas_", "sample_dpm_adaptive")
)


def test_every_case_is_covered():
    assert [len(found) for found in CASES.values()] == [8, 8, 8, 12, 12, 12, 4, 16, 25, 12, 16, 10]
    # The likelihood is a number of a model, which no sampler returns.
    rest = OTHERS.keys() - set(map(str, GRIDS + ADAPTIVE))
    assert (len(GRIDS), len(ADAPTIVE), rest) == (8, 7, {"log_likelihood", "get_ancestral_step"})


class Witness:
    """The golden mixture, which remembers where it was evaluated."""

    def __init__(self):
        self.mixture, self.calls = mixture(), []

    def __call__(self, x, sigma, labels):
        denoised = self.mixture(x, sigma, labels)
        self.calls.append((x.clone(), sigma, denoised))
        return denoised


def replay(case, options, **path):
    """(result, evaluations) of a case: our solver on its latents with its noise."""
    settings, witness = case.settings, Witness()
    solver = SOLVERS[settings["sampler"]] | options
    for key, value in settings.get("kwargs", {}).items():
        solver[CHURN[key] if solver["name"] in ("karras_sde", "dpm2") else key] = value
    result = run(solver, witness, case["latents"], noise=case.noise(), **path)
    if "call_sigma" in case:
        called = [float(sigma) for _, sigma, _ in witness.calls]
        assert called == pytest.approx(case["call_sigma"].numpy(), rel=1e-9)
    return result, witness.calls


def check(case):
    """(last evaluations, largest state); all that is recorded is compared, but the sample of LMS."""
    result, calls = replay(case, {}, sigmas=case["sigmas"][:-1])
    largest = 0.0
    if "x_cb" in case:
        largest = float(case["x_cb"].abs().max())
        per_step = math.ceil(len(calls) / len(case["x_cb"]))
        close(torch.stack([x for x, _, _ in calls[::per_step]]), case["x_cb"], largest)
    if case.settings["sampler"] != "sample_lms":
        close(result.x, case["x_final"], largest)
    return calls, largest


@pytest.mark.parametrize(
    "sampler", [name for name in SOLVERS if name not in ("sample_lms", "sample_dpm_fast")]
)
def test_sampler(sampler):
    for case in CASES[sampler]:
        check(case)


@pytest.mark.parametrize("case", CASES["sample_lms"], ids=str)
def test_lms_goes_on_to_zero_in_the_reference(case):
    calls, largest = check(case)
    sample = lms_to_zero(*zip(*calls, strict=True), case.settings["kwargs"]["order"])
    close(sample, case["x_final"], largest)


@pytest.mark.parametrize("case", CASES["sample_dpm_fast"], ids=str)
def test_dpm_fast(case):
    s = case.settings
    grid = {"name": "logsnr", "sigma_min": s["sigma_min"], "sigma_max": s["sigma_max"]}
    options = {"remainder": s["nfe"] % 3, "eta": s["eta"]}
    result, _ = replay(case, options, steps=s["nfe"] // 3 + 1, grid=grid, final="stop")
    assert result.nfe.tolist() == [s["nfe"]] * 2
    close(result.x, case["x_final"], s["sigma_max"])


def test_dpm_fast_spends_the_budget_of_its_remainder():
    orders = [seedsbench.solver("dpm_fast", remainder=r).orders(n) for r in (0, 1, 2) for n in (1, 2, 4)]
    assert orders[:3] == [(1,), (2, 1), (3, 3, 2, 1)]
    assert orders[3:] == [(1,), (3, 1), (3, 3, 3, 1), (2,), (3, 2), (3, 3, 3, 2)]


@pytest.mark.parametrize("case", ADAPTIVE, ids=str)
def test_dpm_adaptive(case):
    """The reference draws noise for accepted steps alone, here each trial has its own: line them up."""
    options, info = case.settings["kwargs"], case.settings["info"]
    begun = case["call_sigma"].reshape(info["steps"], -1)[:, 0]
    accepted = torch.cat([begun[1:] != begun[:-1], torch.tensor([True])])
    solver = {"name": "dpm_adaptive", "norms": "batch", "compat": "k_diffusion", **options}
    path = {"sigmas": log_levels(400, 80.0, 0.02), "final": "stop"}
    noise = case.noise(accepted.cumsum(0) - accepted.long())
    result = run(solver, latents=case["latents"], noise=noise, **path)
    assert len(result.trajectory) - 2 == info["steps"]
    # It evaluates the start of a step again after a rejection, which changes nothing.
    assert result.nfe.tolist() == [info["nfe"] - info["n_reject"]] * 2
    close(result.x, case["x_final"], 80)


def test_ancestral_split():
    case = OTHERS["get_ancestral_step"]
    for i, (start, end, eta) in enumerate(case["inputs"]):
        expected = torch.stack([case["sigma_down"][i], case["sigma_up"][i]])
        assert torch.allclose(torch.stack(split(start, end, float(eta))), expected, rtol=1e-12)


@pytest.mark.parametrize("case", GRIDS, ids=str)
def test_grid(case):
    s, reference = case.settings, case["sigmas"]
    options = {"name": {"polyexp": "polyexponential"}.get(s["schedule"], s["schedule"])}
    if s["rho"] is not None:
        options["rho"] = s["rho"]
    if options["name"] != "vp":  # k-diffusion's vp takes the range of the process
        options |= {"sigma_min": s["sigma_min"], "sigma_max": s["sigma_max"]}
    grid = built("grid", options)
    levels = grid.levels(s["n"], grid.sigma_min, grid.sigma_max, Linear())
    assert torch.allclose(levels, reference[:-1], rtol=1e-10, atol=0)
    assert reference[-1] == 0
