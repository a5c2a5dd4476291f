"""What must not wait for torch: help, refusals, plans; what was made without it is what torch would say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cells import compose, run

from seedsbench import registry
from seedsbench.bench.cell import problem_of
from seedsbench.bench.identity import identity_of
from seedsbench.bench.plan import plan_text

ROOT = Path(__file__).parents[1]
SHOW = """
import sys
from seedsbench import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    assert end.code in (0, 2), end.code
print("loaded" if "torch" in sys.modules else "not loaded")
"""


def without(cwd, *arguments, code=SHOW):
    """The lines a command prints in a process of its own, the last one saying whether torch was loaded."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("SEEDSBENCH_STUDY", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("solver=seds3",),
        ("solver.cc2=0.4",),
        ("nfe=x",),
        ("model=cifar10_cond", "regime=vp", "dry_run=true"),
    ],
    ids=" ".join,
)
def test_nothing_is_computed_so_torch_is_not_loaded(tmp_path, arguments):
    assert without(tmp_path, *arguments)[-1] == "not loaded"


def test_a_plan_of_every_solver_is_the_same_without_torch(tmp_path):
    place = [f"results_dir={tmp_path}", "study=study", "nfe=15"]
    row = run(tmp_path, *place, "solver=heun")
    lines = without(
        tmp_path,
        "-m",
        "model=gaussian_mixture",
        "samples=20",
        "device=cpu",
        "plan=true",
        *place,
        "solver=glob(*)",
    )
    assert lines[-1] == "not loaded"
    assert "speed from the time of a product of matrices" in lines[-3]
    assert sum("done, FID" in line for line in lines) == 1
    told = plan_text([compose(*place, f"solver={name}") for name in registry.names("solver")])
    assert lines[:-3] == told.splitlines()[:-2]
    assert any(f"heun nfe=15 seed=0: 7 steps, NFE 15, done, FID {row['fid']:.3f}" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("solver=seeds1,seeds3,heun", "nfe=10,20,50"),
        ("regime=vp,ve,iddpm", "solver=seeds3"),
        ("model=glyphs_finite,gaussian", "samples=50000", "batch_size=auto"),
        ("model=cifar10_cond", "metrics=inception", "regime=vp,edm", "nfe=35"),
    ],
    ids=" ".join,
)
def test_a_plan_where_nothing_has_run_yet_needs_no_torch(tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    lines = without(tmp_path, "-m", "device=cpu", "plan=true", *arguments)
    assert lines[-1] == "not loaded"
    assert "product of matrices" in lines[-3] or "model=cifar10_cond: the files are not here" in lines[-3]
    assert not list(tmp_path.iterdir())


def test_what_only_torch_can_tell_is_told_by_torch(tmp_path):
    lines = without(tmp_path, "model=gaussian_mixture", "samples=20", "schedule=discrete", "plan=true")
    assert lines[-1] == "loaded"
    assert "1 cell" in lines[0]


@pytest.mark.parametrize("model", ["glyphs", "gaussian", "gaussian_mixture", "glyphs_finite"])
@pytest.mark.parametrize("regime", ["edm", "vp"])
def test_identities_known_beforehand_are_those_of_the_problem(model, regime):
    cfg = compose(f"model={model}", f"regime={regime}")
    assert identity_of(cfg) == problem_of(cfg, "cpu").identity


PURE = """
import sys
from seedsbench.without_torch import without_torch

def promise():
    from seedsbench.solvers.seeds import Seeds3
    return Seeds3().nfe(4)

def computed():
    from seedsbench.solvers.seeds import Seeds3
    from torch import zeros
    return float(zeros(())) + Seeds3().nfe(2)

assert without_torch(promise) == 12
assert "torch" not in sys.modules and "seedsbench.solvers.seeds" not in sys.modules
import seedsbench
assert not hasattr(seedsbench, "solvers")
assert without_torch(computed) == 6.0
assert "torch" in sys.modules
import torch
import seedsbench.bench.cell
assert "torch._dynamo" not in sys.modules, "the compiler takes as long to import as torch itself"
black, latents = (lambda x, sigma, labels=None: 0 * x), torch.ones(1, 1, 2, 2)
print(int(seedsbench.sample(black, latents, solver="seeds3", nfe=7).nfe[0]))
"""


def test_a_process_may_compute_after_it_promised(tmp_path):
    assert without(tmp_path, code=PURE) == ["7"]
