"""What a row's scores were computed from, kept beside it."""

import numpy as np
import pytest

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.statistics import read_kept_statistics
from seedsbench.bench.rows.store import ResultStore
from seedsbench.metrics.fid import frechet_distance
from seedsbench.metrics.inception_score import inception_score
from seedsbench.metrics.reference import read_statistics
from tests.bench.test_resume import CELL, cut_off
from tests.support.cells import compose, run, same

KEEP = "keep_statistics=true"


def statistics_of(folder, row):
    return ResultStore(folder / "study").statistics_path(row["run_key"])


@pytest.mark.parametrize("model", ["gaussian_mixture", "glyphs"])
def test_fid_and_is_follow_from_the_statistics_to_the_bit(tmp_path, model):
    given = [f"model={model}", "samples=30", "nfe=3"]
    row = run(tmp_path, *given, KEEP)
    path = statistics_of(tmp_path, row)
    kept, problem = read_kept_statistics(path), problem_of(compose(*given), "cpu")
    ours, theirs = kept.moments, problem.reference
    assert frechet_distance(ours.mu, ours.sigma, theirs.mu, theirs.sigma) == row["fid"]
    assert inception_score(kept.logits, 10) == (row["is_mean"], row["is_std"])
    assert (kept.id, ours.n, kept.extractor_id) == (row["statistics_id"], 30, row["extractor_id"])
    assert read_statistics(path, problem.features).moments.n == 30, "and may be a reference itself"
    plain = run(tmp_path / "plain", *given)
    assert {**same(row), "statistics_id": None} == same(plain)
    assert not (tmp_path / "plain" / "study" / "statistics").exists()


def test_statistics_of_a_cell_that_was_cut_off_are_those_of_a_whole_one(tmp_path, evaluations):
    cut_off(tmp_path, evaluations, KEEP)
    row, whole = run(tmp_path, *CELL, KEEP), run(tmp_path / "whole", *CELL, KEEP, "batch_size=400")
    paths = statistics_of(tmp_path, row), statistics_of(tmp_path / "whole", whole)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert same(row) == same(whole)


def test_sums_with_more_than_is_asked_for_serve_and_with_less_do_not(tmp_path, evaluations, caplog):
    cut_off(tmp_path / "more", evaluations, KEEP)
    run(tmp_path / "more", *CELL)
    assert evaluations.samples <= 0.3 * 2 * 1320
    evaluations.samples = 0
    cut_off(tmp_path / "less", evaluations)
    row = run(tmp_path / "less", *CELL, KEEP)
    assert evaluations.samples == 2 * 1320
    assert "its logits.indices is missing" in caplog.text
    assert len(read_kept_statistics(statistics_of(tmp_path / "less", row)).logits) == 1320


def test_a_finished_row_stays_and_one_line_says_what_makes_its_statistics(tmp_path, evaluations, caplog):
    row, before = run(tmp_path), evaluations.samples
    assert run(tmp_path, KEEP) == row
    assert evaluations.samples == before
    assert "is done without statistics: force=true makes them" in caplog.text
    made = run(tmp_path, KEEP, "force=true")
    assert statistics_of(tmp_path, made).is_file()
    caplog.clear()
    assert run(tmp_path, KEEP) == made
    assert "is done without" not in caplog.text
    run(tmp_path, "force=true")
    assert not statistics_of(tmp_path, made).exists(), "they would be of another row"


def test_statistics_go_along_with_an_adopted_row(tmp_path):
    first, second = ("study=2025-01-01_00-00-00", "study=2025-01-02_00-00-00")
    row = run(tmp_path, KEEP, first)
    run(tmp_path, KEEP, second)
    name = f"statistics/{row['run_key']}.npz"
    paths = [tmp_path / study.removeprefix("study=") / name for study in (first, second)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


ARRAYS = {"n": 3, "mu": np.zeros(2), "sigma": np.eye(2), "logits": np.zeros((3, 4), np.float32)}
ARRAYS |= {name: "x" for name in ("extractor", "extractor_id", "reference_id")}


@pytest.mark.parametrize(
    "change",
    [
        {"mu": None},
        {"extractor": None},
        {"n": 4},
        {"n": 1, "logits": None},
        {"n": np.zeros(3, int)},
        {"n": "3"},
        {"mu": np.zeros(3)},
        {"mu": np.array([0.0, np.inf])},
        {"mu": np.array([object(), None])},
        {"sigma": np.eye(2, dtype=int)},
        {"logits": np.zeros(3)},
        {"extractor_id": np.array("x" * 5000)},
    ],
)
def test_what_is_no_statistics_is_refused_in_one_line(tmp_path, change):
    path = tmp_path / "k.npz"
    np.savez(path, **{name: value for name, value in (ARRAYS | change).items() if value is not None})
    with pytest.raises(ValueError, match=r"^no statistics of a row: .+") as error:
        read_kept_statistics(path)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused_and_a_whole_one_read(tmp_path):
    path = tmp_path / "k.npz"
    with pytest.raises(FileNotFoundError):
        read_kept_statistics(path)
    np.savez(path, **ARRAYS)
    assert read_kept_statistics(path).logits.shape == (3, 4)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no statistics of a row"):
        read_kept_statistics(path)
