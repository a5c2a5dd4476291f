"""Orders of k-diffusion's samplers and of the options that change them."""

import math

import pytest

from tests.support.measure import drift_order, weak_orders

DRIFT = [
    ("lms", {"order": 1}, 1),
    ("lms", {"order": 2}, 2),
    ("lms", {"order": 3}, 3),
    ("dpm_fast", {"remainder": 0}, 2),
    ("dpm_fast", {"remainder": 2}, 3),
    ("dpmpp_sde", {"r": 0.3, "eta": 0.0}, 2),
    ("dpmpp_2m_sde", {"solver_type": "heun"}, 2),
    ("dpmpp_3m_sde", {"eta": 0.0}, 3),
    ("dpmpp_3m_sde", {"eta": 0.0, "compat": "k_diffusion"}, 2),
]


@pytest.mark.parametrize(("name", "options", "wanted"), DRIFT)
def test_drift_order(name, options, wanted):
    measured = drift_order({"name": name, **options}, counts=(128, 256, 512))
    assert measured == pytest.approx(wanted, abs=0.3)


WEAK = [
    ("euler_ancestral", {}, 1),
    ("euler_ancestral", {"eta": 0.5}, 1),
    ("dpm2_ancestral", {}, 2),
    ("dpm2_ancestral", {"eta": 0.5}, 2),
    ("dpmpp_2s_ancestral", {}, 2),
    ("dpm_fast", {"eta": 1.0}, 2),
    ("dpm_fast", {"eta": 1.0, "remainder": 2}, 3),
    ("dpmpp_sde", {}, 2),
    ("dpmpp_sde", {"eta": 0.5, "r": 0.3}, 2),
    ("dpmpp_sde", {"noise_law": "independent"}, 1),
    ("dpmpp_sde", {"noise_law": "tree"}, 2),
    ("dpmpp_2m_sde", {}, 2),
    ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.5}, 2),
    ("dpmpp_3m_sde", {}, 2),
]


@pytest.mark.parametrize(("name", "options", "wanted"), WEAK)
def test_weak_order(name, options, wanted):
    # A narrow range of noise levels, where the order shows with few steps.
    orders = weak_orders({"name": name, **options}, 64, std=0.8, low=0.2)
    assert [o for o in orders if not math.isnan(o)] == pytest.approx([wanted], abs=0.25)


def test_tiny_eta_is_the_ode_to_rounding():
    for name in ("euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast"):
        quiet, none = (drift_order({"name": name, "eta": eta}, counts=(8, 16, 32)) for eta in (1e-9, 0.0))
        assert quiet == pytest.approx(none, rel=1e-6)
