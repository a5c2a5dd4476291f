"""The field's certificate: what adapters keep, what measurements see, and its files."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import seedsbench
from seedsbench.certify.external.diffusers import DIFFUSERS
from seedsbench.certify.external.functions import FunctionSolver
from seedsbench.certify.external.k_diffusion import K_DIFFUSION
from seedsbench.certify.external.main import LIBRARIES
from seedsbench.certify.external.measure import field_row, field_verdict, measured_drift, step_shares
from seedsbench.certify.external.published import Library, Published
from seedsbench.certify.external.report import older_rows, write_field
from seedsbench.certify.main import main
from seedsbench.certify.weak import gaussian_moments, is_markov
from seedsbench.diffusion.noise import Recorded
from tests.support.measure import log_levels, mixture, run

RESULTS = Path(__file__).parents[2] / "results"


def two_values(model, x, sigmas, disable=None):
    """A sampler in k-diffusion's form: the two newest images on a line in -log sigma, exactly integrated."""
    before = None
    for sigma, after in itertools.pairwise(sigmas):
        denoised = model(x, sigma * x.new_ones(len(x)))
        h = (sigma / after).log()
        x = after / sigma * x - torch.expm1(-h) * denoised
        if before is not None:
            image, gap = before
            x = x + (h + torch.expm1(-h)) / gap * (denoised - image)
        before = denoised, h
    return x


def two_noises(model, x, sigmas, disable=None, eta=1.0, noise_sampler=None):
    """k-diffusion's DPM++ SDE with its node at the middle: two noises a step."""
    for sigma, after in itertools.pairwise(sigmas):
        denoised = first = model(x, sigma * x.new_ones(len(x)))
        for end in ((sigma * after).sqrt(), after):
            ratio = (end / sigma) ** 2
            image = first if end > after else denoised
            y = ratio * x + (1 - ratio) * image
            y = y + noise_sampler(sigma, end) * end * (1 - ratio).sqrt()
            denoised = model(y, end * x.new_ones(len(x))) if end > after else denoised
        x = y
    return x


MULTISTEP = FunctionSolver(two_values, remembers=True)
NOISY = FunctionSolver(two_noises, evaluations_a_step=2, draws=True)


def test_a_sampler_that_remembers_is_the_same_step_by_step():
    levels, start = log_levels(6, 10.0, 0.1), torch.randn(4, 2, 1, 1, dtype=torch.float64)
    result = run(MULTISTEP, latents=start, sigmas=levels, final="stop")
    whole = two_values(lambda x, sigma: mixture()(x, sigma, None), start * 10.0, levels)
    assert torch.allclose(result.x, whole, atol=1e-14)
    assert result.nfe.tolist() == [6] * 4
    assert torch.allclose(
        result.x,
        run(
            {"name": "dpmpp_2m", "solver_type": "heun", "lower_order_final": False},
            latents=start,
            sigmas=levels,
            final="stop",
        ).x,
    )


def test_its_noises_are_of_one_path():
    z = torch.randn(16, 3, 2, 1, 1, dtype=torch.float64)
    path = {"latents": torch.ones(3, 2, 1, 1, dtype=torch.float64), "sigmas": log_levels(4, 10.0, 0.1)}
    ours = run({"name": "dpmpp_sde", "noise_law": "tree"}, noise=Recorded(z), final="stop", **path).x
    assert torch.allclose(run(NOISY, noise=Recorded(z), final="stop", **path).x, ours, atol=1e-12)
    apart = FunctionSolver(two_noises, evaluations_a_step=2, draws=True, independent=True)
    ours = run({"name": "dpmpp_sde", "noise_law": "independent"}, noise=Recorded(z), final="stop", **path).x
    assert torch.allclose(run(apart, noise=Recorded(z), final="stop", **path).x, ours, atol=1e-12)


def test_what_remembers_is_no_markov_chain():
    assert is_markov(FunctionSolver(two_noises, evaluations_a_step=2, draws=True))
    assert not is_markov(MULTISTEP)
    assert gaussian_moments(NOISY, 8)[1] == pytest.approx(
        gaussian_moments({"name": "dpmpp_sde", "noise_law": "tree"}, 8)[1]
    )


def test_a_step_shows_which_coefficient_is_wrong():
    exact, halved = (seedsbench.solver("dpmpp_3m_sde", compat=name) for name in ("exact", "k_diffusion"))
    assert step_shares(exact) == pytest.approx([1, 1, 1])
    assert step_shares(halved) == pytest.approx([1, 1, 0.5])
    assert step_shares(seedsbench.solver("dpmpp_3m")) == pytest.approx([1, 1, 1])
    assert step_shares(seedsbench.solver("etd_erk3", variant="b")) == pytest.approx([1, 1, 1])
    assert step_shares(MULTISTEP)[:2] == pytest.approx([1, 1])
    assert step_shares(MULTISTEP)[2] != pytest.approx(1, abs=0.1)


def test_drift_orders_are_measured_until_they_round():
    assert measured_drift(MULTISTEP, 1e-9, 2) == pytest.approx(2, abs=0.3)
    assert measured_drift(MULTISTEP, 1e9, 2) != measured_drift(MULTISTEP, 1e-9, 2)


def test_a_claim_that_does_not_hold_is_contradicted_with_its_cause():
    library = Library("ours", None, "", 1e-9, list)
    claim = Published("two values", MULTISTEP, "nobody", 3, cause="it has two values")
    row = field_row(library, claim)
    assert row["verdict"].startswith("drift order ")
    assert row["verdict"].endswith("not 3")
    assert row["cause"] == "it has two values"
    assert field_row(library, Published("two values", MULTISTEP, "nobody", 2, cause="?"))["cause"] == ""
    numbers = {"order": 3, "drift_order": 2.5, "weak_order": 2}
    numbers |= {"weak_variance_gaussian": 1.9, "weak_mixture": math.nan, "exact": 0}
    assert field_verdict(numbers, rounding=1e-5) == "holds"
    assert field_verdict(numbers, rounding=1e-9) == "drift order 2.50, not 3"
    numbers |= {"exact": 3, "share_s0": 1.0, "share_s1": 1.001, "share_s2": 0.5}
    assert field_verdict(numbers, rounding=1e-5) == "0.50 of the integral of s^2"


def test_a_library_that_is_absent_is_skipped_with_the_reason(tmp_path, capsys, monkeypatch):
    gone = Library("gone", "no_such_module", "pip install gone", 1e-9, list)
    monkeypatch.setattr("seedsbench.certify.external.main.LIBRARIES", [gone])
    assert main(["--external", "--output", str(tmp_path)]) == 1
    assert "skipped: gone is not installed: pip install gone" in capsys.readouterr().err
    assert main(["--external", "gonne", "--output", str(tmp_path)]) == 2
    assert "Did you mean 'gone'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def committed():
    return pd.read_csv(RESULTS / "certificate-field.csv")


def test_the_committed_field_is_of_every_claim_and_explains_each_departure(committed, tmp_path):
    assert len(committed) >= 25
    for library in LIBRARIES:
        if library.missing() is None:
            titles = committed[committed["library"] == library.name]["solver"]
            assert list(titles) == [claim.title for claim in library.claims()]
    departs = committed[committed["verdict"] != "holds"]
    assert len(departs)
    assert departs["cause"].notna().all(), "say in its claim why it departs"
    rows = older_rows(RESULTS)
    written = write_field(rows, [], tmp_path)
    assert written[1].read_bytes() == (RESULTS / "certificate-field.csv").read_bytes()
    text = (RESULTS / "certificate-field.md").read_text()
    assert text.startswith(written[0].read_text().rstrip())


def test_the_committed_field_shows_the_known_departures(committed):
    of = committed.set_index("solver")
    assert of.loc["sample_dpmpp_3m_sde", "share_s2"] == pytest.approx(0.5)
    assert "weak order" in of.loc["sample_dpmpp_sde eta=1.0 independent noises", "verdict"]
    theirs = "DPMSolverMultistep algorithm_type=sde-dpmsolver++ solver_order=3"
    assert "drift order" in of.loc[theirs, "verdict"]
    halved = "DPMSolverMultistep algorithm_type=dpmsolver++ solver_order=3"
    assert of.loc[halved, "share_s2"] == pytest.approx(0.5, abs=1e-3)
    assert of.loc["res4lyf_friedli", "drift_order"] == pytest.approx(2, abs=0.1)


@pytest.mark.skipif(K_DIFFUSION.missing() is not None, reason="needs k-diffusion")
def test_k_diffusions_samplers_are_driven_as_they_run():
    claims = {claim.title: claim.solver for claim in K_DIFFUSION.claims()}
    start = torch.ones(3, 2, 1, 1, dtype=torch.float64)
    path = {"latents": start, "sigmas": log_levels(5, 10.0, 0.1), "final": "stop"}
    for title, name in (("sample_dpmpp_2m", "dpmpp_2m"), ("sample_heun", "heun"), ("sample_lms", "lms")):
        assert torch.allclose(run(claims[title], **path).x, run(name, **path).x, atol=1e-6)


@pytest.mark.skipif(DIFFUSERS.missing() is not None, reason="needs diffusers")
def test_diffusers_third_order_sde_has_a_wrong_curvature():
    claims = {claim.title: claim for claim in DIFFUSERS.claims()}
    wrong = claims["DPMSolverMultistep algorithm_type=sde-dpmsolver++ solver_order=3"]
    shares = step_shares(seedsbench.solver(wrong.solver))
    assert shares[:2] == pytest.approx([1, 1], abs=1e-3)
    assert shares[2] < 0.9
