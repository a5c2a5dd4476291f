"""No two configurations share a curve: all that may change numbers but seed and budget tells them apart."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.columns import asked
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.report.pareto import panels
from tests.report.test_compare import compared
from tests.report.test_report import make_row, read, write_study
from tests.support.cells import compose

BASE = ("solver=seeds2", "grid=edm", "schedule=vp")
CHANGES = [
    *("solver.eta=0.5", "solver=heun", "grid.rho=5", "grid=vp", "schedule.beta_min=0.2", "schedule=linear"),
    *("metrics.splits=5", "metrics.floor_sets=2", "model.std=0.2", "final=stop", "afs=true", "regime=vp"),
    *("dtype=float32", "precision=bf16", "compile=true", "seeding=edm", "labels=none", "samples=30"),
]
ALIKE = {"nfe", "seed", "numerics_version", "real_id"}  # one curve, or nothing that such a change reaches
GRIDS = st.fixed_dictionaries(
    {}, optional={"rho": st.sampled_from([5, 5.0, 7.00001, 7.00002, None, "5"]), "name": st.just("a" * 30)}
)


def row_of(*overrides, seed=0):
    """A row as the benchmark would write it of a configuration, and what its key is made of."""
    cfg = compose(*BASE, *overrides)
    who = problem_of(cfg, "cpu")
    ids = {"model_id": who.model_id, "extractor_id": who.features.id, "reference_id": who.reference_id}
    choices = {key: value for key, value in asked(cfg).items() if key not in ("nfe_budget", "seed")}
    fields = {**choices, **ids, "run_key": f"{seed}{'-'.join(overrides)}", "n_steps": cfg.nfe}
    row = make_row(fields.pop("solver"), cfg.nfe, seed=seed, **fields)
    return {key: value for key, value in row.items() if value is not None}, what_changes_numbers(cfg, who)


def curves_of(folder, rows):
    """(panel, curve) of each row, by run_key."""
    df, problems = read(write_study(folder, rows, sheets=False))
    assert problems == []
    return {
        key: (panel.slug, curve)
        for panel in panels(df)
        for key, curve in zip(panel.rows["run_key"], panel.rows["curve"], strict=True)
    }


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_run_key_is_made_of_makes_another_curve(tmp_path, change):
    (base, _), (other, _) = row_of(), row_of(change, seed=1)
    found = curves_of(tmp_path / "study", [base, other])
    assert found[base["run_key"]] != found[other["run_key"]]


def test_those_changes_are_of_everything_a_run_key_is_made_of():
    _, base = row_of()
    changed = set()
    for change in CHANGES:
        _, science = row_of(change)
        changed |= {key for key in base | science if base.get(key) != science.get(key)}
    assert changed == set(base) - ALIKE


def test_seed_and_budget_make_no_other_curve(tmp_path):
    rows = [row_of(f"nfe={nfe}", seed=seed)[0] for nfe in (6, 10) for seed in (0, 1)]
    assert len(set(curves_of(tmp_path / "study", rows).values())) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["edm", "vp"]), GRIDS), min_size=2, max_size=8))
def test_rows_of_a_curve_have_the_options_of_one_grid(tmp_path_factory, grids):
    rows = [
        make_row("heun", 20, seed=i, grid=name, grid_params=options, run_key=str(i))
        for i, (name, options) in enumerate(grids)
    ]
    found = curves_of(tmp_path_factory.mktemp("curves") / "study", rows)
    of = {}
    for i, grid in enumerate(grids):
        of.setdefault(found[str(i)], set()).add(json.dumps(grid, sort_keys=True))
    assert all(len(told) == 1 for told in of.values())
    assert len(of) == len(set().union(*of.values()))


def test_options_are_named_only_where_rows_of_one_grid_differ(tmp_path):
    edm, vp = {"sigma_min": 0.002, "rho": 7.0}, {"sigma_min": 0.01}
    rows = [make_row("heun", b, grid="edm", grid_params=edm) for b in (10, 20)]
    rows.append(make_row("heun", 20, grid="vp", grid_params=vp))
    rows.append(make_row("heun", 50, grid="edm"))  # of a version that did not record its options
    assert curve_names(tmp_path / "one", rows) == {"heun grid=edm", "heun grid=vp"}
    rows[-1] = make_row("heun", 20, seed=1, grid="edm", grid_params={**edm, "rho": 5.0})
    assert curve_names(tmp_path / "two", rows) == {
        *("heun grid=edm grid.rho=7", "heun grid=edm grid.rho=5", "heun grid=vp")
    }


def test_levels_given_for_each_number_of_steps_make_one_curve_until_two_are_given_for_one(tmp_path):
    levels = {3: [80.0, 1.0, 0.1], 4: [80.0, 5.0, 1.0, 0.1]}
    rows = [make_row("heun", b, grid="explicit", grid_params={"sigmas": s}) for b, s in levels.items()]
    assert curve_names(tmp_path / "one", rows) == {"heun"}
    rows.append(make_row("heun", 3, seed=1, grid="explicit", grid_params={"sigmas": [80.0, 2.0, 0.1]}))
    assert len(curve_names(tmp_path / "two", rows)) == 3


def curve_names(folder, rows):
    return {curve for _, curve in curves_of(folder, rows).values()}


def test_an_option_that_is_one_in_each_study_is_said_and_bridged(tmp_path):
    first, second = ([make_row("heun", 20, grid_params={"rho": rho})] for rho in (7.0, 5.0))
    found = compared(tmp_path, first, second)
    assert [pair.curve for pair in found.both] == ["heun"]
    assert found.notes == ["The studies differ in grid.rho: 7.0 in before, 5.0 in after."]


def test_the_options_of_two_grids_are_not_told_beside_the_grids(tmp_path):
    first, second = (
        [make_row("heun", 20, grid=name, grid_params={"sigma_min": low})]
        for name, low in (("edm", 0.002), ("vp", 0.01))
    )
    assert compared(tmp_path, first, second).notes == [
        "The studies differ in grid: edm in before, vp in after."
    ]


def test_options_that_are_no_json_object_are_read_all_the_same(tmp_path):
    odd = [True, 3, "text", '{"rho": 5}', [1, 2], None, 1e300]
    rows = [make_row("heun", 20, seed=i, grid_params=value, run_key=str(i)) for i, value in enumerate(odd)]
    assert pd.Series(curves_of(tmp_path / "study", rows)).nunique() == len(odd)
