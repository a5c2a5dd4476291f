"""Which files a model's configuration asks for: read from `conf/model/<name>.yaml`, fetched or found.

Imports no torch: dry_run=true and seedsbench-fetch are quick anywhere.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from seedsbench.checks import Count, Pixels, Range, check_fields, check_options, nearest
from seedsbench.files.download import Fetched, FetchError, RemoteFile, cached_path, fetch, sha256_of

FILE_KEYS = ("url", "name", "sha256", "page", "about_mb", "licence", "format", "hints")
CIRCUMSTANCES = ("path", "files", "reference", "licence", "note", "offline", "metrics", "_recursive_")
CIRCUMSTANCES += ("prompts", "size", "variant", "allow_pickle", "distilled_guidance")
CIRCUMSTANCES += ("training", "trainings", "vae", "latents")
"""Entries of a model's configuration that say where things lie, which training of a network it is, or that
belong to another group, and those of pipelines. They are no part of a run_key: which network it is,
`Problem.model_id` says."""
_Training = Annotated[int, Range(0, 10**6)] | None
TRAININGS = {"training": _Training, "trainings": dict[str, Count] | None}
"""Which of several networks from other seeds it is, and how many there are by regime; their types."""


@dataclass(frozen=True)
class Wanted:
    """One file that a cell needs: its role ("weights", "reference" ...); a remote file or a path.

    hints: for `load_denoiser`, `format` among them. key: the option that gave the path. advice: what to do
    where it gave none.
    """

    role: str
    remote: RemoteFile | None = None
    path: Path | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    advice: str = ""


_PerChannel = float | list[float]


def _listed(value: float | list[float], like: float | list[float]) -> list[float]:
    """One number as many times as the other has them."""
    if isinstance(value, list):
        return value
    return [value] * (len(like) if isinstance(like, list) else 1)


@dataclass(frozen=True)
class Latents:
    """What a network of latents was trained on: scale * an encoder's output + bias, whole or by channel.

    decoder: where a folder of that autoencoder is published, for people. pixels: what the encoder was shown,
    images in [-1, 1] ("signed") or in [0, 1] ("unit"). Raises ValueError for other options.
    """

    scale: _PerChannel
    bias: _PerChannel = 0.0
    decoder: str | None = None
    pixels: Pixels = "signed"

    def __post_init__(self) -> None:
        check_fields(self)
        if 0 in (self.scale if isinstance(self.scale, list) else [self.scale]):
            raise ValueError(f"Latents: scale={self.scale} must not be 0")

    @property
    def affine(self) -> tuple[tuple[str, float | list[float]], ...]:
        """(name, value) of the numbers."""
        return ("scale", self.scale), ("bias", self.bias)

    def close_to(self, other: "Latents") -> bool:
        """Whether the two are the same but for float32's rounding."""
        ours, theirs = (
            [*_listed(space.scale, other.scale), *_listed(space.bias, other.bias)]
            for space, other in ((self, other), (other, self))
        )
        near = len(ours) == len(theirs) and all(map(partial(math.isclose, rel_tol=1e-5), ours, theirs))
        return near and self.pixels == other.pixels

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> "Latents":
        """Those that a YAML gives as `latents`."""
        known = [one.name for one in fields(cls)]
        for key in entries:
            if key not in known:
                raise ValueError(f"model.latents: {nearest(str(key), known, what='option')}")
        if "scale" not in entries:
            raise ValueError("model.latents has no scale: give one, as 0.18215 of Stable Diffusion's")
        return cls(**entries)


@dataclass(frozen=True)
class ModelFiles:
    """What a model's YAML says of its files: weights for each regime in `files`, or one's own at `path`.

    format, hints: what the file at `path` does not say about itself. reference: statistics to compare with,
    a path, an address, or an entry as in `files`. licence: of entries that name none of their own. latents:
    where its samples are latents, the fields of `Latents`; vae: the folder of their autoencoder.
    """

    name: str = "?"
    files: Mapping[str, Any] | None = None
    path: str | None = None
    format: str | None = None
    hints: Mapping[str, Any] | None = None
    reference: str | Mapping[str, Any] | None = None
    licence: str | None = None
    latents: Mapping[str, Any] | None = None
    vae: str | None = None

    def weights(self, regime: str) -> Wanted:
        """The file of the network; ValueError for a regime without weights, and for a missing path."""
        if self.files is None:
            if not self.path:
                raise ValueError(f"model={self.name} needs your weights: add model.path=<file or folder>")
            hints = _hints(self.format, self.hints)
            return Wanted("weights", path=absolute(self.path), hints=hints, key="model.path")
        check_regime(self.name, regime, self.files)
        entry = self.files[regime]
        remote = self._remote(entry, f"model.files.{regime}")
        return Wanted("weights", remote, hints=_hints(entry.get("format"), entry.get("hints")))

    def statistics(self) -> Wanted | None:
        """The file of the reference, where there is one."""
        if self.reference is None:
            return None
        if isinstance(self.reference, Mapping):
            return Wanted("reference", self._remote(self.reference, "model.reference"))
        if "://" in str(self.reference):
            return Wanted("reference", RemoteFile(self.reference, _last_part(self.reference)))
        return Wanted("reference", path=absolute(self.reference), key="model.reference")

    def decoder(self) -> Wanted | None:
        """The folder of the decoder where samples are latents; ValueError for one that has no use."""
        if self.latents is None:
            if self.vae is not None and self.files is None:  # the file at `path` may say what its latents are
                return Wanted("decoder", path=absolute(self.vae), key="model.vae")
            if self.vae is not None:
                raise ValueError(
                    f"model.vae={self.vae}: the samples of model={self.name} are images: leave it out"
                )
            return None
        example = Latents.of(self.latents).decoder
        advice = f"model={self.name} makes latents: give model.vae=<folder of diffusers' AutoencoderKL>"
        advice += f", as that of {example}" if example else ""
        path = None if self.vae is None else absolute(self.vae)
        return Wanted("decoder", path=path, key="model.vae", advice=advice)

    def _remote(self, entry: Mapping[str, Any], where: str) -> RemoteFile:
        for key in entry:
            if key not in FILE_KEYS:
                raise ValueError(f"{where}: {nearest(str(key), FILE_KEYS, what='option')}")
        given = {key: entry[key] for key in FILE_KEYS if entry.get(key) is not None}
        given = {"url": None, "name": _last_part(given.get("url", "")), "licence": self.licence, **given}
        return RemoteFile(**{key: value for key, value in given.items() if key not in ("format", "hints")})


def wanted_files(model: Mapping[str, Any], regime: str) -> list[Wanted]:
    """The files a model's configuration asks for in a regime: weights first; empty for built-in models.

    Raises ValueError for a regime the model has no weights for, and for entries that make no sense.
    """
    known = [one.name for one in fields(ModelFiles)]
    files = ModelFiles(**{key: value for key, value in model.items() if key in known})
    wanted = []
    if files.format == "python":
        wanted.append(Wanted("weights", path=place_of(files.path)[0], key="model.path"))
    elif "files" in model or "path" in model:
        wanted.append(files.weights(regime))
    if prompts := model.get("prompts"):
        wanted.append(Wanted("prompts", path=absolute(prompts), key="model.prompts"))
    if (decoder := files.decoder()) is not None:
        wanted.append(decoder)
    statistics = files.statistics()
    return wanted if statistics is None else [*wanted, statistics]


def check_trained(name: str, model: Mapping[str, Any], regime: str) -> None:
    """Raise ValueError where a model says how many trainings of each regime it has, and has not this one.

    name: as it is chosen, for the error. model: its entries, those of TRAININGS are asked.
    """
    check_options("model", TRAININGS, model)
    known, training = model.get("trainings"), model.get("training")
    if known is None:
        return
    check_regime(name, regime, known)
    if not 0 <= (training or 0) < known[regime]:
        there = ", ".join(f"0 to {n - 1} for {key}" if n > 1 else f"0 for {key}" for key, n in known.items())
        raise ValueError(f"model={name} has no training {training} for regime={regime}: there are {there}")


def check_regime(name: str, regime: str, known: Collection[str]) -> None:
    """Raise ValueError, which says what a model of this name has weights for, if the regime is not known."""
    if regime not in known:
        said = " or ".join(f"regime={key}" for key in known)
        raise ValueError(
            f"model={name} has no weights for regime={regime}: use {said} "
            "(schedule= and grid= can be overridden alone)"
        )


def _hints(format: str | None, hints: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**({} if format is None else {"format": format}), **(hints or {})}


def _last_part(url: str) -> str:
    return Path(urlsplit(url).path).name


def resolve(wanted: Wanted, *, offline: bool) -> Fetched:
    """The file on this machine and its sha256 (of a folder: of names and contents); raises FetchError."""
    if wanted.remote is not None:
        return fetch(wanted.remote, offline=offline)
    if wanted.path is None:
        raise FetchError(wanted.advice)
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
        if wanted.path is None:
            return [f"{wanted.role}: {wanted.advice}"]
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
