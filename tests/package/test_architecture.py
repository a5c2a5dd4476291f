"""The house plan, walked: imports one way, sizes, names, no hidden randomness, a light command line."""

import ast
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter

import pytest

from tests.support.machine import ROOT, environment

PACKAGE = ROOT / "seedsbench"


def relative(path):
    return path.relative_to(ROOT).as_posix()


MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# (place, node) of everything in the package, and of its functions.
PLACES = {relative(path): tree for path, tree in TREES.items()}
NODES = [(place, node) for place, tree in PLACES.items() for node in ast.walk(tree)]
ALL_FUNCTIONS = [(place, node) for place, node in NODES if isinstance(node, FUNCTIONS)]

# What each part may import of the package, itself apart. Parts not listed: see the test.
ALLOWED = {
    "checks": set(),
    "exact": set(),
    "files": {"checks"},
    "tracking": {"checks", "files", "report"},
    "registry": {"checks", "files"},
    "diffusion": {"checks", "exact"},
    "solvers": {"checks", "diffusion", "exact"},
    "data": {"checks", "exact", "diffusion", "files"},
    "metrics": {"checks", "data", "diffusion", "exact", "files"},
    "denoisers": {"checks", "data", "diffusion", "exact", "files"},
    "noise": {"diffusion"},
    "analytic": {"denoisers"},
    "api": {"checks", "data", "denoisers", "diffusion", "registry", "solvers"},
    "own": {"checks", "denoisers", "diffusion", "registry"},
    "bench": {"api", "checks", "data", "denoisers", "diffusion", "exact", "files", "integrations", "metrics"}
    | {"registry", "solvers"},
    "report": {"files"},
    "certify": {"api", "checks", "denoisers", "diffusion", "files", "metrics", "registry", "report"}
    | {"solvers"},
    "integrations": {"api", "checks", "denoisers", "diffusion", "exact", "files", "registry", "solvers"},
    "searching": {"api", "bench", "denoisers", "diffusion", "files", "registry", "solvers"},
    "cli": {"api", "bench", "checks", "data", "denoisers", "diffusion", "files", "metrics", "registry"}
    | {"report", "searching", "solvers", "tracking"},
    "audit": {"api", "bench", "checks", "cli", "files", "metrics", "registry", "report", "solvers"},
    "__main__": {"cli"},
    "__init__": {"analytic", "api", "metrics", "noise", "own"},
}


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


def test_imports_go_one_way():
    for path, tree in TREES.items():
        part = part_of(path)
        names = {name.split(".")[1] for name in imported(tree) if name.startswith("seedsbench.")}
        assert part in ALLOWED, f"seedsbench/{part} is new: say in ALLOWED what it may import"
        forbidden = names - ALLOWED[part] - {part, "__version__"}
        assert not forbidden, f"{relative(path)} must not import {sorted(forbidden)}"


def module_graph():
    graph = {}
    for path, tree in TREES.items():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(imported(tree)) - {name}
    del graph["seedsbench"]  # its imports are deferred
    return graph


@pytest.mark.parametrize("graph", [ALLOWED, module_graph()], ids=["of parts that may", "of modules"])
def test_imports_hold_no_circle(graph):
    TopologicalSorter(graph).prepare()  # CycleError names one


def test_report_and_tracking_name_no_torch_and_no_hydra():
    for path, tree in TREES.items():
        if part_of(path) in ("report", "tracking", "checks"):
            heavy = {name.split(".")[0] for name in imported(tree)} & {"torch", "hydra", "omegaconf"}
            assert not heavy, f"{relative(path)} imports {heavy}"
            assert "pyplot" not in ast.dump(tree), f"{relative(path)}: its figures would stay open"


@pytest.mark.parametrize(
    ("words", "needed", "heavy"),
    [
        ("-c 'import seedsbench'", {"seedsbench"}, {"torch", "hydra", "numpy", "pandas", "matplotlib"}),
        ("-m seedsbench.report.main --help", {"seedsbench"}, {"torch", "hydra", "omegaconf"}),
        ("-m seedsbench.cli.fetch model=cifar10_cond dry_run=true", {"hydra"}, {"torch"}),
        ("-m seedsbench --help", {"hydra"}, {"torch", "scipy", "pandas", "matplotlib"}),
    ],
)
def test_a_start_imports_nothing_heavy(words, needed, heavy):
    command = [sys.executable, "-X", "importtime", *shlex.split(words)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    modules = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert needed <= modules
    assert not modules & heavy
    assert "-m seedsbench " not in words or "seeds3_asreleased" in result.stdout


def test_modules_and_functions_are_short():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}, "split them"
    lengths = {(place, node.name): node.end_lineno - node.lineno + 1 for place, node in ALL_FUNCTIONS}
    assert not {name: lines for name, lines in lengths.items() if lines > 80}, "split them"


def test_modules_and_public_names_are_documented():
    for path, tree in TREES.items():
        assert not tree.body or ast.get_docstring(tree), f"{relative(path)} does not open with what it is"
        for node in tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{relative(path)}: {node.name} has no docstring"


def test_public_signatures_are_annotated():
    for place, node in ALL_FUNCTIONS:
        if not node.name.startswith("_") or node.name == "__init__":
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare, f"{place}: {node.name}({', '.join(bare)}) lacks annotations"
            assert node.returns is not None, f"{place}: {node.name} lacks a return annotation"


def test_no_keyword_pass_through():
    documented = {("seedsbench/api.py", "solver"), ("seedsbench/registry.py", "configured")}
    documented |= {("seedsbench/api.py", "load_denoiser")}  # **hints, as design.md names it
    documented |= {("seedsbench/integrations/bridge.py", "from_config")}  # the signature is diffusers'
    found = {(place, node.name) for place, node in ALL_FUNCTIONS if node.args.kwarg is not None}
    assert found <= documented


DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal"}
DRAWS |= {"bernoulli", "multinomial", "manual_seed", "seed", "Generator", "default_rng"}


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def test_noise_comes_from_one_place():
    for place, node in NODES:
        name = dotted(node)
        drawn = (name[:1] == ["torch"] and name[-1] in DRAWS) or name[1:2] == ["random"]
        allowed = place in ("seedsbench/diffusion/noise.py", "seedsbench/integrations/torch_randn.py")
        assert allowed or not drawn, f"{place}:{node.lineno}: {'.'.join(name)}: use diffusion.noise"
    for path, tree in TREES.items():
        assert "random" not in {name.split(".")[0] for name in imported(tree)}, relative(path)


def test_solver_files_are_short_and_share_no_run_of_six_lines():
    """Blank lines, comments and imports apart: what two solvers share has one place of its own."""
    places = defaultdict(set)
    for path in MODULES:
        if part_of(path) != "solvers":
            continue
        lines = path.read_text().splitlines()
        assert len(lines) <= 250, f"{relative(path)} has {len(lines)} lines"
        nodes = [node for node in ast.walk(TREES[path]) if isinstance(node, (ast.Import, ast.ImportFrom))]
        imports = {number for node in nodes for number in range(node.lineno, node.end_lineno + 1)}
        kept = [line.strip() for number, line in enumerate(lines, 1) if number not in imports]
        kept = [line for line in kept if line and not line.startswith("#")]
        for start in range(len(kept) - 5):
            places["\n".join(kept[start : start + 6])].add(path.name)
    shared = {run: names for run, names in places.items() if len(names) > 1}
    assert not shared, "\n".join(f"{sorted(names)} share:\n{run}" for run, names in shared.items())


GRADIENTS = {"no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "requires_grad_", "detach"}


def test_solvers_evaluate_nothing_but_the_process():
    found = [place for place, node in NODES if "/solvers/" in place and GRADIENTS & {*dotted(node)}]
    assert not found, "gradients are the caller's affair"


# --- names: other people's are left as they are, ours mean one thing each ---------------------------------

# What of other packages may be set, and why.
SETTINGS = {
    # Precision is a flag of the whole process: set for the length of one call, and put back.
    "torch.backends.cuda.matmul.allow_tf32",
    "torch.backends.cudnn.allow_tf32",
    "os.environ[]",  # for processes started from here
    "sys.path[]",  # the user's own modules: where they are,
    "sys.modules[]",  # and that one is loaded
}
SHARED = {"log", "main"}


def outside(tree):
    """Name -> dotted name of what it stands for, of all that a module has from outside the package."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            first = [(alias.asname, alias.name) for alias in node.names if alias.asname]
            whole = [alias.name.split(".")[0] for alias in node.names if not alias.asname]
            known |= dict(first) | dict(zip(whole, whole, strict=True))
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    known = {name: source for name, source in known.items() if source.split(".")[0] != "seedsbench"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            first, *rest = dotted(node.value) or [""]
            if first in known:
                known[node.targets[0].id] = ".".join([known[first], *rest])
    return known


def changed(tree):
    """(line, dotted name) of all that is assigned to or deleted from what is imported from outside."""
    known = outside(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in (["setattr"], ["delattr"]):
            first, *rest = dotted(node.args[0]) or [""]
            if first in known:
                yield node.lineno, ".".join([known[first], *rest, "*"])
        if not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            continue
        item = isinstance(node, ast.Subscript)
        first, *rest = dotted(node.value if item else node) or [""]
        if first in known and (item or rest):
            yield node.lineno, ".".join([known[first], *rest]) + "[]" * item


def test_the_walk_sees_what_it_looks_for():
    code = """
import sys, os.path, torch as t
from hydra.core import Sweeper
from seedsbench import registry
flags = t.backends.cudnn
Sweeper.check = flags.benchmark = None
del sys.modules["x"], os.path
setattr(Sweeper, "check", 1)
registry.names = sys = flags
"""
    wanted = ["hydra.core.Sweeper.check", "torch.backends.cudnn.benchmark", "sys.modules[]", "os.path"]
    assert sorted(name for _, name in changed(ast.parse(code))) == sorted([*wanted, "hydra.core.Sweeper.*"])


def test_nothing_of_other_packages_is_changed():
    found = [(relative(path), *place) for path, tree in TREES.items() for place in changed(tree)]
    assert not [place for place in found if place[-1] not in SETTINGS]


def test_nothing_private_of_other_packages_is_imported():
    for path, tree in TREES.items():
        names = [name for name in imported(tree) if not name.startswith("seedsbench")]
        private = [name for name in names if any(part.startswith("_") for part in name.split("."))]
        assert not set(private) - {"__future__"}, f"{relative(path)} imports {private}"
        assert "__import__" not in ast.dump(tree), relative(path)


def test_only_the_command_line_knows_a_DictConfig():
    for path, tree in TREES.items():
        if part_of(path) != "cli":
            assert "DictConfig" not in ast.dump(tree), f"{relative(path)}: take a dataclass"


def test_a_public_name_is_defined_in_one_module():
    places = defaultdict(set)
    for path, tree in TREES.items():
        for node in tree.body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                names = [node.name]
            for name in names:
                if not name.startswith("_") and name not in SHARED:
                    places[name].add(relative(path))
    twice = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    assert not twice


@pytest.mark.parametrize(("folder", "most"), [(PACKAGE, 8), (PACKAGE / "bench", 14)])
def test_the_package_and_its_bench_open_on_few_modules(folder, most):
    """__init__.py and __main__.py are counted too, unless they are empty or a docstring."""
    found = [path for path in folder.glob("*.py") if TREES[path].body[bool(ast.get_docstring(TREES[path])) :]]
    assert len(found) <= most, sorted(path.name for path in found)


def test_every_file_that_a_text_names_is_there():
    named = re.compile(r"\b(?:seedsbench|scripts|tests|conf|sweeps)/[\w/]+\.(?:py|yaml)\b")
    kinds = ("*.md", "sweeps/*", "results/*.md", "scripts/**/*.py")
    texts = [path for kind in kinds for path in ROOT.glob(kind)]
    found = {(relative(path), name) for path in [*texts, *TREES] for name in named.findall(path.read_text())}
    assert not {(path, name) for path, name in found if "NAME" not in name and not (ROOT / name).is_file()}
