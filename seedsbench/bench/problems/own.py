"""Denoisers of one's own in a cell: `model=python model.path=file.py:function`, or a YAML's own `_target_`.

What the function returns is a denoiser: one that `seedsbench.denoiser` made, an nn.Module or any function
D(x, sigma, labels).
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.problems.checkpoint import Checkpoint, placed
from seedsbench.checks import Count, Range, nearest
from seedsbench.denoisers.findings import check_denoiser
from seedsbench.denoisers.own import adapted
from seedsbench.files.digests import digest
from seedsbench.files.model_files import ModelFiles, place_of, resolve
from seedsbench.files.sources import check_defined, import_root, modules_beside, source_id

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def python_problem(
    regime: str,
    name: str = "python",
    path: str | None = None,
    options: Mapping[str, Any] | None = None,
    shape: list[Count] | None = None,
    classes: Annotated[int, Range(0, 10**6)] | None = None,
    reference: str | Mapping[str, Any] | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Checkpoint:
    """The denoiser that the function at `path` ("file.py:function") returns, called with options as keywords.

    shape (C, H, W) and classes: where the denoiser does not say. reference: as of `checkpoint_problem`.
    The regime chooses schedule and grid alone. Raises ValueError, in one line, for what cannot be.
    """
    file, function = place_of(path)
    check_defined(file, function)
    where = f"{file.name}:{function}"
    options = dict(options or {})
    made = _called(lambda: _loaded(file, function), options, where, file.parent)
    facts = {"name": name, "reference": reference, "offline": offline, "shape": shape, "classes": classes}
    return model_from(made, where, facts, [function, source_id(file), options], device)


def model_from(made: Any, where: str, facts: Mapping[str, Any], source: list[Any], device: str) -> Checkpoint:
    """The model of a denoiser that a function returned. Raises ValueError for what is no denoiser.

    where: the function, for errors. facts: what is said of the denoiser beside it. source: what its numbers
    come from besides those that it holds.
    """
    if not callable(made):
        raise ValueError(f"{where} returned {type(made).__name__}: expected a denoiser D(x, sigma, labels)")
    try:
        denoiser = adapted(made, facts.get("shape"), facts.get("classes"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}, as model.shape=[3,32,32]") from error
    if torch.device(device).type != "cpu":
        placed(denoiser, device)
    findings = check_denoiser(denoiser, device=device)
    fatal = [str(finding) for finding in findings if finding.fatal]
    if fatal:
        raise ValueError(f"{where} is no denoiser: {'; '.join(fatal)}")
    wanted = ModelFiles(reference=facts.get("reference")).statistics()
    return Checkpoint(
        name=str(facts.get("name") or where),
        denoiser=placed(denoiser, device),
        model_id=digest(*source, *_contents(made)),
        statistics=(lambda: resolve(wanted, offline=bool(facts.get("offline"))).path) if wanted else None,
        warnings=tuple(f"the denoiser's {finding}" for finding in findings),
    )


def _called(find: Callable[[], Any], options: dict[str, Any], where: str, folder: Path) -> Any:
    """find()(**options). ValueError for options it does not declare, and for what it raises."""
    function = _named(find, where, folder)
    if not callable(function):
        raise ValueError(f"{where} is {type(function).__name__}: give a function that returns a denoiser")
    declared = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared.values()):
        for key in options:
            if key not in declared:
                raise ValueError(f"{where}: {nearest(key, declared or ['(it has none)'], what='option')}")
    missing = [p.name for p in declared.values() if p.default is p.empty and p.kind not in _REST]
    if missing := [key for key in missing if key not in options]:
        raise ValueError(f"{where} needs {', '.join(missing)}: give model.options={{{missing[0]}: ...}}")
    return _named(lambda: function(**options), where, folder)


def _named(call: Callable[[], Any], where: str, folder: Path) -> Any:
    """call(), whose errors become a ValueError that names the last line of a file in the folder."""
    try:
        return call()
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder]
        line = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"{where} raised {type(error).__name__}: {said}{line}") from error


def _loaded(file: Path, function: str) -> Any:
    """What the file calls by this name. Modules beside it are imported anew: others may be called alike."""
    folder = str(file.parent)
    for path in modules_beside(file):
        for root in (file.parent, import_root(file)):
            if path.is_relative_to(root):
                sys.modules.pop(".".join(path.relative_to(root).with_suffix("").parts), None)
    sys.path[:] = [folder, *(known for known in sys.path if known != folder)]
    name = f"seedsbench_own_{digest(str(file))}"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return getattr(module, function)


def _contents(made: Any) -> Iterator[Any]:
    """Names and bytes of all numbers in a denoiser, as far as attributes, closures and containers lead."""
    seen: set[int] = set()

    def inside(name: str, value: Any) -> Iterator[Any]:
        if isinstance(value, bool | int | float):
            yield [name, repr(value)]
        elif isinstance(value, Tensor | np.ndarray):
            whole = torch.as_tensor(value).detach().cpu().contiguous()
            yield [name, list(whole.shape), str(whole.dtype)]
            yield whole.reshape(-1).view(torch.uint8).numpy().tobytes()
        elif id(value) not in seen:
            seen.add(id(value))
            for key, part in _parts(value):
                yield from inside(f"{name}.{key}", part)

    return inside("", made)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds: a container's entries, an object's attributes, what a function refers to."""
    if isinstance(value, str | bytes | type | ModuleType):
        return
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), part) for i, part in enumerate(value))
    elif isinstance(value, FunctionType):
        named, home = map(value.__globals__.get, value.__code__.co_names), value.__module__
        own = [part for part in named if not isinstance(part, FunctionType) or part.__module__ == home]
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from ((str(i), part) for i, part in enumerate([*own, *cells]))
    else:
        yield from getattr(value, "__dict__", {}).items()
        held = [getattr(value, name, None) for name in ("__self__", "__func__", "func", "args", "keywords")]
        yield from ((str(i), part) for i, part in enumerate(held) if part is not None)
