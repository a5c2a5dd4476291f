"""The source of a class or function from outside the package: which files it is made of, and their hash."""

import ast
import inspect
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from seedsbench.checks import nearest
from seedsbench.files.digests import digest
from seedsbench.files.download import sha256_of


@lru_cache
def source_of(target: Any) -> str | None:
    """`source_id` of the file that defines a class or function; None for one of this package.

    What has no source file, as a function written in C, is known by its module's name. Asked for once in a
    process: what was imported stays what it is.
    """
    if target.__module__.split(".")[0] == "seedsbench":
        return None
    file = inspect.getsourcefile(inspect.unwrap(target))
    return source_id(Path(file)) if file and Path(file).is_file() else target.__module__


def source_id(file: Path) -> str:
    """16 hex digits of what the file says, and the modules beside it that it imports, and they in turn."""
    root = import_root(file)
    files = {path.relative_to(root).as_posix(): path for path in modules_beside(file) if path != file}
    return digest(sha256_of(file), {name: sha256_of(path) for name, path in sorted(files.items())})


def modules_beside(file: Path) -> list[Path]:
    """The file, and those of its folder (or package) that it imports, directly or through each other."""
    root = import_root(file)
    found, left = [], [file]
    while left:
        path = left.pop()
        if path not in found:
            found.append(path)
            places = {root, file.parent}
            for name in _imported(path, root):
                left += [beside for place in places for beside in _named(place, name)]
    return found


def check_defined(file: Path, function: str) -> None:
    """Raise ValueError unless the file can be read and has such a name at its top level. Runs nothing."""
    if not file.is_file():
        raise ValueError(f"model.path={file}: no such file; give <file.py>:<function>")
    names = {name for node in _parsed(file).body for name in _bound(node)}
    if function not in names and "*" not in names:
        raise ValueError(f"{file}: {nearest(function, names or ['(it defines nothing)'], what='function')}")


def import_root(file: Path) -> Path:
    """The folder that a file's imports start from: its own, or the one that holds its package."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _named(root: Path, package: str) -> list[Path]:
    """The files of the top-level module or package of this name in a folder."""
    if (root / package).is_dir():
        return sorted((root / package).rglob("*.py"))
    return [path for path in [root / f"{package}.py"] if path.is_file()]


def _imported(path: Path, root: Path) -> Iterator[str]:
    """Names of the top-level modules and packages that a file imports."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if node.level == 0 else path.relative_to(root).parts[0]


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
