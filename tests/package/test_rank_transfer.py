"""What scripts/rank_transfer.py and scripts/tuned.py conclude from rows, and that they run ordinary cells."""

import argparse
import re
import sys

import pytest

from scripts import rank_transfer as ranks
from scripts import tuned
from seedsbench.files.rows import read_row

NAMES = [f"s{i:02d}" for i in range(12)]


def test_tau_is_of_the_solvers_that_both_have():
    rising = {name: float(i) for i, name in enumerate(NAMES)}
    falling = {name: -fid for name, fid in rising.items()}
    same = ranks.tau(rising, rising | {"more": 3.0})
    assert same == (pytest.approx(1), pytest.approx(0, abs=1e-6), 12)
    found = ranks.tau(rising, {name: falling[name] for name in NAMES[1:]})
    assert found is not None
    assert (found.value, found.solvers) == (pytest.approx(-1), 11)
    assert ranks.tau(rising, {name: 1.0 for name in NAMES[:9]}) is None, "too few to rank"


def test_networks_are_those_that_are_there_and_every_pair_differs_in_something():
    known = {network.title: network for network in ranks.networks()}
    assert {"glyphs edm 0", "glyphs edm 0 again", "glyphs vp 1", "digits vp 0", "mixture"} <= known.keys()
    for other, said in [
        ("glyphs edm 0 again", "other samples"),
        ("glyphs edm 1", "other training"),
        ("glyphs vp 1", "other regime"),
        ("digits edm 0", "other data"),
        ("mixture", "an exact denoiser and a network"),
    ]:
        assert ranks.relation(known["glyphs edm 0"], known[other]) == said
    assert ranks.relation(known["mixture"], known["500 glyphs"]) == "two exact denoisers"


def test_the_page_says_what_the_numbers_are():
    chosen = ranks.networks()[:3]
    rising = {name: float(i) for i, name in enumerate(NAMES)}
    turned = {name: -fid for name, fid in rising.items()}
    scores = {(one.title, budget): rising for one in chosen for budget in ranks.BUDGETS}
    scores |= {(chosen[2].title, budget): turned for budget in (20, 50)}
    scores[chosen[1].title, 5] = {}
    taus = ranks.all_taus(chosen, scores)
    assert len(taus) == 3 * 4 - 2
    said = ranks.meaning(chosen, scores, taus)
    assert "other samples, 1.00 (1.00 to 1.00); other training, -1.00 (-1.00 to 1.00)" in said
    assert "1.00 at NFE 5, 1.00 at NFE 10, -1.00 at NFE 20, -1.00 at NFE 50" in said
    assert "agree less at the largest budget" in said
    assert "the best of another in 12 of 20 cases" in said  # 2 + 6 of those at 5 and 10, 2 + 2 at 20 and 50
    page = ranks.document(
        chosen, scores, taus, argparse.Namespace(samples=50, networks=["*"], nfe=[*ranks.BUDGETS])
    )
    assert f"| {chosen[0].title} | {chosen[1].title} | - | 1.00 (12; <0.0001)" in " ".join(page.split())
    assert ranks.figure(chosen, taus).axes[2].get_title() == "NFE 20"


def test_a_ranking_is_of_ordinary_cells_that_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "solvers", lambda: ["euler", "heun"])
    (mixture,) = (network for network in ranks.networks() if network.title == "mixture")
    options = argparse.Namespace(samples=8, results=tmp_path, plan=False, nfe=[5, 10])
    found = ranks.measured([mixture], options)
    assert {budget: len(found["mixture", budget]) for budget in (5, 10)} == {5: 2, 10: 2}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/rows/*.json")}
    assert len(files) == 4
    assert ranks.measured([mixture], options) == found
    assert files == {path: path.stat().st_mtime_ns for path in files}


def row_of(seed, fid, *words):
    command = " ".join(["seedsbench", "solver=heun", *words, f"seed={seed}"])
    return {
        "solver": "heun",
        "nfe_budget": 10,
        "seed": seed,
        "fid": fid,
        "status": "done",
        "command": command,
    }


def test_a_choice_is_made_on_the_seeds_of_the_selection_alone():
    default = [row_of(seed, 1.0, "grid=edm") for seed in tuned.SELECTION]
    fids = dict(zip(tuned.SELECTION, (2.0, 0.0, 0.1), strict=True))
    best = [row_of(seed, fid, "grid=logsnr", "solver.k=2") for seed, fid in fids.items()]
    partly = [row_of(seed, 0.1, "grid=vp") for seed in tuned.SELECTION[:2]]
    (cell, ranked), *_ = tuned.choices([*partly, *default, *best]).items()
    assert cell == ("heun", 10)
    assert [choice.words for choice in ranked] == [("grid=logsnr", "solver.k=2"), ("grid=edm",)]
    assert tuned.choices(best) == {}, "there is no default to compare with"
    tied = [row_of(seed, 1.0, "grid=a") for seed in tuned.SELECTION]
    assert tuned.choices([*tied, *default])[cell][0].words == tuned.DEFAULT
    with pytest.raises(ValueError, match="seed=0: choices may see 100, 101, 102 alone"):
        tuned.choices([*default, row_of(0, 0.0, "grid=vp")])


def test_tuned_solvers_are_tested_on_other_seeds(tmp_path, monkeypatch, capsys):
    words = ["model=gaussian", "solver=euler", "nfe=4", "samples=8", "grid=edm,logsnr"]
    words += [f"results_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["tuned.py", *words, "--experiments", "tuned"])
    tuned.main()
    table = capsys.readouterr().out
    fid = r"[\d.]+ ± [\d.]+"
    assert re.search(rf"\| euler +\| 4 +\| {fid} +\| {fid} +\| -?\d+% +\| .* \| 2 +\|", table)
    seeds = {
        study: {read_row(path)["seed"] for path in (tmp_path / study / "rows").iterdir()}
        for study in ("tuned_selection", "tuned")
    }
    assert seeds == {"tuned_selection": {*tuned.SELECTION}, "tuned": {*tuned.TEST}}
