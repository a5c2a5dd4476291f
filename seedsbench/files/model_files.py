"""Which files a model's configuration asks for: read from `conf/model/<name>.yaml`, fetched or found.

Imports no torch: dry_run=true and seedsbench-fetch are quick anywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedsbench.checks import nearest
from seedsbench.files.download import Fetched, FetchError, RemoteFile, cached_path, fetch, sha256_of

FILE_KEYS = ("url", "name", "sha256", "page", "about_mb", "licence", "format", "hints")
CIRCUMSTANCES = ("path", "files", "reference", "licence", "note", "offline", "metrics", "_recursive_")
"""Entries of a model's configuration that say where things lie, or belong to another group. What a network
is, `Problem.model_id` says; so these are no part of a run_key."""


@dataclass(frozen=True)
class Wanted:
    """One file of a model or a yardstick: its role ("weights", "reference" ...); a remote file or a path.

    format, hints: for `load_denoiser`. key: the option that gave the path.
    """

    role: str
    remote: RemoteFile | None = None
    path: Path | None = None
    format: str | None = None
    hints: tuple[tuple[str, Any], ...] = ()
    key: str | None = None


def wanted_files(model: Mapping[str, Any], regime: str) -> list[Wanted]:
    """The files a model's configuration asks for in a regime: weights first; empty for built-in models.

    Raises ValueError for a regime the model has no weights for, and for entries that make no sense.
    """
    wanted = []
    if "files" in model:
        wanted.append(_published(model, regime))
    elif "path" in model:
        wanted.append(_own(model))
    if model.get("reference") is not None:
        wanted.append(_reference(model))
    return wanted


def resolve(wanted: Wanted, *, offline: bool) -> Fetched:
    """The file on this machine and its sha256 (of a folder: of names and contents); raises FetchError."""
    if wanted.remote is not None:
        return fetch(wanted.remote, offline=offline)
    assert wanted.path is not None
    if not wanted.path.exists():
        raise FetchError(f"{wanted.key}={wanted.path}: no such file; give the path of a file that is there")
    return Fetched(wanted.path, sha256_of(wanted.path))


def listing(title: str, wanted: list[Wanted], known: Sequence[Wanted] = ()) -> list[str]:
    """What dry_run=true says of a cell: for each file what it is, from where, to where, size, licence.

    known: files described before, which are only named.
    """
    if not wanted:
        return [f"{title}: nothing to fetch"]
    lines = [f"{title}:"]
    for file in wanted:
        if file.remote is not None and file in known:
            lines.append(f"  {file.role}: {file.remote.name}, as above")
        else:
            lines += [f"  {line}" for line in _described(file)]
    return lines


def _described(wanted: Wanted) -> list[str]:
    if wanted.remote is None:
        assert wanted.path is not None
        return [f"{wanted.role}: {wanted.path} ({'there' if wanted.path.exists() else 'missing'})"]
    file, path = wanted.remote, cached_path(wanted.remote)
    size = "unknown" if file.about_mb is None else f"about {file.about_mb:g} MB"
    there = f"there, {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "not there yet"
    return [
        f"{wanted.role}: {file.name}",
        f"  from     {file.url or 'by hand'}" + (f" (page: {file.page})" if file.page else ""),
        f"  to       {path} ({there})",
        f"  size     {size}",
        f"  sha256   {file.sha256 or 'not published: recorded at first use, enforced after'}",
        f"  licence  {file.licence or 'not stated'}",
    ]


def _published(model: Mapping[str, Any], regime: str) -> Wanted:
    name, files = model.get("name", "?"), model["files"]
    if regime not in files:
        known = " or ".join(f"regime={key}" for key in files)
        raise ValueError(
            f"model={name} has no weights for regime={regime}: use {known} "
            "(schedule= and grid= can be overridden alone)"
        )
    entry = files[regime]
    return Wanted(
        "weights",
        _remote(entry, f"model.files.{regime}", model.get("licence")),
        format=entry.get("format"),
        hints=tuple(sorted((entry.get("hints") or {}).items())),
    )


def _own(model: Mapping[str, Any]) -> Wanted:
    if model.get("format") == "python":
        return Wanted("weights", path=place_of(model.get("path"))[0], key="model.path")
    if not model.get("path"):
        raise ValueError(f"model={model.get('name')} needs your weights: add model.path=<file or folder>")
    hints = tuple(sorted((model.get("hints") or {}).items()))
    path = absolute(model["path"])
    return Wanted("weights", path=path, format=model.get("format"), hints=hints, key="model.path")


def _reference(model: Mapping[str, Any]) -> Wanted:
    """The reference: an entry like those of the weights, or a path or an address given as text."""
    reference = model["reference"]
    if isinstance(reference, Mapping):
        return Wanted("reference", _remote(reference, "model.reference", model.get("licence")))
    if "://" in str(reference):
        name = Path(urlsplit(str(reference)).path).name
        return Wanted("reference", RemoteFile(str(reference), name))
    return Wanted("reference", path=absolute(reference), key="model.reference")


def _remote(entry: Mapping[str, Any], where: str, licence: str | None) -> RemoteFile:
    for key in entry:
        if key not in FILE_KEYS:
            raise ValueError(f"{where}: {nearest(str(key), FILE_KEYS, what='option')}")
    url = entry.get("url")
    return RemoteFile(
        url,
        entry.get("name") or Path(urlsplit(url or "").path).name,
        entry.get("sha256"),
        entry.get("page"),
        entry.get("about_mb"),
        entry.get("licence") or licence,
    )


def place_of(path: Any) -> tuple[Path, str]:
    """The file and the function of `file.py:function`; ValueError for anything else."""
    file, _, function = str(path or "").rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        given = f"model.path={path}: give" if path else "model=python needs your function: add"
        raise ValueError(f"{given} model.path=<file.py>:<function>, which returns a denoiser")
    return absolute(file), function


def absolute(path: Any) -> Path:
    """A path of a configuration, from where the command runs."""
    return Path(str(path)).expanduser().absolute()
