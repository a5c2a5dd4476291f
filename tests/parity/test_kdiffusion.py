"""k-diffusion's sample_* functions, replayed: every level evaluated, every state, and the sample.

Tolerance: 1e-10 of the largest state of the case. k-diffusion appends 0 to its levels; its step there
returns the denoised image, which is final="denoise" (LMS apart: see its test).
"""

import math

import pytest
import torch

import seedsbench
from seedsbench import registry
from seedsbench.diffusion.schedule import Linear
from seedsbench.noise import Recorded
from seedsbench.solvers.ancestral import split
from seedsbench.solvers.linear_multistep import lms_weights
from tests.support.golden import golden, mixture_parameters

DATA = golden("kdiffusion")
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


def cases(sampler):
    return [case for case, settings in DATA.cases.items() if settings.get("sampler") == sampler]


def test_every_case_is_covered():
    covered = {sampler: len(cases(sampler)) for sampler in SOLVERS}
    assert list(covered.values()) == [8, 8, 8, 12, 12, 12, 4, 16, 25, 12, 16, 10]
    others = {case for case, settings in DATA.cases.items() if settings.get("sampler") not in SOLVERS}
    here = {case for case in others if case.startswith("sigmas_")} | {"get_ancestral_step"}
    # test_adaptive.py covers dpm_adaptive; the likelihood is a number of a model, which no sampler returns.
    adaptive = {case for case in others if case.startswith("sample_dpm_adaptive")}
    assert (len(here), len(adaptive), others - here - adaptive) == (9, 7, {"log_likelihood"})
    assert sum(covered.values()) + len(here) + len(adaptive) == 159 == len(DATA.cases) - 1


class Witness:
    """The golden mixture, which remembers where it was evaluated."""

    def __init__(self):
        self.mixture, self.calls = seedsbench.analytic.GaussianMixture(*mixture_parameters()), []

    def __call__(self, x, sigma, labels):
        denoised = self.mixture(x, sigma, labels)
        self.calls.append((x.clone(), float(sigma), denoised))
        return denoised


def close(got, reference, largest):
    assert got.shape == reference.shape
    error = float((got - reference).abs().max())
    assert error <= 1e-10 * max(1.0, largest), error


def replay(case, **run):
    """(result, witness) of a case: our solver on its latents with its noise."""
    settings, witness = DATA.cases[case], Witness()
    solver = dict(SOLVERS[settings["sampler"]])
    for key, value in settings.get("kwargs", {}).items():
        solver[CHURN[key] if solver["name"] in ("karras_sde", "dpm2") else key] = value
    noise = Recorded(DATA.tensor(case, "noise")) if DATA.has(case, "noise") else None
    solver |= run.pop("options", {})
    result = seedsbench.sample(witness, DATA.tensor(case, "latents"), solver=solver, noise=noise, **run)
    if DATA.has(case, "call_sigma"):
        called = [sigma for _, sigma, _ in witness.calls]
        assert called == pytest.approx(DATA.array(case, "call_sigma"), rel=1e-9)
    return result, witness


def check(case):
    result, witness = replay(case, sigmas=DATA.tensor(case, "sigmas")[:-1])
    x_cb = DATA.tensor(case, "x_cb") if DATA.has(case, "x_cb") else None
    largest = 0.0
    if x_cb is not None:
        largest = float(x_cb.abs().max())
        per_step = math.ceil(len(witness.calls) / len(x_cb))
        close(torch.stack([x for x, _, _ in witness.calls[::per_step]]), x_cb, largest)
    if DATA.cases[case]["sampler"] != "sample_lms":
        close(result.x, DATA.tensor(case, "x_final"), largest)
    return witness


@pytest.mark.parametrize("sampler", [s for s in SOLVERS if s != "sample_dpm_fast"])
def test_sampler(sampler):
    for case in cases(sampler):
        check(case)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_goes_on_to_zero_in_the_reference(order):
    """Its last step too is the multistep rule: our weights, from the slopes of the run, give it."""
    found = [case for case in cases("sample_lms") if DATA.cases[case]["kwargs"]["order"] == order]
    assert len(found) == 4
    for case in found:
        last = check(case).calls[: -order - 1 : -1]
        levels = [torch.tensor(sigma, dtype=torch.float64) for _, sigma, _ in last]
        x = last[0][0]
        for weight, (past, sigma, denoised) in zip(lms_weights(levels, torch.zeros(())), last, strict=True):
            x = x + weight * (past - denoised) / sigma
        close(x, DATA.tensor(case, "x_final"), float(DATA.tensor(case, "x_cb").abs().max()))


@pytest.mark.parametrize("case", cases("sample_dpm_fast"))
def test_dpm_fast(case):
    settings = DATA.cases[case]
    result, _ = replay(
        case,
        options={"remainder": settings["nfe"] % 3, "eta": settings["eta"]},
        steps=settings["nfe"] // 3 + 1,
        grid={"name": "logsnr", "sigma_min": settings["sigma_min"], "sigma_max": settings["sigma_max"]},
        final="stop",
    )
    assert result.nfe.tolist() == [settings["nfe"]] * 2
    close(result.x, DATA.tensor(case, "x_final"), settings["sigma_max"])


def test_dpm_fast_spends_the_budget_of_its_remainder():
    orders = [seedsbench.solver("dpm_fast", remainder=r).orders(n) for r in (0, 1, 2) for n in (1, 2, 4)]
    assert orders[:3] == [(1,), (2, 1), (3, 3, 2, 1)]
    assert orders[3:] == [(1,), (3, 1), (3, 3, 3, 1), (2,), (3, 2), (3, 3, 3, 2)]


def test_ancestral_split():
    levels = DATA.tensor("get_ancestral_step", "inputs")
    for (start, end, eta), *expected in zip(
        levels,
        DATA.tensor("get_ancestral_step", "sigma_down"),
        DATA.tensor("get_ancestral_step", "sigma_up"),
        strict=True,
    ):
        assert torch.allclose(torch.stack(split(start, end, float(eta))), torch.stack(expected), rtol=1e-12)


@pytest.mark.parametrize("case", [case for case in DATA.cases if case.startswith("sigmas_")])
def test_grid(case):
    settings, reference = DATA.cases[case], DATA.tensor(case, "sigmas")
    name = {"polyexp": "polyexponential"}.get(settings["schedule"], settings["schedule"])
    options = {"rho": settings["rho"]} if settings["rho"] is not None else {}
    if name != "vp":  # k-diffusion's vp takes the range of the process
        options |= {"sigma_min": settings["sigma_min"], "sigma_max": settings["sigma_max"]}
    grid = registry.build(registry.configured("grid", {"name": name, **options}))
    levels = grid.levels(settings["n"], grid.sigma_min, grid.sigma_max, Linear())
    assert torch.allclose(levels, reference[:-1], rtol=1e-10, atol=0)
    assert reference[-1] == 0
