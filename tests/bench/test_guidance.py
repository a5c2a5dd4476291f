"""guidance=cfg in a cell: its samples, its row, its key, and commands that are refused."""

import pytest
import torch

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.bench.sampling import generate, plan_of
from seedsbench.cli.command import Usage, parse
from tests.support.cells import check, compose, config_dir, key_of, run, samples_of

CFG = "guidance=cfg"


def samples(*overrides):
    cell = compose(*overrides)
    return samples_of(cell, problem_of(cell, "cpu"))


@pytest.mark.parametrize("solver", ["heun", "seeds3"])
def test_at_scale_1_it_is_none_bit_for_bit_under_a_name_of_its_own(solver, tmp_path):
    choice = (f"solver={solver}", "nfe=13")
    assert torch.equal(samples(*choice, CFG, "guidance.scale=1"), samples(*choice))
    rows = [run(tmp_path, *choice, *more) for more in ((), (CFG, "guidance.scale=1"))]
    same = ("fid", "nfe", "n_steps", "is_mean", "status", "model_id")
    assert [rows[0][key] for key in same] == [rows[1][key] for key in same]
    assert rows[0]["run_key"] != rows[1]["run_key"]
    assert [row["guidance"] for row in rows] == ["none", "cfg"]
    options = {"scale": 1, "rescale": 0.0, "interval": None, "null_label": None, "channels": None}
    assert [row["guidance_params"] for row in rows] == [{}, options]


def test_no_guidance_is_no_part_of_a_key_and_every_option_of_one_is():
    assert "guidance" not in what_changes_numbers(compose(), None)
    variants = ("scale=3", "rescale=0.5", "interval=[0.3,5]", "interval=[0.3,4]")
    keys = [key_of(), key_of(CFG), *(key_of(CFG, f"guidance.{variant}") for variant in variants)]
    assert len(set(keys)) == len(keys)


def test_a_guided_row_says_what_it_cost(tmp_path):
    for interval, steps in (("null", 5), ("[0.3,2]", 9)):
        row = run(tmp_path, "solver=ddim", "nfe=12", CFG, f"guidance.interval={interval}")
        assert (row["status"], row["nfe"], row["nfe_max"], row["n_steps"]) == ("done", 12.0, 12, steps)
    row = run(tmp_path, "solver=heun", "nfe=3", CFG)
    assert row["status"] == "skipped"
    assert row["reason"].endswith("the smallest budget that works is 6")


@pytest.mark.parametrize("solver", ["heun", "dpmpp_sde", "rk45"])
def test_samples_do_not_depend_on_the_batch(solver):
    cell = compose(f"solver={solver}", "nfe=40", CFG, "guidance.interval=[0.3,5]", "guidance.rescale=0.7")
    problem = problem_of(cell, "cpu")
    plan, indices = plan_of(cell, problem), torch.arange(cell.samples)
    whole, parts = (list(generate(problem.denoiser, plan, indices, batch_size=size)) for size in (20, 7))
    for name in ("x", "nfe"):
        assert torch.equal(
            *(torch.cat([getattr(batch, name) for batch in found]) for found in (whole, parts))
        )


def refusal(*words):
    with pytest.raises(Usage) as refused:
        check(parse(["-m", *words]))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_cannot_be_guided_is_refused_before_anything_runs():
    needs = "guidance=cfg needs labels: use labels=balanced, random or a class number"
    assert refusal(CFG, "labels=none") == needs
    assert refusal("guidance=none,cfg", "labels=none", "model=glyphs,gaussian_mixture") == needs
    alone = "guidance=cfg needs a model with classes, this one is unconditional: use guidance=none"
    assert refusal(CFG, "model=glyphs_finite") == refusal(CFG, "model=gaussian") == alone
    assert "ClassifierFree: rescale=2 must lie in [0, 1]" in refusal(CFG, "guidance.rescale=2")
    nearest = "unknown option 'guidance.sclae'. Did you mean 'guidance.scale'"
    assert refusal(CFG, "guidance.sclae=2").startswith(nearest)
    assert "(guidance=none has no options)" in refusal("guidance.scale=2")


OWN = """
from seedsbench.denoisers.guidance import Unguided as Base
class Unguided(Base): pass
class NotOne: pass
"""


def test_guidance_of_ones_own_is_known_by_its_source(tmp_path, monkeypatch):
    choices = {"mine": "Unguided", "wrong": "NotOne"}
    config_dir(monkeypatch, tmp_path, "guidance", "own_guidance", OWN, choices)
    assert key_of("guidance=mine") != key_of()
    assert torch.equal(samples("guidance=mine"), samples())
    said = "is no guidance: derive it from seedsbench.denoisers.guidance.Guidance"
    assert f"wrong.yaml: NotOne (own_guidance.py) {said}" in refusal("guidance=wrong")


def test_where_one_of_several_models_can_be_guided_the_others_fail_in_their_rows(tmp_path):
    check(parse(["-m", CFG, "model=gaussian,gaussian_mixture", "plan=true"]))
    row = run(tmp_path, CFG, "model=gaussian")
    assert (row["status"], row["reason"][:34]) == ("failed", "guidance=cfg needs a model with cl")


def test_a_plan_counts_guided_evaluations():
    words = [CFG, "model=gaussian_mixture", "solver=ddim", "nfe=12", "samples=20", "plan=true"]
    for interval, told in (("null", "5 steps, NFE 12"), ("[0.3,2]", "9 steps, NFE 12")):
        _, text = check(parse(["-m", *words, f"guidance.interval={interval}"]))
        assert f"{told}, 240 evaluations to do" in text
        assert "ddim cfg(scale=2.0" in text


def test_a_plan_says_which_guided_cell_will_fail():
    words = [CFG, "model=gaussian_mixture", "regime=iddpm", "grid.sigma_min=3e4", "grid.sigma_max=4e4"]
    _, text = check(parse(["-m", *words, "plan=true"]))
    assert "will fail, the grid's range [30000, 40000] does not meet the denoiser's" in text


GLYPHS = "model=glyphs"
AUTO = (GLYPHS, "guidance=auto", "guidance.training=1")


def test_autoguidance_is_of_both_networks_and_counts_both(tmp_path):
    row = run(tmp_path, "solver=ddim", "nfe=12", *AUTO)
    assert (row["status"], row["nfe"], row["nfe_max"], row["n_steps"]) == ("done", 12, 12, 5)
    own, other = (problem_of(compose(GLYPHS, f"model.training={n}"), "cpu") for n in (0, 1))
    assert (row["model_id"], row["weaker_id"]) == (own.model_id, other.model_id)
    assert row["guidance_params"]["training"] == 1
    plan = plan_of(compose("nfe=12", *AUTO, "guidance.scale=1.5"), problem_of(compose(*AUTO), "cpu"))
    guided = plan.guidance.of(problem_of(compose(*AUTO), "cpu").denoiser)
    x, sigma, labels = torch.randn(3, 3, 16, 16), torch.tensor(1.0), torch.eye(10)[:3]
    theirs = other.denoiser(x, sigma, labels)
    expected = theirs + 1.5 * (own.denoiser(x, sigma, labels) - theirs)
    torch.testing.assert_close(guided(x, sigma, labels), expected)


def test_at_scale_1_autoguidance_is_none_and_each_choice_has_a_key_of_its_own():
    choice = (GLYPHS, "solver=heun", "nfe=7")
    assert torch.equal(samples(*choice, *AUTO, "guidance.scale=1"), samples(*choice))
    variants = (
        [],
        ["guidance.scale=3"],
        ["guidance.interval=[0.3,5]"],
        ["model.training=1", "guidance.training=0"],
    )
    keys = [key_of(GLYPHS), *(key_of(*AUTO, *more) for more in variants)]
    assert len(set(keys)) == len(keys)


def test_a_weaker_network_that_is_none_is_refused_before_anything_runs():
    assert "give one of them, for the weaker network" in refusal("guidance=auto")
    assert "has no training 7" in refusal(*AUTO[:2], "guidance.training=7", "plan=true")
    assert (
        refusal(*AUTO, "model.training=1")
        == "guidance.training=1 is the model that is sampled: give another one"
    )
    alone = "guidance.training=1: model=gaussian has one training alone"
    assert alone in refusal(*AUTO[1:], "model=gaussian")
    missing = refusal(*AUTO[:2], "guidance.model=gone.pkl", "plan=true")
    assert "guidance.model=" in missing
    assert "gone.pkl: no such file" in missing
