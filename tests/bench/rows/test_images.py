"""Samples left as files for other people's programs."""

import numpy as np
import pytest
import torch
from PIL import Image

from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.images import KeptImages
from seedsbench.bench.scoring import extractor_input
from tests.bench.test_ranks import torchrun
from tests.bench.test_resume import CELL, cut_off
from tests.support.cells import compose, rows_of, run, same, samples_of

N = 1320
GLYPHS = ["model=glyphs", "samples=20", "nfe=3"]


def files_of(folder):
    """Name -> bytes of all that is left of images."""
    found = (path for path in (folder / "study" / "images").rglob("*") if path.is_file())
    return {path.relative_to(folder / "study" / "images").as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Folder and row of an unbroken cell of numbers that keeps some."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, *CELL, "keep_samples=40")


def test_pictures_are_those_that_were_scored(tmp_path):
    row = run(tmp_path, *GLYPHS, "keep_samples=7")
    cell = compose(*GLYPHS)
    problem = problem_of(cell, "cpu")
    scored = extractor_input(problem, samples_of(cell, problem))
    folder = tmp_path / "study" / "images" / row["run_key"]
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:06d}.png" for i in range(7)]
    for i in range(7):
        pixels = torch.from_numpy(np.array(Image.open(folder / f"{i:06d}.png")))
        assert torch.equal(pixels.permute(2, 0, 1), scored[i])
    assert same(run(tmp_path / "none", *GLYPHS)) == same(row)
    assert files_of(tmp_path / "none") == {}
    run(tmp_path / "one", *GLYPHS, "keep_samples=7", "batch_size=3")
    assert files_of(tmp_path / "one") == files_of(tmp_path)


def test_what_is_no_picture_is_one_array(tmp_path, numbers):
    folder, row = numbers
    (name,) = files_of(folder)
    assert name == f"{row['run_key']}.npz"
    found = np.load(folder / "study" / "images" / name)["arr_0"]
    cell = compose(*CELL)
    samples = samples_of(cell, problem_of(cell, "cpu"))
    assert np.array_equal(found, samples[:40].permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("before", [40, 10, 0])
def test_images_of_a_cell_that_was_cut_off_are_there_whatever_was_asked_for_before(
    tmp_path, evaluations, numbers, before
):
    cut_off(tmp_path, evaluations, f"keep_samples={before}")
    evaluations.samples = 0
    row = run(tmp_path, *CELL, "keep_samples=40")
    again = 2 * (40 - before)
    assert again <= evaluations.samples <= 0.3 * 2 * N + again
    assert files_of(tmp_path) == files_of(numbers[0])
    assert same(row) == same(numbers[1])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gaussian_mixture", "glyphs"])
def test_ranks_leave_what_one_process_does(tmp_path, model):
    keep = [f"model={model}", "samples=300", "nfe=3", "keep_samples=all", "keep_statistics=true"]
    result = torchrun(2, "solver=euler", *keep, "device=cpu", "study=study", "batch_size=50", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    alone = run(tmp_path, *keep)
    (row,) = rows_of(tmp_path / "results" / "study").values()
    assert row["world_size"] == 2
    assert row["statistics_id"] == alone["statistics_id"]
    assert files_of(tmp_path / "results") == files_of(tmp_path)
    kept = [folder / "study" / "statistics" for folder in (tmp_path, tmp_path / "results")]
    assert len({next(folder.iterdir()).read_bytes() for folder in kept}) == 1


def test_a_finished_row_stays_and_one_line_says_what_makes_its_images(tmp_path, evaluations, caplog):
    run(tmp_path, "keep_samples=5")
    before = evaluations.samples
    for wanted, left in ((3, False), (5, False), (6, True), ("all", True)):
        caplog.clear()
        run(tmp_path, f"keep_samples={wanted}")
        assert ("is done without its images: force=true makes them" in caplog.text) == left
    assert evaluations.samples == before


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_picture_is_grey_or_coloured_and_anything_else_an_array(tmp_path, channels, mode):
    kept = KeptImages(tmp_path / "images" / "k", 3)
    images = torch.arange(4 * channels * 6, dtype=torch.uint8).reshape(4, channels, 2, 3)
    kept.add(torch.tensor([1, 5, 2, 0]), images)
    assert not len(kept.missing())
    assert Image.open(tmp_path / "images" / "k" / "000002.png").mode == mode
    (tmp_path / "images" / "k" / "000001.png").unlink()
    assert kept.missing().tolist() == [1]
    assert not kept.finished
    two = KeptImages(tmp_path / "images" / "two", 3)
    two.add(torch.arange(3), images[:3, :1].expand(-1, 2, -1, -1))
    two.finish()
    assert np.load(tmp_path / "images" / "two.npz")["arr_0"].shape == (3, 2, 3, 2)
    assert two.finished


def test_a_link_in_the_place_of_images_is_set_aside(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "elsewhere")
    KeptImages(tmp_path / "images" / "k", 1).add(
        torch.tensor([0]), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "images" / "k" / "000000.png").is_file()
