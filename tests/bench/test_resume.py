"""A cell that is cut off goes on from its partial sums and ends as if it never was."""

import signal
import threading
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from seedsbench.bench.draw_and_score import in_parts
from seedsbench.bench.problems.base import Pairs
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.resume import Saver, about, packed, unpacked
from seedsbench.bench.rows.store import ResultStore
from seedsbench.bench.scoring import Scorer
from seedsbench.bench.stopping import Stopped, request_stop, stop_requested, stops_on_signals
from tests.support.cells import compose, run, same

N = 1320  # 10 blocks of 128 and a last one of 40
INTERRUPT = Mock(side_effect=KeyboardInterrupt)
CELL = ["solver=euler", "nfe=2", f"samples={N}", "batch_size=50", "save_every=0"]


def cut_off(folder, evaluations, *overrides, fraction=0.8, event=INTERRUPT, ends=KeyboardInterrupt):
    """Runs the cell until so much of it is evaluated; its files of sums."""
    evaluations.samples, evaluations.at, evaluations.event = 0, fraction * 2 * N, event
    with stops_on_signals(), pytest.raises(ends):
        run(folder, *CELL, *overrides)
    evaluations.samples = 0
    return sorted(folder.glob("*/partial/*/*.npz"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The row of an unbroken run."""
    return run(tmp_path_factory.mktemp("whole"), *CELL)


@pytest.mark.parametrize("fraction", [0.05, 0.8])
def test_a_cell_that_is_cut_off_goes_on_where_it_was(tmp_path, evaluations, whole, fraction, caplog):
    saved = cut_off(tmp_path, evaluations, fraction=fraction)
    assert [path.name for path in saved] == (["rank-0.npz"] if fraction > 0.1 else [])
    caplog.set_level("INFO")
    again = run(tmp_path, *CELL, "batch_size=128")
    assert evaluations.samples <= (1 - fraction + 0.1) * 2 * N
    assert ("goes on at" in caplog.text) == (fraction > 0.1)
    assert same(again) == same(whole)
    assert not (tmp_path / "study" / "partial").exists()


def test_what_is_extrapolated_goes_on_where_it_was_too(tmp_path, evaluations):
    cut_off(tmp_path, evaluations, "metrics.extrapolate=true")
    again = run(tmp_path, *CELL, "metrics.extrapolate=true", "batch_size=128")
    assert evaluations.samples < N
    assert same(again) == same(run(tmp_path / "whole", *CELL, "metrics.extrapolate=true"))


def test_a_cell_may_be_cut_off_many_times_and_its_seconds_add_up(tmp_path, evaluations, whole):
    seconds, stop = [], {"fraction": 0.3, "event": request_stop, "ends": Stopped}
    for _ in range(3):
        path = cut_off(tmp_path, evaluations, "save_every=1000", **stop)[-1]
        seconds.append(unpacked(path.read_bytes())[0]["seconds"])
    row = run(tmp_path, *CELL)
    assert evaluations.samples <= 0.45 * 2 * N
    assert row["seconds_sampling"] > sum(seconds)[0]
    assert row["seconds_features"] > sum(seconds)[1]
    assert row["images_per_second"] == N / row["seconds_sampling"]
    assert same(row) == same(whole)


def test_a_signal_asks_for_a_stop_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    told = threading.Event()
    with stops_on_signals(told.set):
        signal.raise_signal(signal.SIGTERM)
        assert stop_requested()
        assert told.is_set()
    assert not stop_requested()
    assert signal.getsignal(signal.SIGTERM) == before


def flipped(data):
    at = data.index(unpacked(data)[0]["fid.total"].tobytes())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def changed(data, name=None, change=None, **about):
    state, of = unpacked(data)
    return packed(state if name is None else {**state, name: change(state[name])}, of | about)


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-2000],
        flipped,
        lambda data: b"",
        lambda data: changed(data, run_key="0" * 16),
        lambda data: changed(data, "fid.total", lambda array: array[:-1]),
        lambda data: changed(data, "done", lambda array: array[::-1].copy()),
        lambda data: changed(data, "shown.images", lambda array: array[:-1]),
    ],
    ids=[
        "truncated",
        "flipped",
        "empty",
        "foreign",
        "of another shape",
        "of other blocks",
        "of other images",
    ],
)
def test_sums_that_cannot_be_used_are_ignored_with_one_warning(tmp_path, evaluations, whole, harm, caplog):
    (path,) = cut_off(tmp_path, evaluations)
    path.write_bytes(harm(path.read_bytes()))
    row = run(tmp_path, *CELL)
    assert evaluations.samples == 2 * N
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("partial sums that cannot be used")
    assert same(row) == same(whole)
    assert not (tmp_path / "study" / "partial").exists()


@pytest.mark.parametrize("place", ["rank-0.npz", "earlier.npz", "."])
def test_what_stands_in_the_place_of_sums_is_set_aside(tmp_path, evaluations, whole, place):
    (path,) = cut_off(tmp_path, evaluations)
    path.unlink()
    if place == ".":
        path.parent.rmdir()
        path.parent.write_text("in the way")
    else:
        (path.parent / place).mkdir()
    assert same(run(tmp_path, *CELL)) == same(whole)
    if place == ".":
        assert path.parent.with_name(f"{path.parent.name}.unreadable").read_text() == "in the way"


def test_sums_that_give_no_score_are_deleted_and_the_next_run_begins_anew(tmp_path, evaluations, whole):
    (path,) = cut_off(tmp_path, evaluations)
    path.write_bytes(changed(path.read_bytes(), "fid.products", lambda array: -array))
    row = run(tmp_path, *CELL)
    assert row["status"] == "failed"
    assert row["reason"].startswith("the saved sums of 1024 samples fit nothing and are deleted: run again (")
    assert same(run(tmp_path, *CELL)) == same(whole)


def test_indices_of_a_large_cell_are_made_a_part_at_a_time():
    whole_blocks = Mock(indices=lambda block: range(block * 100, block * 100 + 100))
    parts = in_parts(list(range(30_000)), whole_blocks)
    assert [len(part) for part in parts] == [1_048_500, 1_048_500, 903_000]


def test_no_block_counts_twice_where_a_restart_was_cut_off(tmp_path, evaluations, whole):
    (path,) = cut_off(tmp_path, evaluations)
    path.with_name("earlier.npz").write_bytes(path.read_bytes())  # written, and the other not yet deleted
    row = run(tmp_path, *CELL)
    assert evaluations.samples <= 0.3 * 2 * N
    assert same(row) == same(whole)


def test_force_computes_all_again_but_for_what_its_own_invocation_saved(tmp_path, evaluations):
    cut_off(tmp_path, evaluations, "force=true")
    assert len(cut_off(tmp_path, evaluations, "force=true", fraction=0.15)) == 2, "it went on"
    run(tmp_path, *CELL, "force=true", invocation="another")
    assert evaluations.samples == 2 * N


def test_studies_without_a_name_go_on_with_each_others_cells(tmp_path, evaluations):
    cut_off(tmp_path, evaluations, "study=2025-01-01_00-00-00")
    run(tmp_path, *CELL, "study=named")
    assert evaluations.samples == 2 * N
    evaluations.samples = 0
    run(tmp_path, *CELL, "study=2025-01-02_00-00-00")
    assert evaluations.samples <= 0.3 * 2 * N
    assert not list(tmp_path.glob("*/partial"))


def test_nothing_is_saved_unless_it_is_time(tmp_path, evaluations):
    assert cut_off(tmp_path, evaluations, "save_every=60", fraction=1) == []
    with pytest.raises(ValueError, match="save_every=-1"):
        compose("save_every=-1").check()


def test_saving_waits_for_time_for_news_and_for_its_own_cost(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("seedsbench.bench.resume.time.monotonic", lambda: now[0])
    scorer, store = scorer_of(problem()), ResultStore(tmp_path)
    saver = Saver(store, about("k", 300, 128, "test"), 0, 60.0, 300)
    path = tmp_path / "partial" / "k" / "rank-0.npz"
    now[0] = 100.0
    saver.offer(scorer)
    assert not path.exists(), "nothing is new"
    scorer.update(torch.arange(128), images(torch.arange(128)))
    now[0] = 1.0
    saver.offer(scorer)
    assert not path.exists(), "too early"
    now[0] = 2.0
    saver.offer(scorer)
    assert path.exists(), "a thirtieth of the time, and much is new"


def test_sums_that_cannot_be_saved_cost_no_row(tmp_path, whole, caplog):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "partial").write_text("in the way, as a full disk would be")
    row = run(tmp_path, *CELL)
    assert same(row) == same(whole)
    assert "cannot be saved" in caplog.text


def test_a_cell_that_ends_takes_no_other_cells_sums_with_it(tmp_path, evaluations):
    (path,) = cut_off(tmp_path, evaluations)
    run(tmp_path, *CELL, "seed=1")
    assert path.exists()


def problem():
    """The mixture's, with real features, so that all accumulators take part."""
    found = problem_of(compose(), "cpu")
    real = found.features.extract(images(torch.arange(400)))[0]
    return replace(found, pairs=Pairs(real, "real", 4, 100, 3))


def scorer_of(found):
    return Scorer(found, 300, splits=3)


def images(indices):
    """Something that depends on the index alone, (n, 2, 1, 1)."""
    return torch.stack([torch.sin(indices * 1.7), torch.cos(indices * 0.3)], 1).double()[..., None, None]


@pytest.mark.parametrize("owners", [[0, 0, 1], [0, 1, 0], [1, 0, 1], [2, 1, 0]])
def test_sums_of_parts_are_those_of_the_whole_to_the_bit(owners):
    """Blocks by other ranks, in runs before, in whatever order."""
    found = problem()
    whole, parts = scorer_of(found), [scorer_of(found) for _ in range(3)]
    indices = torch.arange(300)
    nfe = 3 + indices % 5
    sizes = torch.stack([torch.rand(300, generator=torch.Generator().manual_seed(0)).double(), nfe % 4], 1)
    whole.update(indices, images(indices), nfe, sizes)
    for block, owner in enumerate(owners):
        for mine in torch.tensor(parts[owner].indices(block)).flip(0).split(17):
            parts[owner].update(mine, images(mine), nfe[mine], sizes[mine])
    total = scorer_of(found)
    for part in parts:
        total.add(unpacked(packed(part.state(), {}))[0], alongside=True)
    assert total.compute() == whole.compute()
    for name, array in whole.state().items():
        assert np.array_equal(array, total.state()[name]) or name.startswith("shown"), name
    assert (total.nfe, total.nfe_max) == (int(nfe.sum()), 7)
    assert total.extent.tolist() == [float(sizes[:, 0].max()), float(sizes[:, 1].sum())]
    with pytest.raises(ValueError, match="block 0 is in both"):
        total.add(parts[owners[0]].state())
    assert total.compute() == whole.compute()


def test_samples_of_a_block_that_is_not_whole_count_for_nothing():
    scorer = scorer_of(problem())
    scorer.update(torch.arange(200), images(torch.arange(200)), torch.full((200,), 2))
    assert (scorer.n_done, scorer.nfe, scorer.nfe_max) == (128, 256, 2)
    with pytest.raises(RuntimeError, match="172 samples still wait"):
        scorer.compute()
