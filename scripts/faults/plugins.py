"""Solvers and models of the user's own that fail in every way; the rows of others are untouched."""

import random
import signal
import time
from pathlib import Path

from scripts.faults.trials import COMMAND, FAILED, REFUSED, Bench, Kind, Outcome, ended_as

SOLVER = """
import math, os, sys, threading, time
from dataclasses import dataclass

import torch

from seedsbench.solvers import Solver, StepResult


@dataclass(frozen=True)
class Mine(Solver):
    order = 1

    def step(self, process, x, t, t_next, state, noise):
        {step}
        x = x + (t_next - t) * process.drift(x, t)
        return {result}
"""
STEPS = {
    "an error": "raise RuntimeError('a\\n\\x1b[2Jb')",
    "an error without words": "raise ValueError",
    "an assertion": "assert False",
    "a key that is missing": "{}['x']",
    "no memory": "raise MemoryError",
    "an exit, 0": "sys.exit(0)",
    "an exit, 1": "sys.exit('text')",
    "GeneratorExit": "raise GeneratorExit",
    "StopIteration": "raise StopIteration",
    "a broken pipe": "raise BrokenPipeError",
    "no space": "raise OSError(28, 'No space left')",
    "recursion": "(lambda f: f(f))(lambda f: f(f))",
    "a loop over evaluations": "while True: process.drift(x, t)",
    "an evaluation more": "process.drift(x, t)",
    "another shape evaluated": "process.drift(x[:, :1, :1], t)",
    "NaN evaluated": "process.drift(x * math.nan, t)",
    "changed in place": "x.resize_(0)",
    "a thread left": "threading.Thread(target=time.sleep, args=(0.5,)).start()",
    "another folder": "os.chdir('/')",
    "closed output": "sys.stdout.close()",
    "printed": "print('x' * 100)",
}
RESULTS = {
    "None": "None",
    "a tensor": "x",
    "a text": "'x'",
    "a class": "StepResult",
    "NaN": "StepResult(x * math.nan)",
    "infinity": "StepResult(x * math.inf)",
    "another shape": "StepResult(x[:1])",
    "float32": "StepResult(x.float())",
    "complex": "StepResult(x + 1j)",
    "no tensor": "StepResult(3.0)",
    "1e308": "StepResult(x * 1e300)",
    "sparse": "StepResult(x.to_sparse())",
    "meta": "StepResult(x.to('meta'))",
}
HARMLESS = ("a thread left", "printed", "another folder", "float32")
"""Of these a row may come out, or fail: what counts is that nothing else does."""
_YAML = "_target_: mine.Mine\n"
FILES = {
    "no YAML": ("solver/mine.yaml", "_target_: [\n"),
    "an empty YAML": ("solver/mine.yaml", ""),
    "a list": ("solver/mine.yaml", "- 1\n"),
    "no class": ("solver/mine.yaml", "_target_: os.sep\n"),
    "another function": ("solver/mine.yaml", "_target_: os.getcwd\n"),
    "a number": ("solver/mine.yaml", "_target_: 5\n"),
    "an anchor of itself": ("solver/mine.yaml", "&a\n_target_: mine.Mine\nx: *a\n"),
    "a reference to nothing": ("solver/mine.yaml", _YAML + "x: ${nothing}\n"),
    "an unknown option": ("solver/mine.yaml", _YAML + "y: 3\n"),
    "no UTF-8": ("solver/mine.yaml", "\udcff"),
    "a syntax error": ("mine.py", "def"),
    "an error at import": ("mine.py", "1 / 0"),
    "an exit at import": ("mine.py", "raise SystemExit(0)"),
    "an interrupt at import": ("mine.py", "raise RecursionError"),
    "nothing in it": ("mine.py", ""),
    "zero bytes": ("mine.py", "\0"),
}


def step(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """A solver whose step fails, or gives what is no step: its rows say so, and others come out right."""
    group, _, name = case.partition(": ")
    code = STEPS[name] if group == "step" else "pass"
    result = RESULTS[name] if group == "result" else "StepResult(x)"
    folder = bench.folder()
    words = _own(folder, SOLVER.replace("{step}", code).replace("{result}", result))
    ended = bench.run(folder, words)
    codes = {0, FAILED} if name in HARMLESS else {FAILED}
    return ended_as(ended, codes) + bench.again(folder)


def file(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """A choice that cannot be made: refused before anything runs."""
    folder = bench.folder()
    words = _own(folder, SOLVER.replace("{step}", "pass").replace("{result}", "StepResult(x)"))
    name, text = FILES[case]
    (folder / "own" / name).write_bytes(text.encode(errors="surrogateescape"))
    return ended_as(bench.run(folder, words), {REFUSED}) + bench.again(folder)


def endless(bench: Bench, case: str, rng: random.Random) -> Outcome:
    """A step that never ends and evaluates nothing: Ctrl-C, twice, ends it."""
    folder = bench.folder()
    words = _own(folder, SOLVER.replace("{step}", case).replace("{result}", "StepResult(x)"))
    child = bench.server.start(words, folder)
    time.sleep(rng.uniform(2, 4))
    for _ in range(2):
        child.kill(signal.SIGINT)
        time.sleep(0.5)
    return ended_as(child.wait(), {128 + signal.SIGINT}) + bench.again(folder)


def _own(folder: Path, code: str) -> list[str]:
    """Write a --config-dir with solver=mine; the words of a command that chooses it."""
    (folder / "own" / "solver").mkdir(parents=True)
    (folder / "own" / "mine.py").write_text(code)
    (folder / "own" / "solver" / "mine.yaml").write_text(_YAML)
    kept = [word for word in COMMAND if not word.startswith("solver=")]
    return [*kept, "solver=mine", "--config-dir", "own"]


def _steps(bench: Bench) -> list[str]:
    return [*(f"step: {name}" for name in STEPS), *(f"result: {name}" for name in RESULTS)]


KINDS = (
    Kind("plug-ins whose step fails", step, _steps, quick=0),
    Kind("plug-ins that cannot be chosen", file, lambda _: list(FILES), quick=0),
    Kind("plug-ins without an end", endless, lambda _: ["while True: pass", "time.sleep(1e6)"], quick=0),
)
