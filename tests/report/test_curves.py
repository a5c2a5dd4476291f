"""What may be compared with what: panels of rows, and curves that no two configurations share."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.columns import asked
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.report.pareto import doubled, panels
from seedsbench.report.points import front
from tests.report.test_compare import compared
from tests.support.cells import compose
from tests.support.studies import frame, make_row, panels_of, repeated

BASE = ("solver=seeds2", "grid=edm", "schedule=vp")
CHANGES = [
    *("solver.eta=0.5", "solver=heun", "grid.rho=5", "grid=vp", "schedule.beta_min=0.2", "schedule=linear"),
    *("metrics.splits=5", "metrics.floor_sets=2", "model.std=0.2", "final=stop", "afs=true", "regime=vp"),
    *("dtype=float32", "precision=bf16", "compile=true", "seeding=edm", "labels=none", "samples=30"),
    "guidance=cfg",
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
    key = f"{seed}{'-'.join(overrides)}"
    fields = {**asked(cfg), **ids, "run_key": key, "n_steps": cfg.nfe, "seed": seed}
    row = make_row(fields.pop("solver"), fields.pop("nfe_budget"), **fields)
    return {key: value for key, value in row.items() if value is not None}, what_changes_numbers(cfg, who)


def curves_of(folder, rows):
    """(panel, curve) of each row, by run_key."""
    return {
        key: (panel.slug, curve)
        for panel in panels_of(folder, rows)
        for key, curve in zip(panel.rows["run_key"], panel.rows["curve"], strict=True)
    }


def curve_names(folder, rows):
    return {curve for _, curve in curves_of(folder, rows).values()}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_run_key_is_made_of_makes_another_curve(tmp_path, change):
    (base, _), (other, _) = row_of(), row_of(change, seed=1)
    found = curves_of(tmp_path, [base, other])
    assert found[base["run_key"]] != found[other["run_key"]]


def test_those_changes_are_of_everything_a_run_key_is_made_of():
    _, base = row_of()
    changed = set()
    for change in CHANGES:
        _, science = row_of(change)
        changed |= {key for key in base | science if base.get(key) != science.get(key)}
    assert changed == {*base, "guidance"} - ALIKE


def test_seed_and_budget_make_no_other_curve(tmp_path):
    rows = [row_of(f"nfe={nfe}", seed=seed)[0] for nfe in (6, 10) for seed in (0, 1)]
    assert len(set(curves_of(tmp_path, rows).values())) == 1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["edm", "vp"]), GRIDS), min_size=2, max_size=8))
def test_rows_of_a_curve_have_the_options_of_one_grid(tmp_path_factory, grids):
    rows = [
        make_row("heun", 20, seed=i, grid=name, grid_params=options, run_key=str(i))
        for i, (name, options) in enumerate(grids)
    ]
    found = curves_of(tmp_path_factory.mktemp("curves"), rows)
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
    assert curve_names(tmp_path, rows) == {"heun grid=edm", "heun grid=vp"}
    rows[-1] = make_row("heun", 20, seed=1, grid="edm", grid_params={**edm, "rho": 5.0})
    of_edm = {"heun grid=edm grid.rho=7", "heun grid=edm grid.rho=5"}
    assert curve_names(tmp_path, rows) == of_edm | {"heun grid=vp"}


def test_levels_given_for_each_number_of_steps_make_one_curve_until_two_are_given_for_one(tmp_path):
    levels = {3: [80.0, 1.0, 0.1], 4: [80.0, 5.0, 1.0, 0.1]}
    rows = [make_row("heun", b, grid="explicit", grid_params={"sigmas": s}) for b, s in levels.items()]
    assert curve_names(tmp_path, rows) == {"heun"}
    rows.append(make_row("heun", 3, seed=1, grid="explicit", grid_params={"sigmas": [80.0, 2.0, 0.1]}))
    assert len(curve_names(tmp_path, rows)) == 3


def test_options_that_are_no_json_object_are_read_all_the_same(tmp_path):
    odd = ["text", '{"rho": 5}', {"rho": 6}, "[1, 2]", "[" * 100_000, "NaN", "1" * 5000, "true", None]
    rows = [make_row("heun", 20, seed=i, grid_params=value, run_key=str(i)) for i, value in enumerate(odd)]
    assert len(set(curves_of(tmp_path, rows).values())) == len(odd)


@pytest.mark.parametrize(
    ("key", "value", "default"),
    [
        *[("network_precision", "bf16", "fp32"), ("seeding", "edm", "philox")],
        *[("compile", True, False), ("afs", True, False)],
    ],
)
def test_another_arithmetic_is_named_and_a_default_is_one_said_or_unsaid(tmp_path, key, value, default):
    rows = [make_row("heun", 20), make_row("heun", 50, **{key: default})]
    assert curve_names(tmp_path, rows) == {"heun"}
    found = curve_names(tmp_path, [*rows, make_row("heun", 20, **{key: value})])
    label = f"{key.removeprefix('network_')}={value}"
    assert sorted(label in curve for curve in found) == [False, True]


@pytest.mark.parametrize(
    ("change", "told", "against"),
    [
        ({"extractor": "pixels"}, "pixels", "extractor pixels against extractor glyphs-64d"),
        ({"extractor_id": "e2"}, "e2", "extractor e2 against extractor e1"),
        ({"reference_id": "abcdef0123"}, "reference abcdef01", "reference abcdef01 against reference r1"),
        ({"samples": 50000}, "N = 50,000", "N = 50,000 against N = 2,000"),
        ({"labels": "3"}, "class 3", "class 3 against balanced labels"),
    ],
)
def test_incomparable_rows_share_no_panel_and_meet_in_no_comparison(tmp_path, change, told, against):
    usual, other = ([make_row("heun", b, **changes) for b in (10, 20)] for changes in ({}, change))
    found = panels_of(tmp_path, usual + other)
    assert sorted(told in panel.title for panel in found) == [False, True]
    assert found[0].slug != found[1].slug
    met = compared(tmp_path, usual, other)
    assert met.both == []
    assert len(met.pairs) == 4
    assert any(against in note and note.startswith("Only in after") for note in met.notes)


def test_labels_name_only_what_differs(tmp_path):
    rows = [make_row("seeds3", 20, params={"c2": c, "eta": 1.0}) for c in (0.3, 0.4)]
    rows += [make_row("heun", 20, params={"c2": 9}), make_row("heun", 20, regime="vp")]
    rows += [make_row("heun", 20, regime=regime, grid="edm") for regime in ("vp", "ve")]
    found = {panel.key["regime"]: panel for panel in panels_of(tmp_path, rows)}
    assert list(found) == ["vp", "ve", "edm"]
    assert set(found["edm"].rows["curve"]) == {"seeds3 c2=0.3", "seeds3 c2=0.4", "heun"}
    assert set(found["vp"].rows["curve"]) == {"heun grid=vp", "heun grid=edm"}
    assert found["ve"].title.endswith("grid edm")


def test_front_keeps_what_nothing_beats():
    nfe = np.array([10, 10, 20, 20, 30, 5, np.nan])
    fid = np.array([2.0, 3.0, 1.0, 1.0, 1.5, np.nan, 0.1])
    assert front(nfe, fid).tolist() == [True, False, True, True, False, False, False]
    assert front(np.array([]), np.array([])).tolist() == []


def test_repeats_become_mean_and_sample_spread(tmp_path):
    failed = make_row("heun", 20, seed=3, status="failed", reason="killed")
    (panel,) = panels_of(tmp_path, [*repeated("heun", 20, [1.0, 2.0, 4.5]), failed])
    (point,) = panel.points.to_dict("records")
    assert point["fid"] == pytest.approx(2.5)
    assert point["fid_std"] == pytest.approx(np.std([1, 2, 4.5], ddof=1))
    assert (point["fid_min"], point["n"], point["done"], point["failed"]) == (1.0, 3, 3, 1)


def test_the_same_cell_run_twice_is_no_repeat_and_is_named(tmp_path):
    old = make_row("heun", 20, fid=1.0)
    new = make_row("heun", 20, fid=2.0, time_utc="2025-06-01T00:00:00Z")
    shown = panels(frame(tmp_path, [old, new]))
    (point,) = shown[0].points.to_dict("records")
    assert (point["fid"], point["n"]) == (2.0, 1)
    assert [fault.file for fault in doubled(shown)] == [f"{old['run_key']}.json"]
