"""k-diffusion's sample_* functions, replayed: every level evaluated, every state and the sample.

Tolerance: 1e-10 of the largest state of the case. k-diffusion appends 0 to its levels; its step there
returns the denoised image, which is final="denoise".
"""

import itertools
import math

import pytest
import torch
from conftest import golden, mixture_parameters

import seedsbench
from seedsbench.noise import Recorded

DATA = golden("kdiffusion")
# Covered elsewhere: grids (below), dpmpp_2m (test_golden_parity), dpm_adaptive (its own file).
SAMPLERS = {
    "sample_euler": "karras_sde",
    "sample_heun": "karras_sde",
    "sample_dpm_2": "dpm2",
    "sample_euler_ancestral": "euler_ancestral",
    "sample_dpm_2_ancestral": "dpm2_ancestral",
    "sample_dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "sample_lms": "lms",
}
CHURN = {"s_churn": "S_churn", "s_tmin": "S_min", "s_tmax": "S_max", "s_noise": "S_noise"}
NO_CHURN = {"S_churn": 0.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0}
FIXED = {"sample_euler": {"rk_order": 1}, "sample_heun": {"rk_order": 2}}


def choice(settings):
    """The solver of a case, with its options by our names."""
    sampler, kwargs = settings["sampler"], settings.get("kwargs", {})
    options = {CHURN.get(key, key) if SAMPLERS[sampler] in CHURNED else key: v for key, v in kwargs.items()}
    base = NO_CHURN if SAMPLERS[sampler] in CHURNED else {}
    return {"name": SAMPLERS[sampler], **base, **options, **FIXED.get(sampler, {})}


CHURNED = ("karras_sde", "dpm2")


class Witness:
    """The golden mixture, which remembers where it was evaluated."""

    def __init__(self):
        self.mixture, self.calls = seedsbench.analytic.GaussianMixture(*mixture_parameters()), []

    def __call__(self, x, sigma, labels):
        self.calls.append((x.clone(), float(sigma)))
        return self.mixture(x, sigma, labels)


def close(got, reference, largest):
    assert got.shape == reference.shape
    error = float((got - reference).abs().max())
    assert error <= 1e-10 * max(1.0, largest), error


def cases(sampler):
    return [case for case, settings in DATA.cases.items() if settings.get("sampler") == sampler]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler(sampler):
    found = [case for case in cases(sampler) if DATA.has(case, "x_cb")]
    assert len(found) == COUNTS.get(sampler, 0)
    for case in found:
        check(case)


COUNTS = dict(zip(SAMPLERS, (8, 8, 8, 12, 12, 12, 16), strict=False))


def check(case):
    witness, x_cb = Witness(), DATA.tensor(case, "x_cb")
    result = seedsbench.sample(
        witness,
        DATA.tensor(case, "latents"),
        solver=choice(DATA.cases[case]),
        sigmas=DATA.tensor(case, "sigmas")[:-1],
        noise=Recorded(DATA.tensor(case, "noise")) if DATA.has(case, "noise") else None,
    )
    largest = float(x_cb.abs().max())
    assert [sigma for _, sigma in witness.calls] == pytest.approx(DATA.array(case, "call_sigma"), rel=1e-9)
    per_step = math.ceil(len(witness.calls) / len(x_cb))
    states = torch.stack([x for x, _ in itertools.islice(witness.calls, 0, None, per_step)])
    close(states, x_cb, largest)
    close(result.x, DATA.tensor(case, "x_final"), largest)


@pytest.mark.parametrize("case", cases("sample_dpm_fast"))
def test_dpm_fast(case):
    settings, witness = DATA.cases[case], Witness()
    steps, remainder = settings["nfe"] // 3 + 1, settings["nfe"] % 3
    grid = {"name": "logsnr", "sigma_min": settings["sigma_min"], "sigma_max": settings["sigma_max"]}
    result = seedsbench.sample(
        witness,
        DATA.tensor(case, "latents"),
        solver={"name": "dpm_fast", "remainder": remainder, "eta": settings["eta"]},
        steps=steps,
        grid=grid,
        final="stop",
        noise=Recorded(DATA.tensor(case, "noise")),
    )
    assert [sigma for _, sigma in witness.calls] == pytest.approx(DATA.array(case, "call_sigma"), rel=1e-9)
    assert result.nfe.tolist() == [settings["nfe"]] * 2
    close(result.x, DATA.tensor(case, "x_final"), settings["sigma_max"])


def test_dpm_fast_spends_the_budget_of_its_remainder():
    orders = [seedsbench.solver("dpm_fast", remainder=r).orders(n) for r in (0, 1, 2) for n in (1, 2, 4)]
    assert orders[:3] == [(1,), (2, 1), (3, 3, 2, 1)]
    assert orders[3:] == [(1,), (3, 1), (3, 3, 3, 1), (2,), (3, 2), (3, 3, 3, 2)]
