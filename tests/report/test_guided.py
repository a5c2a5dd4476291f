"""Rows of different guidance share no curve, and a sweep over its scale has figures of its own."""

import pytest

from seedsbench.report.figures import GUIDANCE, PLOTS, TRADEOFF, draw_figure
from seedsbench.report.guided import by_scale
from seedsbench.report.pareto import panels
from tests.report.test_curves import curve_names
from tests.support.studies import frame, make_row, panels_of


def guided(scale, budget=20, solver="heun", interval=None, **more):
    params = {"scale": scale, "rescale": 0.0, "interval": interval}
    return make_row(solver, budget, guidance="cfg", guidance_params=params, **more)


def unguided(budget):
    return make_row("heun", budget, guidance="none", guidance_params={})


def test_another_guidance_is_another_curve_and_a_row_from_before_there_was_any_has_none(tmp_path):
    old, new = make_row("heun", 20), unguided(50)
    assert curve_names(tmp_path, [old, new]) == {"heun"}
    found = curve_names(tmp_path, [old, new, guided(2.0), guided(3.0)])
    assert found == {
        "heun guidance=none", "heun guidance=cfg guidance.scale=2", "heun guidance=cfg guidance.scale=3"
    }  # fmt: skip
    assert len(curve_names(tmp_path, [make_row("heun", 20, status="skipped"), guided(2.0)])) == 2


def test_intervals_make_curves_at_different_budgets_too(tmp_path):
    rows = [guided(2.0, 20, interval=[0.3, 5.0]), guided(2.0, 50, interval=[0.3, 4.0])]
    assert len(curve_names(tmp_path, rows)) == 2
    assert len(curve_names(tmp_path, [rows[0], guided(2.0, 20)])) == 2


def test_curves_by_scale_join_what_differs_in_the_scale_alone(tmp_path):
    rows = [guided(s, b, k) for s in (1, 1.5, 3.0) for b in (20, 50) for k in ("heun", "seeds3")]
    rows += [guided(2.0, 20, interval=[0.3, 5.0]), unguided(20)]
    (panel,) = panels_of(tmp_path, rows)
    swept, found = by_scale(panel)
    assert set(found["curve"]) <= set(swept.looks)
    assert found.groupby("curve")["scale"].apply(list).to_dict() == {
        f"{solver} guidance.interval=null NFE {b}": [1, 1.5, 3]
        for solver in ("heun", "seeds3")
        for b in (20, 50)
    }
    expected = {row["guidance_params"]["scale"]: row["fid"] for row in rows[:12:4]}
    one = found[found["curve"] == "heun guidance.interval=null NFE 20"]
    assert dict(zip(one["scale"], one["fid"], strict=True)) == pytest.approx(expected)


def test_seeds_of_a_scale_are_one_point(tmp_path):
    rows = [guided(s, seed=k, fid=s + k) for s in (1, 2) for k in (0, 1)]
    (panel,) = panels_of(tmp_path, rows)
    _, found = by_scale(panel)
    assert found[["scale", "fid", "n"]].to_numpy().tolist() == [[1, 1.5, 2], [2, 2.5, 2]]


def test_figures_of_a_sweep_over_scales_exist_only_where_there_is_one(tmp_path):
    one = [guided(2.0, b) for b in (20, 50)]
    for rows, there in ((one, False), ([*one, guided(1.0)], True), ([make_row("heun", 20)], False)):
        df = frame(tmp_path, rows)
        for plot in (GUIDANCE, TRADEOFF):
            assert plot in PLOTS
            assert (draw_figure(df, panels(df), plot) is not None) is there


def test_a_trade_off_runs_from_the_lowest_scale_to_the_highest(tmp_path):
    scores = {1.0: (0.5, 8.0), 1.5: (0.3, 9.0), 2.0: (0.4, 9.5), 3.0: (0.6, 9.4)}
    df = frame(tmp_path, [guided(s, fid=fid, is_mean=score) for s, (fid, score) in scores.items()])
    for plot, x in ((GUIDANCE, list(scores)), (TRADEOFF, [score for _, score in scores.values()])):
        (ax,) = draw_figure(df, panels(df), plot).axes
        line = max(ax.lines, key=lambda drawn: len(drawn.get_xdata()))
        assert list(line.get_xdata()) == x
        assert list(line.get_ydata()) == [fid for fid, _ in scores.values()]
        told = " ".join(text.get_text() for text in ax.figure.texts)
        assert ("Scales from 1 to 3" in told) is (plot is TRADEOFF)
