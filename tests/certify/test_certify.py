"""The certificate: its measures are right, its files are what the solvers are today, its command behaves."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import seedsbench
from seedsbench.certify.distances import distance, distances, distances_of_exact_samples, sliced_wasserstein
from seedsbench.certify.main import main
from seedsbench.certify.orders import strong_order
from seedsbench.certify.problems import line_mixture, log_levels, mixture
from seedsbench.certify.row import WITHIN, configured_solvers, gaussian_orders, verdict, weak_measured
from seedsbench.certify.table import ordered, orders_text, write_tables
from seedsbench.certify.weak import (
    common_noise_order,
    exact_expectations,
    is_affine,
    is_markov,
    kolmogorov_expectations,
    kolmogorov_order,
)
from seedsbench.diffusion.noise import Philox
from seedsbench.diffusion.path import BrownianPath, NoPathError
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.seeds import Seeds2
from tests.support.cells import config_dir
from tests.support.measure import mixture as golden_mixture

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def committed():
    """The rows of the certificate in results/, by solver."""
    return pd.read_csv(RESULTS / "certificate.csv").set_index("solver", drop=False)


def test_the_committed_certificate_is_of_every_solver_as_it_declares_itself_today(committed):
    wanted = {one.title: one.build() for one in configured_solvers()}
    assert set(committed.index) == set(wanted), "run seedsbench-certify"
    for title, solver in wanted.items():
        row = committed.loc[title]
        declared = (solver.order, solver.stochastic, solver.adaptive, solver.total_nfe(1))
        assert tuple(row[["order", "stochastic", "adaptive", "smallest_budget"]]) == declared, title
        weak = math.nan if solver.weak_order is None else solver.weak_order
        assert row["weak_order"] == pytest.approx(weak, nan_ok=True), title
        assert row["verdict"] == "as declared" == verdict(row.to_dict()), title


OF_SEEDS = [("seeds1", 1, 1), ("seeds2", 2, 2), ("seeds2 c2=0.4", 2, 2), ("seeds3", 3, 2)]
OF_SEEDS += [("seeds3 c2=0.4", 3, 2), ("seeds3_asreleased", 1, 1)]


@pytest.mark.parametrize(("title", "drift", "weak"), OF_SEEDS)
def test_the_committed_certificate_shows_what_the_project_claims_of_seeds(committed, title, drift, weak):
    row = committed.loc[title].to_dict()
    assert row["drift_order_linear"] == pytest.approx(drift, abs=0.15)
    assert row["drift_order_vp"] == pytest.approx(drift, abs=0.15)
    assert row["weak_variance_gaussian"] == pytest.approx(weak, abs=0.1)
    assert weak_measured(row).order == pytest.approx(weak, abs=WITHIN)
    assert row["strong_order"] == pytest.approx(1, abs=0.2)


def test_the_tables_are_made_of_the_rows_and_the_figure_is_there(committed, tmp_path):
    text = (RESULTS / "certificate.md").read_text()
    exact = tuple(map(float, re.search(r"exact samples score (\S+) and (\S+):", text).groups()))
    df = ordered(committed.sample(frac=1, random_state=0).to_dict("records"))
    for made in write_tables(df, exact, tmp_path):
        assert made.read_bytes() == (RESULTS / made.name).read_bytes()
    assert (RESULTS / "certificate.png").read_bytes().startswith(b"\x89PNG")


def test_the_orders_are_told_on_the_terminal(committed):
    head, heun, seeds3, legend = orders_text(committed.loc[["heun", "seeds3"]]).splitlines()
    assert head.split()[:5] == ["solver", "family", "drift", "linear", "vp"]
    for line, name in ((heun, "heun"), (seeds3, "seeds3")):
        row = committed.loc[name]
        measured = [f"{row[f'drift_order_{schedule}']:.2f}" for schedule in ("linear", "vp")]
        assert line.split()[:5] == [name, row["family"], f"{row['order']}", *measured]
    assert "declared" in legend


@pytest.mark.one_of_each_family
def test_declared_weak_order_is_the_measured_one(solver_name):
    """Of solvers whose map is affine, exactly; the drift order is measured in test_solver_contract."""
    solver = seedsbench.solver(solver_name)
    if solver.weak_order is None:
        return
    assert is_affine(solver), "measure it by kolmogorov_order or common_noise_order"
    found = [order for order in gaussian_orders(solver, 128) if not math.isnan(order)]
    assert min(found) == pytest.approx(solver.weak_order, abs=WITHIN)


def test_a_wrong_declaration_is_contradicted():
    row = {"order": 2, "weak_order": 2, "drift_order_linear": 1.05, "drift_order_vp": 2.2}
    row |= {"weak_mean_gaussian": math.nan, "weak_variance_gaussian": 0.99}
    row |= {"weak_mixture": 0.98, "weak_mixture_stderr": 0.0}
    assert verdict(row) == "drift order 1.05 (linear), declared 2; weak order 0.98, declared 2"


def test_the_problem_is_the_golden_mixture():
    for mine, golden in zip(mixture().moments(), golden_mixture().moments(), strict=True):
        assert mine == pytest.approx(golden)
    assert line_mixture().moments()[1][0, 0] == pytest.approx(mixture().moments()[1][0, 0])


def test_one_path_is_brownian_whatever_the_order_of_its_readings():
    from scipy.stats import kstest  # takes a second to import

    normals = Philox(torch.arange(20_000), (1, 1, 1), seed=3)
    path = BrownianPath(normals, normals)
    whole = path.increment(torch.tensor(0.0), torch.tensor(1.0))
    left, right = (path.increment(torch.tensor(a), torch.tensor(b)) for a, b in [(0.0, 0.3), (0.3, 1.0)])
    beyond = path.increment(torch.tensor(-0.5), torch.tensor(0.0))
    assert torch.allclose(left + right, whole, atol=1e-12)
    for part, variance in ((whole, 1.0), (left, 0.3), (right, 0.7), (beyond, 0.5)):
        assert kstest(part.flatten().numpy() / variance**0.5, "norm").pvalue > 1e-3
    for a, b in ((left, right), (beyond, whole), (beyond, left)):
        correlation = np.corrcoef(a.flatten(), b.flatten())[0, 1]
        assert abs(correlation) < 5 / 20_000**0.5
    assert torch.equal(path.increment(torch.tensor(0.0), torch.tensor(0.3 + 1e-13).double()), left)
    with pytest.raises(NoPathError, match="fresh normals"):
        path.normal()


@pytest.mark.slow
def test_quadrature_agrees_with_simulation():
    expected = kolmogorov_expectations("seeds2", 6)
    n = 200_000
    start = seedsbench.noise.Philox(torch.arange(n), (1, 1, 1), seed=8, stream=9).normal()
    exact = line_mixture().draw(torch.arange(n), seed=1, stream=0x300)
    levels = log_levels(6, 5.0, 0.4)
    latents = exact / 5.0 + start  # the state at the first level has the exact law
    x = seedsbench.sample(line_mixture(), latents, solver="seeds2", sigmas=levels, final="stop").x.flatten()
    simulated = torch.stack([x, x**2, torch.cos(3 * x), torch.sin(3 * x)]).mean(1).numpy()
    assert expected == pytest.approx(simulated, abs=4 / n**0.5)
    assert np.abs(expected - exact_expectations()).max() > 0.01  # there is an error to see


@pytest.mark.slow
def test_orders_by_three_methods_agree():
    assert kolmogorov_order("seeds1", 32).order == pytest.approx(1, abs=0.1)
    assert kolmogorov_order("seeds2", 16).order == pytest.approx(2, abs=0.2)
    sampled = common_noise_order("seeds1", paths=20_000)
    assert sampled.order == pytest.approx(1, abs=0.1 + 3 * sampled.stderr)
    assert 0 < sampled.stderr < 0.2


def test_strong_order_is_one_for_seeds_and_none_without_a_path():
    for name in ("seeds1", "seeds2", "euler_maruyama"):
        found = strong_order(name, (16, 32, 64), paths=1000)
        assert found.order == pytest.approx(1, abs=0.15 + 3 * found.stderr)
    with pytest.raises(NoPathError, match="no noise"):
        strong_order("heun")
    with pytest.raises(NoPathError, match="fresh normals"):
        strong_order("ddpm", paths=10)


def test_a_weak_order_is_sampled_with_normals_beside_the_path():
    found = common_noise_order("seeds_multistep", 4, paths=20_000)
    assert found.order == pytest.approx(3, abs=0.5 + 3 * found.stderr)
    assert 0 < found.stderr < 0.5


def test_what_is_affine_and_what_remembers():
    assert is_affine("seeds3")
    assert not is_affine({"name": "pc_ve", "corrector": "langevin"})
    assert is_markov("seeds3")
    assert not is_markov("dpmpp_2m_sde")
    assert not is_markov("adaptive_sde")


def test_distances_know_the_distribution():
    low, high = (distances_of_exact_samples(samples=n) for n in (20_000, 1000))
    assert low[0] < high[0] < 1e-2
    assert low[1] < high[1] < 0.1
    exact = mixture().draw(torch.arange(5000), seed=0, stream=0x300).flatten(1).numpy()
    shifted = distances(exact + np.array([0.3, 0.0]))
    assert shifted[0] == pytest.approx(0.09, rel=0.1)  # |shift|^2
    assert shifted[1] == pytest.approx(0.3 / 2**0.5, rel=0.1)  # its root mean square over directions
    assert sliced_wasserstein(exact * 2) > 10 * sliced_wasserstein(exact)
    assert distance("seeds3", 3) is None
    assert distance("heun", 10, samples=500).nfe == 9


@pytest.mark.slow
def test_the_command_for_one_solver_keeps_the_others_rows(committed, tmp_path, capsys):
    old = committed[committed["solver"].isin(["euler", "heun"])].assign(samples=200)
    stale = old.iloc[:1].assign(solver="gone")
    pd.concat([old, stale]).to_csv(tmp_path / "certificate.csv", index=False)
    assert main(["heun", "--output", str(tmp_path), "--samples", "300", "--jobs", "1"]) == 0
    table = pd.read_csv(tmp_path / "certificate.csv").set_index("solver")
    assert list(table.index) == ["heun", "euler"]
    assert table["samples"].to_dict() == {"heun": 300, "euler": 200}
    said = capsys.readouterr().out
    assert "1 of 1 are as declared" in said
    assert said.splitlines()[1].split()[:3] == ["heun", "edm", "2"]
    assert (tmp_path / "certificate.png").stat().st_size > 10_000
    assert "| heun " in (tmp_path / "certificate.md").read_text()


LAME = """from seedsbench.solvers.seeds import Seeds1

class Lame(Seeds1):
    def step(self, *arguments):
        raise ArithmeticError('it never works')
"""


def test_a_solver_from_outside_is_certified_and_a_broken_or_unknown_one_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    config_dir(monkeypatch, tmp_path, "solver", "lame", LAME, {"lame": "Lame"})
    assert main(["lame", "--output", str(tmp_path), "--jobs", "1"]) == 1
    told = capsys.readouterr()
    assert "lame: failed: ArithmeticError: it never works" in told.err
    assert "0 of 1 are as declared" in told.out
    assert main(["seeds33"]) == 2
    assert "Did you mean" in capsys.readouterr().err


@pytest.mark.slow
def test_a_class_of_ones_own_can_be_measured():
    class Wrong(Seeds2):
        def step(self, process, x, t, t_next, state, noise):
            result = super().step(process, x, t, t_next, state, noise)
            return StepResult(result.x + 0.2 * noise.normal(), state)

    assert kolmogorov_order(Wrong(), 4).order < 1
