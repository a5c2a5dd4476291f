"""Names: other people's are left as they are, ours mean one thing each, and folders stay small."""

import ast
import re
from collections import defaultdict

import pytest

from tests.package.test_architecture import (
    FUNCTIONS,
    PACKAGE,
    ROOT,
    TREES,
    dotted,
    imported,
    part_of,
    relative,
)

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
