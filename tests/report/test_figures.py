"""Figures and sample sheets: looks, labels, axes, and what is drawn of what a study holds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from seedsbench.report.figures import draw_figure, write_figures
from seedsbench.report.limits import FEWEST, ends, unbeaten
from seedsbench.report.pareto import panels
from seedsbench.report.published import matching, published
from seedsbench.report.sheets import write_sheets
from seedsbench.report.style import DARK_GROUND, SOLVER_FAMILIES, contrast, log_ticks, looks_of, spread
from tests.support.studies import CIFAR10, frame, make_row, panels_of, report_of, usual_rows, write_study


def looks(*curves):
    """Looks of curves given as (name, family, order)."""
    return looks_of(pd.DataFrame(curves, columns=["curve", "solver_family", "order"]).set_index("curve"))


def test_a_familys_curves_share_a_marker_and_are_told_apart():
    cells = itertools.product(SOLVER_FAMILIES, (1, 2, 3, 4), "ab")
    curves = [(f"{family}{order}{letter}", family, order) for family, order, letter in cells]
    found = looks(*curves)
    assert len({(look.family.marker, look.colour, str(look.line)) for look in found.values()}) == len(curves)
    assert all(contrast(look.colour) >= 4.5 for look in found.values())
    assert all(contrast(look.dark, DARK_GROUND) >= 4.5 for look in found.values())
    assert all(found[name].family is SOLVER_FAMILIES[family] for name, family, _ in curves)
    assert len({family.marker for family in SOLVER_FAMILIES.values()}) == len(SOLVER_FAMILIES)


def test_a_solvers_colour_depends_on_nothing_else_in_the_figure():
    mine = ("mine", "unheard of", 2)
    alone, among = looks(mine), looks(("heun", "edm", 2), ("other", None, 2), mine)
    assert alone["mine"].colour == among["mine"].colour
    assert alone["mine"].family is SOLVER_FAMILIES["other"]
    assert alone["mine"].line == "-" != among["mine"].line


def test_a_skipped_row_takes_family_and_order_from_its_solvers_other_rows(tmp_path):
    skipped = make_row("seeds3", 2, params={"c2": 0.3}, status="skipped", reason="too small")
    (panel,) = panels_of(tmp_path, [skipped, make_row("seeds3", 20, params={"c2": 0.4})])
    assert {look.family.title for look in panel.looks.values()} == {"SEEDS"}
    assert len({look.colour for look in panel.looks.values()}) == 1


def test_spread_keeps_gaps_bounds_and_order():
    wanted = np.array([0.5, 0.5, 0.1, 0.52, 0.98, 0.99])
    placed = spread(wanted, 0.1, 0.0, 1.0)
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-12
    assert placed.min() >= 0
    assert placed.max() <= 1 + 1e-12
    assert placed[2] == pytest.approx(0.1)
    assert list(np.argsort(placed, kind="stable")) == list(np.argsort(wanted, kind="stable"))


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (8.3, 54, [10, 20, 30, 50]),
        (9, 1e3, [10, 30, 100, 300, 1e3]),
        (19.1, 19.4, [19.1, 19.2, 19.3, 19.4]),
        (7.71, 8.85, [8, 8.5]),
    ],
)
def test_ticks_are_round_numbers(low, high, want):
    assert log_ticks(low, high, 5) == pytest.approx(want)


def axes_of(folder, rows):
    """The axes of the figure of these rows."""
    df = frame(folder, rows)
    return draw_figure(df, panels(df)).axes


def test_labels_do_not_overlap_even_with_many_curves_in_facets(tmp_path):
    solvers = ["seeds1", "seeds2", "seeds3", "seeds3_asreleased", "heun", "euler", "ddim", "ddpm", "dpmpp_2m"]
    solvers += [f"mine_{i}" for i in range(16)]
    cells = itertools.product(("vp", "edm"), enumerate(solvers), (10, 50))
    axes = axes_of(tmp_path, [make_row(s, b, regime=r, fid=1.0 + i / 1e4) for r, (i, s), b in cells])
    figure = axes[0].figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [
        t for ax in axes for t in ax.texts if t.get_gid() in ("curve-label", "curve-options", "floor-label")
    ]
    boxes = [t.get_window_extent(renderer).padded(-1) for t in texts]
    assert sum(t.get_gid() == "curve-label" for t in texts) == 2 * len(solvers)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(b.x1 <= figure.bbox.x1 and b.y0 >= 0 and b.y1 <= figure.bbox.y1 for b in boxes)
    assert [ax.get_title(loc="left") for ax in axes] == ["VP", "EDM"]


def test_axes_name_the_extractor_and_never_inception_for_another(tmp_path):
    extractors = ("glyphs-64d", "inception-v3", "pixels")
    axes = axes_of(tmp_path, [make_row("heun", b, extractor=e) for b in (10, 20) for e in extractors])
    named = {"FID, glyphs 64-d features", "FID, Inception-v3", "FID, raw pixels"}
    assert {ax.get_ylabel() for ax in axes} == named


@pytest.mark.parametrize(("floor", "named"), [(0.213, True), (None, False)])
def test_floor_is_drawn_and_named_where_known(tmp_path, floor, named):
    (ax,) = axes_of(tmp_path, [make_row("heun", 20, fid_floor=floor)])
    assert any("real vs real, 0.21" in text.get_text() for text in ax.texts) is named


@pytest.mark.parametrize("std", [0.02, 0.5])  # 0.5: the band reaches below zero
def test_a_floors_spread_is_a_band_in_the_figure_and_said_in_the_table(tmp_path, std):
    rows = [make_row("heun", 20, fid_floor=0.213, fid_floor_std=std), make_row("heun", 50, fid_floor=0.213)]
    (ax,) = axes_of(tmp_path, rows)
    (band,) = [patch for patch in ax.patches if patch.get_gid() == "floor-band"]
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert high == pytest.approx(0.213 + std)
    assert low == pytest.approx(max(0.213 - std, ax.get_ylim()[0]))
    assert any(f"real vs real, 0.21 ± {std:.1g}" in text.get_text() for text in ax.texts)
    lines = report_of(tmp_path, rows).table_md.read_text().splitlines()
    assert sum(f"0.213 ± {std:.1g}" in line for line in lines) == 1  # of the row that knows it


def test_figures_by_seconds_and_score_exist_only_where_there_is_something_to_show(tmp_path):
    full = frame(tmp_path, [make_row("heun", 20), make_row("ddim", 20)])
    bare = frame(tmp_path, [make_row("heun", 20, is_mean=None, images_per_second=None)])
    names = [{path.name for path in write_figures(df, panels(df), tmp_path / "f")} for df in (full, bare)]
    assert {"pareto.png", "seconds.svg", "inception_score.svg"} <= names[0]
    assert names[1] == {"pareto.png", "pareto.svg", "pareto.pdf"}


def test_published_numbers_are_shown_on_request_where_they_may_be_compared(tmp_path):
    assert len(published()) > 800
    assert set(published()["kind"]) == {"training-free", "searched", "learned"}
    df = frame(tmp_path, [make_row("heun", b, **CIFAR10, fid=300 / b) for b in (10, 20, 50)])
    shown = panels(df)
    found = matching(shown[0])
    assert len(found) > 50
    assert {*found["regime"], *found["kind"]} == {"VP", "training-free"}
    assert found["primary"].all()
    assert found["source"].notna().all()
    skipped = make_row("seeds3", 2, status="skipped", reason="too small", **{**CIFAR10, "reference": None})
    (joined,) = panels_of(tmp_path, [make_row("heun", 20, **CIFAR10), skipped])
    assert len(matching(joined)) == len(found)
    others = {"extractor": "glyphs-64d", "samples": 2000, "reference": "mine.npz", "model": "mine"}
    for name, value in others.items():
        (other,) = panels_of(tmp_path, [make_row("heun", 20, **{**CIFAR10, name: value})])
        assert matching(other).empty, name
    plain, overlaid = (
        write_figures(df, shown, tmp_path / name, overlay=name == "o")[1].read_text() for name in "po"
    )
    assert "published numbers" not in plain
    assert len(overlaid) > len(plain) + 1000
    assert "arXiv" in (tmp_path / "o" / "published.csv").read_text()
    assert not (tmp_path / "p" / "published.csv").exists()


def test_axes_reach_to_every_published_point_that_is_better(tmp_path):
    df = frame(tmp_path, [make_row("heun", b, **CIFAR10, fid=300 / b) for b in (10, 20, 50)])
    shown = panels(df)
    figure = draw_figure(df, shown, overlay=True)
    assert figure is not None
    (ax,) = figure.axes
    others = matching(shown[0])
    better = unbeaten(others["nfe"], others["fid"], [10, 20, 50], [30, 15, 6])
    assert 20 < better.sum() < len(others)
    left, right = ax.get_xlim()
    assert others["nfe"][better].between(left, right).all()
    assert others["fid"][better].min() > ax.get_ylim()[0]
    drawn = {
        tuple(point) for line in ax.lines if line.get_gid() == "published" for point in line.get_xydata()
    }
    wanted = others[better & (others["fid"] <= ax.get_ylim()[1])][["nfe", "fid"]]
    assert set(wanted.itertuples(index=False, name=None)) <= drawn


scores = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


@given(scores, st.lists(st.floats(1e-3, 1e3), max_size=2), st.floats(1e-2, 1e2), st.booleans())
def test_an_axis_holds_its_best_end_and_most_points_whatever_the_unit(scores, anchors, unit, lower):
    scores, anchors = np.array(scores), np.array(anchors)
    low, high = ends(scores, anchors, lower_is_better=lower)
    best = min([*scores, *anchors]) if lower else max([*scores, *anchors])
    assert (low if lower else high) == pytest.approx(best)
    inside = (scores >= low * (1 - 1e-9)) & (scores <= high * (1 + 1e-9))
    assert inside.mean() >= (0.875 if len(scores) >= FEWEST else 1)
    scaled = ends(scores * unit, anchors * unit, lower_is_better=lower)
    assert scaled == pytest.approx((low * unit, high * unit))
    mirrored = ends(1 / scores, 1 / anchors, lower_is_better=not lower)
    assert mirrored == pytest.approx((1 / high, 1 / low))


def test_an_outlier_leaves_the_frame_with_an_arrow_and_its_value(tmp_path):
    usual = [make_row("heun", b, fid=1 / b) for b in (5, 10, 15, 20, 30, 40, 50)]
    alone = make_row("euler", 10, fid=500.0)
    (ax,) = axes_of(tmp_path, [*usual, make_row("euler", 20, fid=0.15), alone])
    assert ax.get_ylim()[1] < 1
    (arrow,) = [line for line in ax.lines if line.get_gid() == "leaves"]
    assert list(arrow.get_xydata()[0]) == [10, ax.get_ylim()[1]]
    assert "500" in [text.get_text() for text in ax.texts]
    assert "Arrows: beyond the axis." in notes_of(ax.figure)
    (ax,) = axes_of(tmp_path, [*usual, make_row("euler", 20, fid=0.15)])
    assert [line for line in ax.lines if line.get_gid() == "leaves"] == []
    assert "Arrows" not in notes_of(ax.figure)


def notes_of(figure):
    """The notes, in one line."""
    (notes,) = [text for text in figure.texts if text.get_gid() == "notes"]
    return notes.get_text().replace("\n", " ")


def test_nothing_written_is_cut_and_a_label_has_its_curves_colour(tmp_path):
    rows = [make_row(s, b, seed=k, grid=g) for s in ("seeds1", "heun") for b in (10, 20) for k in (0, 1)
            for g in ("edm", "vp")]  # fmt: skip
    rows += [make_row("ddim", 10, grid="edm", warning="saturated"), make_row("ddim", 2, fid=0.0)]
    rows += [
        make_row("ddim", 1, status="skipped", reason="x"),
        make_row("ddim", 3, status="failed", reason="x"),
    ]
    (ax,) = axes_of(tmp_path, rows)
    figure = ax.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in [*figure.texts, *ax.texts]:
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    assert "Not shown: 1 skipped, 1 failed" in notes_of(figure)
    colours = {line.get_color() for line in ax.lines}
    labels = [text for text in ax.texts if text.get_gid() == "curve-label"]
    assert len(labels) == 5
    assert {text.get_color() for text in labels} <= colours


def test_sheet_shows_enlarged_pixels_unchanged(tmp_path):
    rows = usual_rows()
    study = write_study(tmp_path / "s", rows, sheets=True)
    (path,) = write_sheets(panels_of(tmp_path, rows), study, tmp_path)
    sheet = np.asarray(Image.open(path))
    row = next(r for r in rows if r["solver"] == "seeds3" and r["nfe_budget"] == 10)
    pixels = np.asarray(Image.open(study / "samples" / f"{row['run_key']}.png"))[:, :16]
    large = pixels.repeat(3, 0).repeat(3, 1)
    starts = np.argwhere((sheet == large[0, 0]).all(-1))
    assert any(np.array_equal(sheet[y : y + 48, x : x + 48], large) for y, x in starts)


def test_samples_that_cannot_be_read_leave_a_note_and_a_sheet(tmp_path):
    rows = [make_row("heun", 10), make_row("euler", 10)]
    study = write_study(tmp_path / "s", rows, sheets=True)
    (study / "samples" / f"{rows[0]['run_key']}.png").write_bytes(b"no image")
    assert len(write_sheets(panels_of(tmp_path, rows), study, tmp_path)) == 1
