"""Scoring beside the drawing of the next batch: the same rows, every error, nothing left running."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from cells import compose, run, same

from seedsbench.bench import overlap, precision, share
from seedsbench.bench.cell import problem_of
from seedsbench.bench.overlap import Beside, beside_drawing
from seedsbench.bench.partial import unpacked
from seedsbench.bench.precision import tensor_cores
from seedsbench.bench.stopping import Stopped, request_stop, stop_requested, stops_on_sigterm
from seedsbench.diffusion.process import Process
from seedsbench.metrics.extraction import FLAGS, full_precision

N = 700  # 5 blocks of 128 and a last one of 60
CELL = ["solver=euler", "nfe=2", f"samples={N}", "batch_size=50", "save_every=0"]
NAME = "seedsbench-beside"
PATIENCE = 60  # seconds after which a wait for another thread counts as a failure; none comes near


@pytest.fixture
def beside(monkeypatch):
    """Cells are scored in a thread, as on a GPU."""
    monkeypatch.setattr(share, "beside_drawing", lambda *_: Beside(threaded=True))


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


def changed(monkeypatch, **features):
    """Cells of the mixture see its extractor with these fields."""
    problem = problem_of(compose(), "cpu")
    problem = replace(problem, features=replace(problem.features, **features))
    monkeypatch.setattr("seedsbench.bench.cell.problem_of", lambda *_: problem)
    return problem


def watched(monkeypatch, before):
    """Calls before(number of the batch) in whichever thread scores it."""
    score, numbers = share._score, iter(range(10**6))

    def counted(*arguments):
        before(next(numbers))
        score(*arguments)

    monkeypatch.setattr(share, "_score", counted)


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "threads"), [("gaussian_mixture", 1), ("glyphs", 2)])
def test_the_row_is_the_same_to_the_bit(tmp_path, monkeypatch, model, threads):
    cell = [f"model={model}", "nfe=3", "samples=150", "batch_size=20", "metrics.floor_sets=1"]
    names = set()
    watched(monkeypatch, lambda _: names.add(threading.current_thread().name[: len(NAME)]))
    torch.set_num_threads(threads)
    try:
        alone = run(tmp_path / "alone", *cell)
        assert names == {"MainThread"}
        monkeypatch.setattr(share, "beside_drawing", lambda *_: Beside(threaded=True))
        both = run(tmp_path / "both", *cell)
    finally:
        torch.set_num_threads(1)
    assert names == {"MainThread", NAME}
    assert alone["status"] == "done", alone["reason"]
    assert same(alone) == same(both)
    previews = [sorted((tmp_path / name).glob("study/samples/*")) for name in ("alone", "both")]
    assert [p.read_bytes() for p in previews[0]] == [p.read_bytes() for p in previews[1]]


def test_a_batch_is_drawn_while_the_one_before_is_scored(tmp_path, beside, monkeypatch):
    drawn, predict = threading.Semaphore(0), Process.predict

    def counted(self, x, sigma):
        drawn.release()
        return predict(self, x, sigma)

    def after_the_next(number):
        needed = 4 if number < N // 50 - 1 else 0  # two evaluations of its own, and two of the next
        for _ in range(needed if number == 0 else min(needed, 2)):
            assert drawn.acquire(timeout=PATIENCE)

    monkeypatch.setattr(Process, "predict", counted)
    watched(monkeypatch, after_the_next)
    assert run(tmp_path, *CELL)["status"] == "done"


def test_modes_of_autograd_are_those_of_the_main_thread(tmp_path, monkeypatch):
    plain = problem_of(compose(), "cpu").features.extract
    seen = []

    def extract(images):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), images.is_inference()))
        return plain(images)

    changed(monkeypatch, extract=extract)
    run(tmp_path / "alone")
    monkeypatch.setattr(share, "beside_drawing", lambda *_: Beside(threaded=True))
    run(tmp_path / "both")
    assert len(set(seen)) == 1


def test_seconds_are_those_of_the_clock_and_none_counts_twice(tmp_path, beside, monkeypatch):
    class Clock:
        now = 0.0
        perf_counter = staticmethod(lambda: Clock.now)

    def tick(seconds):
        with lock:
            Clock.now += seconds

    lock, predict = threading.Lock(), Process.predict
    monkeypatch.setattr(share, "time", Clock)
    monkeypatch.setattr(Process, "predict", lambda *given: (tick(1.0), predict(*given))[1])
    watched(monkeypatch, lambda _: tick(10.0))
    row = run(tmp_path, *CELL)
    assert Clock.now == N / 50 * (2 * 1 + 10)
    assert row["seconds_sampling"] + row["seconds_features"] == Clock.now
    assert row["seconds_sampling"] >= N / 50 * 2


# --- errors and stops -----------------------------------------------------------------------------

MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "number"),
    [(MEMORY, 0), (ValueError("sample 3 has non-finite values"), 6), (KeyError("what"), N // 50 - 1)],
)
def test_an_error_fails_the_cell_as_itself(tmp_path, monkeypatch, error, number):
    def fail(reached):
        if reached == number:
            raise error

    rows = []
    for threaded in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(share, "beside_drawing", lambda *_, on=threaded: Beside(threaded=on))
            watched(patch, fail)
            rows.append(run(tmp_path / str(threaded), *CELL))
    assert rows[0]["status"] == rows[1]["status"] == "failed"
    assert rows[0]["reason"] == rows[1]["reason"]
    monkeypatch.setattr(share, "beside_drawing", lambda *_: Beside(threaded=True))
    watched(monkeypatch, fail)
    with pytest.raises(type(error)) as caught:
        run(tmp_path / "debug", *CELL, "debug=true")
    assert caught.value is error


def test_of_two_errors_that_of_the_earlier_batch_is_told(tmp_path, beside, monkeypatch):
    begun, predict = threading.Event(), Process.predict

    def fail(*_):
        assert begun.wait(PATIENCE)
        raise ValueError("of the features")

    def break_second(self, x, sigma):
        if x.shape[0] == 20:  # the second batch: 50 and 20 samples
            begun.set()
            raise ValueError("of the drawing")
        return predict(self, x, sigma)

    monkeypatch.setattr(Process, "predict", break_second)
    watched(monkeypatch, fail)
    assert run(tmp_path, *CELL, "samples=70")["reason"] == "of the features"


def test_a_stop_waits_for_the_batch_under_way_and_saves_all_that_was_drawn(tmp_path, beside, monkeypatch):
    whole = run(tmp_path / "whole", *CELL)
    evaluations, predict = [0], Process.predict

    def stop_midway(self, x, sigma):
        evaluations[0] += len(x)
        if evaluations[0] == 16 * 50:  # in the last step of the eighth batch, which is never scored
            request_stop()
        return predict(self, x, sigma)

    def until_stopped(number):
        if number == 6:
            until = time.monotonic() + PATIENCE
            while not stop_requested():
                assert time.monotonic() < until
                time.sleep(0.001)

    with monkeypatch.context() as patch, stops_on_sigterm():
        patch.setattr(Process, "predict", stop_midway)
        watched(patch, until_stopped)
        with pytest.raises(Stopped):
            run(tmp_path, *CELL, "save_every=1000")
    (path,) = tmp_path.glob("study/partial/*/rank-0.npz")
    assert int(unpacked(path.read_bytes())[0]["fid.n"]) == 7 * 50 // 128 * 128
    again = run(tmp_path, *CELL)
    assert same(again) == same(whole)
    assert not (tmp_path / "study" / "partial").exists()


class Midway:
    """Two events in two threads: batch 4 is being scored while `event` happens in the drawing of batch 5."""

    def __init__(self, monkeypatch, event):
        self.begun, self.happened, self.evaluations = threading.Event(), threading.Event(), 0
        predict = Process.predict

        def counted(process, x, sigma):
            self.evaluations += 1
            if self.evaluations == 11:  # two each for batches 0 to 4
                assert self.begun.wait(PATIENCE)
                self.happened.set()
                event()
            return predict(process, x, sigma)

        monkeypatch.setattr(Process, "predict", counted)

    def hold(self, number):
        """Called in the scoring of each batch."""
        if number == 4:
            self.begun.set()
            assert self.happened.wait(PATIENCE)


def test_what_fails_while_it_is_stopped_saves_nothing_and_fails(tmp_path, beside, monkeypatch):
    midway = Midway(monkeypatch, request_stop)

    def fail(number):
        midway.hold(number)
        if number == 4:
            raise ValueError("broken")

    watched(monkeypatch, fail)
    with stops_on_sigterm():
        row = run(tmp_path, *CELL, "save_every=1000")
    assert (row["status"], row["reason"]) == ("failed", "broken")
    assert not list(tmp_path.glob("study/partial/*/*"))


def test_an_interrupt_waits_for_the_batch_under_way(tmp_path, beside, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    def work(number):
        midway.hold(number)
        time.sleep(0.2 * (number == 4))  # the interrupt is by then on its way
        scored.append(number)

    midway, scored = Midway(monkeypatch, interrupt), []
    watched(monkeypatch, work)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *CELL)
    assert scored == [0, 1, 2, 3, 4]


def test_memory_that_ends_while_a_batch_is_scored_halves_the_next(tmp_path, beside, monkeypatch):
    def no_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    plain = run(tmp_path / "plain", *CELL)
    watched(monkeypatch, Midway(monkeypatch, no_memory).hold)
    problem = problem_of(
        compose(), "cpu"
    )  # under a name of its own: what is learnt of its batches stays here
    problem = replace(problem, denoiser=Fresh(problem.denoiser))
    monkeypatch.setattr("seedsbench.bench.cell.problem_of", lambda *_: problem)
    row = run(tmp_path / "cramped", *CELL)
    assert (row["status"], row["batch_size"]) == ("done", 25)
    assert same(row) == same(plain)


class Fresh:
    """A denoiser under another identity."""

    def __init__(self, denoiser):
        self._denoiser = denoiser

    def __getattr__(self, name):
        return getattr(self._denoiser, name)

    def __call__(self, x, sigma, labels=None):
        return self._denoiser(x, sigma, labels)


# --- the flags of precision, which threads share ------------------------------------------------------


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_sampling_in_tf32_and_features_without_do_not_meet(tmp_path, beside, monkeypatch):
    monkeypatch.setattr(precision, "_check_device", lambda *_: None)
    plain, before, drawn, extracted = problem_of(compose(), "cpu"), flags(), set(), set()

    def extract(images):
        with full_precision("cuda"):
            extracted.add((*flags(), torch.backends.cudnn.deterministic))
            found = plain.features.extract(images)
            extracted.add((*flags(), torch.backends.cudnn.deterministic))
        return found

    class Noting(Fresh):
        def __call__(self, x, sigma, labels=None):
            drawn.add((*flags(), torch.backends.cudnn.deterministic))
            found = super().__call__(x, sigma, labels)
            drawn.add((*flags(), torch.backends.cudnn.deterministic))
            return found

        def with_network(self, change):
            return self

    problem = changed(monkeypatch, extract=extract, device="pretended", block=16)
    problem = replace(problem, denoiser=Noting(problem.denoiser))
    monkeypatch.setattr("seedsbench.bench.cell.problem_of", lambda *_: problem)
    row = run(tmp_path, *CELL, "samples=300", "precision=tf32", "solver=heun", "nfe=5")
    assert row["status"] == "done", row["reason"]
    assert drawn == {(True, True, False)}
    assert extracted == {(False, False, True)}
    assert flags() == before


@pytest.mark.parametrize("mine", [lambda: tensor_cores(True), lambda: full_precision("cuda")])
def test_flags_are_held_by_who_set_them_and_by_no_other(mine):
    before, found = flags(), []
    with mine(), mine():  # by the same thread more than once
        thread = threading.Thread(target=lambda: found.append(FLAGS.acquire(blocking=False)))
        thread.start()
        thread.join()
    assert found == [False]
    assert flags() == before


# --- the thread and its stream ------------------------------------------------------------------------


def test_one_piece_at_a_time_in_order():
    begun, done, gates = [], [], [threading.Event() for _ in range(3)]

    def piece(number):
        begun.append(number)
        assert gates[number].wait(PATIENCE)
        done.append(number)

    with Beside(threaded=True) as beside:
        beside.hand_over(lambda: piece(0))
        assert done == []
        gates[0].set()
        beside.hand_over(lambda: piece(1))
        assert done == [0]
        gates[1].set()
        gates[2].set()
        beside.hand_over(lambda: piece(2))
        beside.wait()
        assert done == begun == [0, 1, 2]
        beside.wait()


def test_an_error_comes_out_once_and_the_next_piece_is_not_begun():
    done = []
    with Beside(threaded=True) as beside:
        beside.hand_over(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            beside.hand_over(lambda: done.append(1))
        beside.wait()
        beside.hand_over(lambda: done.append(2))
    assert done == [2]


class FakeStream:
    """Notes in `calls` what is asked of it; the caller's own is called "main"."""

    device = "cuda:0"

    def __init__(self, calls):
        self.calls = calls

    def wait_stream(self, other):
        assert threading.current_thread() is threading.main_thread(), "later, it would wait for more"
        self.calls.append(f"waits for {other}")

    def synchronize(self):
        assert threading.current_thread() is not threading.main_thread()
        self.calls.append("synchronised")


@pytest.fixture
def stream(monkeypatch):
    calls = []

    @contextmanager
    def entered(stream):
        calls.append("entered")
        yield
        calls.append("left")

    monkeypatch.setattr(overlap.torch.cuda, "stream", entered)
    monkeypatch.setattr(overlap.torch.cuda, "set_device", lambda device: calls.append(f"keeps to {device}"))
    monkeypatch.setattr(overlap.torch.cuda, "current_stream", lambda device: f"main of {device}")
    return FakeStream(calls)


def test_a_piece_waits_for_what_was_asked_before_it_and_ends_with_its_stream(stream):
    with Beside(threaded=True, stream=stream) as beside:
        stream.calls.append("drawn")
        beside.hand_over(lambda: stream.calls.append("work"))
        beside.wait()
        stream.calls.append("back")
    expected = ["drawn", "waits for main of cuda:0", "keeps to cuda:0"]
    expected += ["entered", "work", "synchronised", "left", "back"]
    assert stream.calls == expected


def test_a_stream_is_waited_for_after_an_error_too(stream):
    with Beside(threaded=True, stream=stream) as beside:
        beside.hand_over(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            beside.wait()
    assert stream.calls[-1] == "synchronised"


@pytest.mark.parametrize(
    ("device", "features", "threaded"),
    [("cuda", "cuda", True), ("cuda:1", "cuda:1", True), ("cuda", "cpu", False), ("cpu", "cpu", False)],
)
def test_there_is_a_thread_only_where_a_gpu_does_both(monkeypatch, device, features, threaded):
    made, ran_in = [], []
    monkeypatch.setattr(overlap.torch.cuda, "Stream", made.append)
    with beside_drawing(device, features) as beside:
        beside.hand_over(lambda: ran_in.append(threading.current_thread()))
    assert made == ([device] if threaded else [])
    assert (ran_in != [threading.main_thread()]) == threaded


# --- on a GPU -----------------------------------------------------------------------------------------

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@NEEDS_GPU
def test_on_a_gpu_the_row_is_that_without_overlap(tmp_path, monkeypatch):
    cell = ["model=glyphs", "solver=heun", "nfe=9", "samples=2000", "batch_size=256", "device=cuda"]
    both = run(tmp_path / "both", *cell)
    monkeypatch.setattr(share, "beside_drawing", lambda *_: Beside(threaded=False))
    alone = run(tmp_path / "alone", *cell)
    assert both["status"] == alone["status"] == "done", both["reason"] or alone["reason"]
    assert same(both) == same(alone)


@pytest.mark.gpu
@NEEDS_GPU
def test_on_a_gpu_a_piece_sees_finished_what_was_asked_before_it_and_its_memory_is_its_own():
    found = []
    with beside_drawing("cuda", "cuda") as beside:
        for number in range(20):
            x = torch.eye(2048, device="cuda")
            for _ in range(20):
                x = x @ x  # long enough that the piece begins first
            x = x * number
            beside.hand_over(lambda x=x: found.append(float(x.sum())))
            del x
            torch.full((2048, 2048), -1.0, device="cuda")
        beside.wait()
    assert found == [2048.0 * number for number in range(20)]
