"""The house plan, walked: imports one way, sizes, no hidden randomness, a light command line."""

import ast
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "seedsbench"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
ALL_FUNCTIONS = [
    (path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)
]

# What each part may import of the package, itself apart. Parts not listed: see the test.
ALLOWED = {
    "checks": set(),
    "exact": set(),
    "files": {"checks"},
    "tracking": {"checks", "files", "report"},
    "registry": {"checks"},
    "diffusion": {"checks", "exact"},
    "solvers": {"checks", "diffusion", "exact"},
    "data": {"checks", "exact", "diffusion", "files"},
    "metrics": {"checks", "data", "diffusion", "exact", "files"},
    "denoisers": {"checks", "data", "diffusion", "exact", "files"},
    "noise": {"diffusion"},
    "analytic": {"denoisers"},
    "api": {"checks", "data", "denoisers", "diffusion", "registry", "solvers"},
    "own": {"checks", "denoisers", "diffusion", "registry"},
    "bench": {"api", "checks", "data", "denoisers", "diffusion", "exact", "files", "metrics", "registry"}
    | {"solvers"},
    "report": {"files"},
    "certify": {"api", "checks", "denoisers", "diffusion", "metrics", "registry", "report", "solvers"},
    "cli": {"api", "bench", "checks", "data", "denoisers", "files", "metrics", "registry", "report"}
    | {"solvers", "tracking"},
    "__main__": {"cli"},
    "__init__": {"analytic", "api", "metrics", "noise", "own"},
}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree):
    """Dotted names a module imports anywhere, `from seedsbench import x` as seedsbench.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "seedsbench":
                yield from (f"seedsbench.{alias.name}" for alias in node.names)
            else:
                yield node.module


def import_graph():
    graph = defaultdict(set)
    for path, tree in TREES.items():
        names = [name.split(".") for name in imported(tree)]
        graph[part_of(path)] |= {name[1] for name in names if name[0] == "seedsbench" and len(name) > 1}
    return {part: names - {part, "__version__"} for part, names in graph.items()}


def test_imports_go_one_way():
    for part, names in import_graph().items():
        assert part in ALLOWED, f"seedsbench/{part} is new: say in ALLOWED what it may import"
        assert names <= ALLOWED[part], f"seedsbench/{part} must not import {sorted(names - ALLOWED[part])}"


def assert_no_circle(graph):
    done = set()

    def visit(name, above):
        assert name not in above, f"circle: {' -> '.join([*above, name])}"
        if name in graph and name not in done:
            for below in graph[name]:
                visit(below, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_allowed_imports_hold_no_circle():
    assert_no_circle(ALLOWED)


def test_modules_import_no_circle():
    graph = {}
    for path, tree in TREES.items():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {other for other in imported(tree) if other != name}
    del graph["seedsbench"]  # its imports are deferred
    assert_no_circle(graph)


def test_report_and_tracking_name_no_torch_and_no_hydra():
    for path, tree in TREES.items():
        if part_of(path) in ("report", "tracking", "checks"):
            heavy = {name.split(".")[0] for name in imported(tree)} & {"torch", "hydra", "omegaconf"}
            assert not heavy, f"{relative(path)} imports {heavy}"


@pytest.mark.parametrize(
    ("words", "needed", "heavy"),
    [
        ("-c 'import seedsbench'", {"seedsbench"}, {"torch", "hydra", "numpy", "pandas", "matplotlib"}),
        ("-m seedsbench.report.main --help", {"seedsbench"}, {"torch", "hydra", "omegaconf"}),
        ("-m seedsbench --help", {"hydra"}, {"torch", "scipy", "pandas", "matplotlib"}),
    ],
)
def test_a_start_imports_nothing_heavy(words, needed, heavy):
    command = [sys.executable, "-X", "importtime", *shlex.split(words)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    modules = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert needed <= modules
    assert not modules & heavy
    assert "-m seedsbench " not in words or "seeds3_asreleased" in result.stdout


def test_modules_and_functions_are_short():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}, "split them"
    lengths = {(relative(path), node.name): node.end_lineno - node.lineno + 1 for path, node in ALL_FUNCTIONS}
    assert not {name: lines for name, lines in lengths.items() if lines > 80}, "split them"


def test_modules_and_public_names_are_documented():
    for path, tree in TREES.items():
        assert not tree.body or ast.get_docstring(tree), f"{relative(path)} does not open with what it is"
        for node in tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{relative(path)}: {node.name} has no docstring"


def test_public_signatures_are_annotated():
    for path, node in ALL_FUNCTIONS:
        if not node.name.startswith("_") or node.name == "__init__":
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare, f"{relative(path)}: {node.name}({', '.join(bare)}) lacks annotations"
            assert node.returns is not None, f"{relative(path)}: {node.name} lacks a return annotation"


def test_no_keyword_pass_through():
    documented = {("seedsbench/api.py", "solver"), ("seedsbench/registry.py", "configured")}
    documented |= {("seedsbench/api.py", "load_denoiser")}  # **hints, as design.md names it
    for path, node in ALL_FUNCTIONS:
        if node.args.kwarg is not None:
            assert (relative(path), node.name) in documented, f"{relative(path)}: {node.name}(**...)"


DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal"}
DRAWS |= {"bernoulli", "multinomial", "manual_seed", "seed", "Generator", "default_rng"}


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def test_noise_comes_from_one_place():
    for path, tree in TREES.items():
        if relative(path) == "seedsbench/diffusion/noise.py":
            continue
        for node in ast.walk(tree):
            name = dotted(node)
            drawn = (name[:1] == ["torch"] and name[-1] in DRAWS) or name[1:2] == ["random"]
            assert not drawn, f"{relative(path)}:{node.lineno}: {'.'.join(name)}: use diffusion.noise"
        assert "random" not in {name.split(".")[0] for name in imported(tree)}, relative(path)


def test_solver_files_are_short_and_share_no_run_of_six_lines():
    """Blank lines, comments and imports apart: what two solvers share has one place of its own."""
    places = defaultdict(set)
    for path in MODULES:
        if part_of(path) != "solvers":
            continue
        lines = path.read_text().splitlines()
        assert len(lines) <= 250, f"{relative(path)} has {len(lines)} lines"
        imports = {
            number
            for node in ast.walk(TREES[path])
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        kept = [line.strip() for number, line in enumerate(lines, 1) if number not in imports]
        kept = [line for line in kept if line and not line.startswith("#")]
        for start in range(len(kept) - 5):
            places["\n".join(kept[start : start + 6])].add(path.name)
    shared = {run: names for run, names in places.items() if len(names) > 1}
    assert not shared, "\n".join(f"{sorted(names)} share:\n{run}" for run, names in shared.items())


GRADIENTS = {"no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "requires_grad_", "detach"}


def test_solvers_evaluate_nothing_but_the_process():
    for path, tree in TREES.items():
        if part_of(path) == "solvers":
            named = {name for node in ast.walk(tree) for name in dotted(node)}
            assert not named & GRADIENTS, f"{relative(path)}: gradients are the caller's affair"
