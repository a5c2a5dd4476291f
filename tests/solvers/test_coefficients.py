"""Weights from a file: those of known methods give these methods, and tables that do not fit are refused."""

import pytest
import torch
import yaml

import seedsbench
from seedsbench.analytic import GaussianMixture
from tests.support.cells import run

MIXTURE = GaussianMixture([[0.6, 0.2], [-0.5, 0.5]], [0.5, 0.5], 0.15)
SIGMAS = [80.0, 20.0, 6.0, 2.0, 0.7, 0.2]
Z = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def two_step():
    """dpmpp_2m (Lu et al. 2022, algorithm 2) as a table."""
    s = torch.tensor(SIGMAS, dtype=torch.float64)
    ratio, h = s[1:] / s[:-1], (s[:-1] / s[1:]).log()
    weights = [[float(1 - ratio[0])]]
    for k in range(1, len(h)):
        share = float(h[k] / (2 * h[k - 1]))
        new = float(1 - ratio[k])
        weights.append([new * (1 + share), -new * share])
    return {"sigmas": SIGMAS, "state": ratio.tolist(), "denoised": weights}


def sampled(solver, **options):
    return seedsbench.sample(MIXTURE, Z, solver=solver, **options).x


def test_the_table_of_a_method_is_the_method(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump(two_step()))
    found = sampled({"name": "coefficients", "path": str(path)}, sigmas=SIGMAS)
    torch.testing.assert_close(found, sampled("dpmpp_2m", sigmas=SIGMAS), rtol=1e-12, atol=1e-12)
    told = {"name": "coefficients", **two_step(), "told": SIGMAS[:-1]}
    assert torch.equal(sampled(told, sigmas=SIGMAS), found)
    other = {**told, "told": [*SIGMAS[:-2], 0.6]}
    assert not torch.allclose(sampled(other, sigmas=SIGMAS), found, atol=1e-4)


def test_without_a_table_it_is_euler():
    expected = sampled("euler", nfe=9)
    torch.testing.assert_close(sampled("coefficients", nfe=9), expected, rtol=1e-12, atol=1e-12)


def test_a_row_keeps_the_weights_and_is_called_learned(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump(two_step()))
    words = ["solver=coefficients", f"solver.path={path}", "nfe=6", "samples=50", "grid=explicit"]
    row = run(tmp_path, "model=gaussian_mixture", *words, f"grid.sigmas={SIGMAS}")
    assert (row["status"], row["nfe"], row["solver_family"]) == ("done", 6, "learned")
    assert row["solver_params"] == {**two_step(), "told": [], "path": None}
    row = run(tmp_path, "model=gaussian_mixture", *words[:4])
    assert row["status"] == "failed"
    assert "over their own levels: use grid=explicit 'grid.sigmas=[80,20,6,2,0.7,0.2]'" in row["reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": [1.0]}, "state has 1 entries, sigmas 6: 5 steps"),
        ({"denoised": [[0.5]]}, "denoised has 1 entries, sigmas 6"),
        ({"told": [1.0]}, "told has 1 entries"),
        ({"denoised": [[1.0, 2.0], [1.0], [1.0], [1.0], [1.0]]}, r"denoised\[0\] has 2 weights: give 1 to 1"),
        ({"denoised": [[1.0], [], [1.0], [1.0], [1.0]]}, r"denoised\[1\] has 0 weights: give 1 to 2"),
        ({"sigmas": [1.0, -1.0]}, "must lie in"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        seedsbench.solver("coefficients", **{**two_step(), **change})
