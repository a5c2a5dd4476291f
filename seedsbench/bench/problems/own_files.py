"""`model.path=file.py:function`: what it names, and of which files it is made. Imports no torch."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seedsbench import registry
from seedsbench.checks import nearest
from seedsbench.files.digests import digest
from seedsbench.files.download import sha256_of
from seedsbench.files.model_files import place_of

AROUND = ("name", "shape", "classes", "reference", "offline", "licence", "note")
"""Entries of a model's YAML that are not for a function of one's own, unless that declares them."""
TARGET = "seedsbench.bench.problems.own.python_problem"


def check_own(model: Mapping[str, Any]) -> None:
    """Raise ValueError where a configuration of model=python cannot be built, as far as its text tells."""
    if model.get("_target_") == TARGET:
        file, function = place_of(model.get("path"))
        defined_in(file, function)


def defined_in(file: Path, function: str) -> None:
    """Raise ValueError unless the file can be read and has such a name at its top level."""
    if not file.is_file():
        raise ValueError(f"model.path={file}: no such file; give <file.py>:<function>")
    names = {name for node in _parsed(file).body for name in _bound(node)}
    if function not in names and "*" not in names:
        raise ValueError(f"{file}: {nearest(function, names or ['(it defines nothing)'], what='function')}")


def source_id(file: Path) -> str:
    """16 hex digits of what the file says, and the modules beside it that it imports, and they in turn."""
    files = {path.relative_to(file.parent).as_posix(): path for path in modules_beside(file) if path != file}
    return digest(sha256_of(file), {name: sha256_of(path) for name, path in sorted(files.items())})


def modules_beside(file: Path) -> list[Path]:
    """The file, and the Python files in its folder that it imports, directly or through each other."""
    found, left = [], [file]
    while left:
        path = left.pop()
        if path not in found:
            found.append(path)
            left += [beside for name in _imported(path) for beside in _beside(file.parent, name)]
    return found


def _beside(folder: Path, name: str) -> list[Path]:
    """The files of the module or package of this name in a folder."""
    top = name.split(".")[0]
    if (folder / top).is_dir():
        return sorted((folder / top).rglob("*.py"))
    return [path for path in [folder / f"{top}.py"] if path.is_file()]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement binds, those of an `if` or `try` included."""
    for inner in ast.walk(node) if isinstance(node, ast.If | ast.Try | ast.With) else [node]:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield inner.name
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in inner.names)
        elif isinstance(inner, ast.Assign | ast.AnnAssign):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            yield from (
                name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            )


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(f"{file}{line} is no Python: {error.args[0]}") from None


def entries_for(
    model: Mapping[str, Any], regime: str, device: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A model's entries that are for its `_target_`, what the program adds to them, and the rest.

    One's own function is given regime and device, and those of AROUND, only if it declares them.
    """
    target = registry.located(str(model["_target_"]))
    added = {"regime": regime, "device": device}
    declared = inspect.signature(target).parameters
    ours = target.__module__.split(".")[0] == "seedsbench"
    if ours or any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared.values()):
        return dict(model), added, {}
    around = {key: value for key, value in model.items() if key in AROUND and key not in declared}
    options = {key: value for key, value in model.items() if key not in around}
    return options, {key: value for key, value in added.items() if key in declared}, around
