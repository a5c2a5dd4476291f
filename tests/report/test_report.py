"""The report: rows in, tables, figures and sheets out, whatever the rows hold."""

import csv
import json
import math
import zlib

import numpy as np
import pytest
from PIL import Image

SPEED = {"seeds1": (90, 1.6), "seeds2": (160, 2.0), "seeds3": (220, 2.2), "seeds3_asreleased": (200, 2.0)}
SPEED |= {
    "heun": (60, 1.9),
    "euler": (9, 1.2),
    "dpmpp_2m": (3.0, 1.0),
    "ddim": (10, 1.2),
    "karras_sde": (160, 1.9),
}
PER_STEP = {"seeds2": 2, "seeds3": 3, "seeds3_asreleased": 3, "heun": 2, "karras_sde": 2}


def make_row(solver, budget, *, seed=0, model="glyphs", regime="edm", params=None, **changes):
    """A row as the benchmark writes it, with an FID that falls to a floor."""
    per = PER_STEP.get(solver, 1)
    nfe = (budget - 1) // per * per + 1
    scale, rate = SPEED.get(solver, (40, 1.5))
    hash_ = zlib.crc32(repr((solver, budget, seed, model, regime, params)).encode())
    worse = {"ve": 5, "vp": 1.4, "iddpm": 1.2}.get(regime, 1.0)
    fid = worse * (0.15 + scale * nfe**-rate) * (1 + 0.06 * (hash_ % 1000 / 500 - 1))
    row = {
        "status": "done", "reason": None, "model": model, "regime": regime,
        "schedule": "linear" if regime in ("edm", "iddpm") else regime, "grid": regime,
        "solver": solver, "solver_params": params or {}, "solver_family": None, "order": 1,
        "nfe_budget": budget, "nfe": float(nfe), "nfe_max": nfe, "n_steps": nfe // per, "samples": 2000,
        "seed": seed, "repeat": seed, "labels": "balanced", "final": "denoise", "fid": fid, "fid_floor": 0.2,
        "is_mean": 9.5 - fid / 10, "is_std": 0.1, "extractor": "glyphs-64d",
        "extractor_id": "e1", "reference_id": "r1", "stochastic": False,
        "model_id": f"m-{regime}", "seconds_sampling": 2.0, "seconds_features": 0.5, "seconds_scoring": 0.1,
        "images_per_second": 2000 / nfe, "device": "cpu", "batch_size": 64, "world_size": 1,
        "time_utc": "2025-01-01T00:00:00Z", "versions_torch": "2.9", **changes,
    }  # fmt: skip
    if row["status"] != "done":
        nothing = [
            "nfe",
            "nfe_max",
            "fid",
            "fid_floor",
            "is_mean",
            "is_std",
            "images_per_second",
            "extractor",
        ]
        row |= dict.fromkeys([*nothing, "extractor_id", "reference_id", "n_steps"])
    return {"run_key": f"{hash_:08x}{zlib.crc32(repr(sorted(changes.items())).encode()):08x}", **row}


def write_study(folder, rows, sheets=True, images=16):
    (folder / "rows").mkdir(parents=True)
    (folder / "samples").mkdir()
    for row in rows:
        (folder / "rows" / f"{row['run_key']}.json").write_text(json.dumps(row))
        if sheets and row["status"] == "done":
            strip(row, images).save(folder / "samples" / f"{row['run_key']}.png")
    return folder


def strip(row, n, size=16):
    """Disks on a ground: the same for every cell of a seed, noisier where the FID is worse."""
    rng = np.random.default_rng(int(row["seed"]))
    y, x = np.mgrid[:size, :size]
    images = []
    for _ in range(n):
        centre, radius = rng.uniform(5, 10, 2), rng.uniform(3, 6)
        inside = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)[..., None]
        images.append(np.where(inside, rng.uniform(0.6, 1, 3), rng.uniform(0, 0.5, 3)))
    noise = np.random.default_rng(1).normal(size=(size, size * n, 3)) * min(
        0.3, 0.05 * math.sqrt(row["fid"] or 0)
    )
    return Image.fromarray((np.clip(np.concatenate(images, 1) + noise, 0, 1) * 255).astype(np.uint8))


def usual_rows():
    solvers = ["seeds1", "seeds2", "seeds3", "seeds3_asreleased", "heun", "dpmpp_2m", "ddim"]
    rows = [make_row(s, b, seed=k) for s in solvers for b in (10, 20, 50) for k in range(3)]
    rows += [make_row("karras_sde", b) for b in (20, 50)]
    skipped = "NFE budget 2 fits no step of seeds3: use 4 or more"
    rows.append(make_row("seeds3", 2, status="skipped", reason=skipped))
    rows.append(
        make_row("karras_sde", 10, status="failed", reason="non-finite sample at step 3 (sigma 12.1)")
    )
    return rows


def read(study):
    from seedsbench.report.rows import read_rows

    return read_rows(study)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    from seedsbench.report.main import build_report

    study = write_study(tmp_path_factory.mktemp("usual") / "study", usual_rows())
    return study, build_report(study)


# --- reading -------------------------------------------------------------------------------------


def test_unreadable_files_become_problems_and_the_rest_is_read(tmp_path):
    good = make_row("heun", 20, custom_column={"b": 1, "a": 2}, fid="much")
    study = write_study(tmp_path / "s", [good], sheets=False)
    rows = study / "rows"
    (rows / "half.json").write_text('{"status": "do')
    (rows / "list.json").write_text("[1, 2]")
    (rows / "foreign.json").write_text('{"name": "package"}')
    (rows / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (rows / "status.json").write_text('{"status": "finished", "solver": "heun"}')
    (rows / "copy of it.json").write_text(json.dumps(good))
    (rows / ".hidden.json").write_text("x")
    (rows / "folder.json").mkdir()
    df, problems = read(study)
    assert len(df) == 1
    assert math.isnan(df["fid"][0])
    assert df["custom_column"][0] == '{"a":2,"b":1}'
    why = {p.file: p.why for p in problems}
    broken = {"half.json", "list.json", "foreign.json", "bytes.json", "status.json", "folder.json"}
    assert set(why) == {*broken, "copy of it.json", f"{good['run_key']}.json"}
    assert "not a number" in why[f"{good['run_key']}.json"]
    assert "repeats run_key" in why["copy of it.json"]


def test_parameters_are_canonical_whether_dict_or_json_text():
    from seedsbench.report.rows import canonical_params

    want = '{"c2":0.4,"eta":1}'
    given = {"eta": 1, "_target_": "seedsbench.x", "c2": 0.4}
    assert canonical_params(given) == canonical_params(json.dumps(given)) == want
    assert canonical_params("eta=1") == '{"params":"eta=1"}'


def test_order_does_not_depend_on_file_names(tmp_path):
    rows = usual_rows()
    one, _ = read(write_study(tmp_path / "a", rows, sheets=False))
    renamed = [{**row, "run_key": row["run_key"][::-1]} for row in rows]
    two, _ = read(write_study(tmp_path / "b", renamed, sheets=False))
    assert one.drop(columns="run_key").equals(two.drop(columns="run_key"))


# --- what may be compared ------------------------------------------------------------------------


def frame(tmp_path, rows):
    return read(write_study(tmp_path / "study", rows, sheets=False))[0]


def test_front_keeps_what_nothing_beats():
    from seedsbench.report.points import front

    nfe = np.array([10, 10, 20, 20, 30, 5, np.nan])
    fid = np.array([2.0, 3.0, 1.0, 1.0, 1.5, np.nan, 0.1])
    assert front(nfe, fid).tolist() == [True, False, True, True, False, False, False]
    assert front(np.array([]), np.array([])).tolist() == []


def test_repeats_become_mean_and_sample_spread(tmp_path):
    from seedsbench.report.pareto import panels
    from seedsbench.report.points import points

    rows = [make_row("heun", 20, seed=k, fid=f) for k, f in enumerate([1.0, 2.0, 4.5])]
    rows.append(make_row("heun", 20, seed=3, status="failed", reason="killed"))
    (panel,) = panels(frame(tmp_path, rows))
    (point,) = points(panel.rows).to_dict("records")
    assert point["fid"] == pytest.approx(2.5)
    assert point["fid_std"] == pytest.approx(np.std([1, 2, 4.5], ddof=1))
    assert (point["n"], point["done"], point["failed"]) == (3, 3, 1)


def test_the_same_cell_run_twice_is_no_repeat_and_is_named(tmp_path):
    from seedsbench.report.pareto import doubled, panels
    from seedsbench.report.points import points

    old = make_row("heun", 20, fid=1.0)
    new = make_row("heun", 20, fid=2.0, time_utc="2025-06-01T00:00:00Z")
    df = frame(tmp_path, [old, new])
    (point,) = points(panels(df)[0].rows).to_dict("records")
    assert (point["fid"], point["n"]) == (2.0, 1)
    assert [p.file for p in doubled(df)] == [f"{old['run_key']}.json"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"extractor": "pixels"}, "pixels"),
        ({"reference_id": "abcdef0123"}, "reference abcdef01"),
        ({"samples": 50000}, "N = 50,000"),
        ({"labels": 3}, "class 3"),
    ],
)
def test_incomparable_rows_are_panels_of_their_own_and_say_why(tmp_path, change, told):
    from seedsbench.report.pareto import panels

    rows = [make_row("heun", b) for b in (10, 20)] + [make_row("heun", b, **change) for b in (10, 20)]
    found = panels(frame(tmp_path, rows))
    assert len(found) == 2
    assert sum(told in panel.title for panel in found) == 1
    assert len({panel.slug for panel in found}) == 2


def test_labels_name_only_what_differs(tmp_path):
    from seedsbench.report.pareto import panels

    rows = [make_row("seeds3", 20, params={"c2": c, "eta": 1.0}) for c in (0.3, 0.4)]
    rows.append(make_row("heun", 20, params={"c2": 9}))
    rows.append(make_row("heun", 20, regime="vp"))
    rows.append(make_row("heun", 20, regime="vp", grid="edm"))
    rows.append(make_row("heun", 20, regime="ve", grid="edm"))
    found = {panel.key["regime"]: panel for panel in panels(frame(tmp_path, rows))}
    assert list(found) == ["vp", "ve", "edm"]
    assert set(found["edm"].rows["curve"]) == {"seeds3 c2=0.3", "seeds3 c2=0.4", "heun"}
    assert set(found["vp"].rows["curve"]) == {"heun grid=vp", "heun grid=edm"}
    assert found["ve"].title.endswith("grid edm")


def test_unscored_rows_join_the_panel_of_their_neighbours(tmp_path):
    from seedsbench.report.pareto import panels

    rows = [make_row("heun", 20), make_row("heun", 1, status="skipped", reason="too small")]
    assert len(panels(frame(tmp_path, rows))) == 1


# --- looks ---------------------------------------------------------------------------------------


def test_families_have_one_marker_and_solvers_keep_their_look():
    from seedsbench.report.style import FAMILIES, contrast, family_of, look

    for family, (_, marker, members) in FAMILIES.items():
        looks = [look(member) for member in members]
        assert {style.marker for style in looks} <= {marker}
        assert len({(style.colour, str(style.line)) for style in looks}) == len(looks), family
        assert all(contrast(style.text) >= 4.5 for style in looks)
    assert len({marker for _, marker, _ in FAMILIES.values()}) == len(FAMILIES)
    assert look("seeds3").line == "-" != look("seeds3_asreleased").line
    assert family_of("mine", "DPM-Solver++") == "dpm"
    assert family_of("mine", "nothing known") == "other"
    assert family_of("seeds4_mine", None) == "seeds"


def test_spread_keeps_gaps_bounds_and_order():
    from seedsbench.report.style import spread

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
        (9, 1100, [10, 30, 100, 300, 1000]),
        (19.1, 19.4, [19.1, 19.2, 19.3, 19.4]),
    ],
)
def test_ticks_are_round_numbers(low, high, want):
    from seedsbench.report.style import log_ticks

    assert log_ticks(low, high, 5) == pytest.approx(want)


# --- figures, tables, sheets ---------------------------------------------------------------------


@pytest.fixture
def pareto(monkeypatch):
    """Writes the figures of a frame and returns the Pareto figure as it was saved."""
    from seedsbench.report import figures

    def written(df, folder):
        saved, save = {}, figures.save

        def kept(figure, path, kinds):
            saved[path.name] = figure
            return save(figure, path, kinds)

        with monkeypatch.context() as patch:
            patch.setattr(figures, "save", kept)
            assert folder / "pareto.png" in figures.write_figures(df, folder)
        return saved["pareto"]

    return written


def overlaps(figure):
    """Pairs of curve labels in one figure whose boxes cover each other, and labels off the page."""
    renderer = figure.canvas.get_renderer()
    texts = [t for ax in figure.axes for t in ax.texts if t.get_gid() == "curve-label"]
    boxes = [t.get_window_extent(renderer).padded(-1) for t in texts]
    page = figure.bbox
    off = [
        t.get_text()
        for t, b in zip(texts, boxes, strict=True)
        if b.x1 > page.x1 or b.y0 < 0 or b.y1 > page.y1
    ]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    return len(texts), pairs, off


def test_labels_do_not_overlap_even_with_many_curves_in_facets(tmp_path, pareto):
    solvers = ["seeds1", "seeds2", "seeds3", "seeds3_asreleased", "heun", "euler", "ddim", "ddpm", "dpmpp_2m"]
    solvers += [f"mine_{i}" for i in range(16)]
    rows = [
        make_row(s, b, regime=r, fid=1.0 + i / 1e4)
        for r in ("vp", "edm")
        for i, s in enumerate(solvers)
        for b in (10, 50)
    ]
    figure = pareto(frame(tmp_path, rows), tmp_path / "figures")
    assert overlaps(figure) == (2 * len(solvers), [], [])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["VP", "EDM"]


def test_axes_name_the_extractor_and_never_inception_for_another(tmp_path, pareto):
    rows = [
        make_row("heun", b, extractor=e) for b in (10, 20) for e in ("glyphs-64d", "inception-v3", "pixels")
    ]
    named = {ax.get_ylabel() for ax in pareto(frame(tmp_path, rows), tmp_path / "figures").axes}
    assert named == {"FID, glyphs 64-d features", "FID, Inception-v3", "FID, raw pixels"}


def test_floor_is_drawn_and_named_where_known(tmp_path, pareto):
    floored = pareto(frame(tmp_path / "a", [make_row("heun", 20, fid_floor=0.213)]), tmp_path / "f")
    assert any("real vs real, 0.21" in t.get_text() for t in floored.axes[0].texts)
    bare = pareto(frame(tmp_path / "b", [make_row("heun", 20, fid_floor=None)]), tmp_path / "f")
    assert not any("real" in t.get_text() for t in bare.axes[0].texts)


def test_a_study_leaves_everything_it_promises(usual):
    study, report = usual
    for name in ("table.csv", "table.md", "figures/pareto.png", "figures/pareto.svg", "figures/pareto.pdf"):
        assert (study / name).stat().st_size > 0
    assert [path.name for path in report.sheets] == ["samples_glyphs_edm.png"]
    table = (study / "table.md").read_text()
    assert "fits no step of seeds3: use 4 or more" in table
    assert "non-finite sample at step 3" in table
    assert "done x 3" in table
    assert " ± " in table
    lines = report.summary.splitlines()
    columns = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert columns["karras_sde"][1] == "failed"
    assert columns["dpmpp_2m"][1].endswith("*")


def test_two_builds_give_the_same_bytes(usual):
    from seedsbench.report.main import build_report

    study, _ = usual
    files = [study / "table.csv", study / "table.md", *sorted((study / "figures").iterdir())]
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    build_report(study)
    assert [path.name for path in files if path.read_bytes() != before[path]] == []


def test_sheet_shows_enlarged_pixels_unchanged(usual):
    study, report = usual
    sheet = np.asarray(Image.open(report.sheets[0]))
    row = next(r for r in usual_rows() if r["solver"] == "seeds3" and r["nfe_budget"] == 10)
    pixels = np.asarray(Image.open(study / "samples" / f"{row['run_key']}.png"))[:, :16]
    large = pixels.repeat(3, 0).repeat(3, 1)
    first = np.argwhere((sheet[:, :, :] == large[0, 0]).all(-1))
    assert any(
        (sheet[y : y + 48, x : x + 48].shape == large.shape)
        and (sheet[y : y + 48, x : x + 48] == large).all()
        for y, x in first
    )


@pytest.mark.parametrize("fid", [None, 0.0, -1e-9, float("nan")])
def test_cells_without_a_positive_fid_are_listed_not_drawn(tmp_path, fid):
    from seedsbench.report.main import build_report

    study = write_study(tmp_path / "s", [make_row("heun", 10, fid=fid), make_row("heun", 20)], sheets=False)
    build_report(study)
    assert "without a positive FID" in (study / "table.md").read_text()


@pytest.mark.parametrize(
    "rows",
    [
        [make_row("heun", 1, status="skipped", reason="too small"), make_row("heun", 9, status="failed")],
        [make_row("heun", 20)],
        [make_row("heun", 20, fid=None)],
        [make_row("euler", 20), make_row("heun", 20)],
        [{"run_key": "a", "status": "done", "solver": "heun", "fid": 1.0, "nfe": 19}],
        [{"run_key": "a", "status": "failed", "solver": "heun"}],
    ],
    ids=["nothing finished", "one row", "no FID", "one budget", "few columns", "only a status"],
)
def test_odd_studies_get_a_report(tmp_path, rows):
    from seedsbench.report.main import build_report

    report = build_report(write_study(tmp_path / "s", rows, sheets=False))
    assert report.pareto.stat().st_size > 0
    assert report.table_md.read_text().startswith("# s\n")


def test_samples_that_cannot_be_read_leave_a_note_and_a_sheet(tmp_path):
    from seedsbench.report.main import build_report

    rows = [make_row("heun", 10), make_row("euler", 10)]
    study = write_study(tmp_path / "s", rows)
    (study / "samples" / f"{rows[0]['run_key']}.png").write_bytes(b"no image")
    assert len(build_report(study).sheets) == 1


# --- command line --------------------------------------------------------------------------------


def test_command_line_prints_paths_and_errors_that_help(usual, tmp_path, capsys):
    from seedsbench.report.main import main

    study, _ = usual
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert str(study / "figures" / "pareto.png") in out
    assert str(study / "table.md") in out
    (tmp_path / "empty" / "rows").mkdir(parents=True)
    wrong = {
        tmp_path / "none": "no such folder",
        tmp_path / "empty": "no cell of this study",
        study / "rows": str(study),
    }
    for path, says in wrong.items():
        assert main([str(path)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "rows/*.json" in capsys.readouterr().out


def test_report_imports_no_torch_and_no_hydra():
    import subprocess
    import sys

    code = "import sys, seedsbench.report.main; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split())
    assert not loaded & {"torch", "hydra", "omegaconf", "matplotlib.pyplot"}
    ours = {name for name in loaded if name.split(".")[0] == "seedsbench"}
    assert all(name == "seedsbench" or name.startswith("seedsbench.report") for name in ours)


def test_winners_have_a_margin_and_an_error(tmp_path):
    from seedsbench.report.pareto import panels
    from seedsbench.report.points import points
    from seedsbench.report.ranking import winners

    rows = [make_row("heun", 20, seed=s, fid=1.0 + 0.01 * s) for s in range(3)]
    rows += [make_row("ddim", 20, seed=s, fid=2.0 + 0.02 * s) for s in range(3)]
    rows += [make_row("heun", 50, fid=0.5), make_row("ddim", 50, fid=0.4), make_row("ddim", 100, fid=0.3)]
    (panel,) = panels(frame(tmp_path, rows))
    at20, at50, at100 = winners(points(panel.rows))
    assert (at20.budget, at20.best, at20.second, at20.clear) == (20, "heun", "ddim", True)
    assert at20.margin == pytest.approx(1.01)
    assert at20.error == pytest.approx(math.hypot(0.01, 0.02) / 3**0.5)
    assert (at50.best, at50.second, at50.clear) == ("ddim", "heun", None)  # one seed each
    assert (at100.best, at100.second) == ("ddim", None)


def test_ranking_is_the_geometric_mean_over_the_common_range(tmp_path):
    from seedsbench.report.pareto import panels
    from seedsbench.report.points import points
    from seedsbench.report.ranking import ranking

    rows = [make_row("ddim", n, nfe=float(n), fid=100 / n) for n in (10, 20, 50)]
    rows += [make_row("heun", n, nfe=float(n), fid=50 / n) for n in (10, 20, 50)]
    rows += [make_row("euler", 20, nfe=20.0, fid=0.1)]
    (panel,) = panels(frame(tmp_path, rows))
    (low, high), ranked, left = ranking(points(panel.rows))
    assert (low, high) == (10, 50)
    assert [one.curve for one in ranked] == ["heun", "ddim"]
    # FID = 100/n is a straight line on log axes: its mean is its value in the middle.
    assert ranked[1].mean_fid == pytest.approx(100 / (10 * 50) ** 0.5)
    assert left == ["euler"]


def test_latex_is_escaped_and_bolds_the_best(tmp_path):
    from seedsbench.report.latex import escape, write_latex

    rows = [make_row("seeds3_asreleased", 20, fid=0.5), make_row("heun", 20, fid=0.25)]
    write_latex(frame(tmp_path, rows), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"seeds3\_asreleased & $0.5$ \\" in text
    assert r"heun & $\mathbf{0.25}$ \\" in text
    assert text.count(r"\toprule") == 1
    assert escape("a_b%&#{}~^\\") == r"a\_b\%\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"


def test_figures_by_seconds_and_score_exist_only_where_there_is_something_to_show(tmp_path):
    from seedsbench.report.main import build_report

    full = write_study(tmp_path / "full", [make_row("heun", 20), make_row("ddim", 20)], sheets=False)
    bare = [make_row("heun", 20, is_mean=None, images_per_second=None)]
    bare = write_study(tmp_path / "bare", bare, sheets=False)
    for study in (full, bare):
        build_report(study)
    names = {path.name for path in (full / "figures").iterdir()}
    assert {"pareto.png", "seconds.svg", "inception_score.svg"} <= names
    assert {path.stem for path in (bare / "figures").glob("*.png")} == {"pareto"}


def test_published_numbers_are_shown_on_request_where_they_may_be_compared(tmp_path):
    from seedsbench.report.figures import write_figures
    from seedsbench.report.pareto import panels
    from seedsbench.report.published import Choice, matching, published

    assert len(published()) > 800
    assert set(published()["kind"]) == {"training-free", "searched", "learned"}
    inception = {"model": "cifar10_uncond", "extractor": "inception-v3", "regime": "vp", "fid_floor": None}
    rows = [make_row("heun", b, **inception, fid=300 / b) for b in (10, 20, 50)]
    df = frame(tmp_path / "a", rows)
    (panel,) = panels(df)
    found = matching(panel)
    assert len(found) > 50
    assert set(found["regime"]) == {"VP"}
    assert set(found["kind"]) == {"training-free"}
    assert found["primary"].all()
    assert found["source"].notna().all()
    assert len(matching(panel, Choice(primary=False))) > len(found)
    (other,) = panels(frame(tmp_path / "b", [make_row("heun", 20)]))  # glyphs: another feature space
    assert matching(other).empty
    plain, overlaid = (
        write_figures(df, tmp_path / name, overlay=bool(o))[1] for name, o in (("p", 0), ("o", 1))
    )
    assert "published numbers" not in plain.read_text()
    assert len(overlaid.read_text()) > len(plain.read_text()) + 1000
    sources = (tmp_path / "o" / "published.csv").read_text()
    assert "arXiv" in sources
    assert not (tmp_path / "p" / "published.csv").exists()


def test_seeds_are_exact_however_large(tmp_path):
    """As floats, two seeds above 2^53 are one, and one above 2^63 ended the report."""
    from seedsbench.report.main import build_report
    from seedsbench.report.pareto import panels

    seeds = [0, 2**53, 2**53 + 1, 2**60, 2**64 - 1]
    rows = [make_row("heun", 10, seed=seed, repeat=None) for seed in seeds]
    rows.append(make_row("euler", 10, seed=2**60 + 1, repeat=None, status="failed", reason="killed"))
    report = build_report(write_study(tmp_path / "s", rows, sheets=False))
    assert report.faults == ()
    assert panels(report.rows)[0].points.set_index("curve")["n"].to_dict() == {"heun": 5, "euler": 0}
    with open(tmp_path / "s" / "table.csv") as file:
        assert sorted(int(row["seed"]) for row in csv.DictReader(file)) == sorted([*seeds, 2**60 + 1])
    assert f"| {2**60 + 1} " in (tmp_path / "s" / "table.md").read_text()
    page = (tmp_path / "s" / "report.html").read_text()
    assert all(str(seed) in page for seed in (*seeds, 2**60 + 1))


HUGE = pytest.param(10**400, id="10**400")


@pytest.mark.parametrize("seed", [HUGE, -1, 2**64, 1.5, math.inf, "words", [1]])
def test_a_seed_that_is_none_is_a_problem_and_no_end(tmp_path, seed):
    from seedsbench.report.main import build_report

    rows = [make_row("heun", 10), make_row("euler", 10, seed=7, status="failed", reason="killed")]
    rows[1]["seed"] = seed
    report = build_report(write_study(tmp_path / "s", rows, sheets=False))
    assert len(report.rows) == 2
    (problem,) = report.faults
    assert problem.why.startswith("seed is ")
    assert len(problem.why) < 120


@pytest.mark.parametrize("name", ["samples", "nfe_budget", "batch_size", "n_steps"])
@pytest.mark.parametrize("value", [HUGE, 1e300, 2**60])
def test_whole_numbers_no_float_holds_are_a_problem_and_no_end(tmp_path, name, value):
    from seedsbench.report.main import build_report

    rows = [make_row("heun", 10), make_row("euler", 20, **{name: value})]
    report = build_report(write_study(tmp_path / "s", rows, sheets=False))
    assert [problem.why.split(" is ")[0] for problem in report.faults] == [name]
