"""What samples are compared with: statistics in an .npz file, or images in a folder or zip file.

The .npz has `mu` (D,) and `sigma` (D, D), as EDM's and most other published ones do. Those that
`seedsbench-reference` writes also say which extractor and images they are of, and may hold `features`.
Identities are of contents: packing, names and order of the images do not matter.
"""

import hashlib
import itertools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.moments import Moments, MomentSum

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
SYMMETRIC = 1e-5
"""Largest asymmetry, relative to the largest entry: what float32 statistics show of rounding."""

Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments to compare with. id: 16 hex digits of the contents. name: for readers.

    features: (n, D) float32 of the images, where they were kept.
    """

    moments: Moments
    id: str
    name: str
    features: Tensor | None = None


def read_reference(
    path: str | Path,
    extractor: Extractor,
    *,
    features: bool = False,
    progress: Progress = lambda images: None,
) -> Reference:
    """Statistics from an .npz file, or computed from a folder or .zip of images.

    features: also return the features of each image. progress: called with the number of images done.
    Raises FileNotFoundError, and ValueError for statistics that cannot be the extractor's.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there: give an .npz with mu and sigma, or a folder or zip of images"
        )
    if path.is_dir() or path.suffix.lower() == ".zip":
        return of_images(path, extractor, features=features, progress=progress)
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"{path} is of type {path.suffix!r}: "
            "give an .npz with mu and sigma, or a folder or .zip of images"
        )
    return read_statistics(path, extractor, features=features)


# --- statistics files ---------------------------------------------------------------------------


def read_statistics(path: str | Path, extractor: Extractor, *, features: bool = False) -> Reference:
    """mu and sigma from an .npz file, checked: shapes, finite, symmetric, no negative variance.

    features: the file must hold them. ValueError, in one line, for anything else, and for statistics
    that say they are another extractor's.
    """
    path = Path(path).expanduser()
    stored = _arrays(
        path, ("mu", "sigma"), ("n", "extractor", "extractor_id", *(["features"] if features else []))
    )
    mu, sigma = (_numbers(path, name, stored[name]) for name in ("mu", "sigma"))
    _check_gaussian(path, mu, sigma, extractor)
    made_with = str(stored.get("extractor_id", extractor.id))
    if made_with != extractor.id:
        raise ValueError(
            f"{path} was made with {stored.get('extractor', 'another extractor')} {made_with}, "
            f"these weights are {extractor.name} {extractor.id}: make it again with seedsbench-reference"
        )
    rows = None
    if features:
        if "features" not in stored:
            raise ValueError(f"{path} holds no features: make it with seedsbench-reference --features")
        rows = torch.as_tensor(_numbers(path, "features", stored["features"])).float()
        if rows.ndim != 2 or rows.shape[1] != extractor.dim:
            raise ValueError(
                f"{path}: features have shape {tuple(rows.shape)}; expected (n, {extractor.dim})"
            )
    n = int(stored["n"]) if "n" in stored else 0
    return Reference(Moments(n, mu, sigma), statistics_id(mu, sigma), path.name, rows)


def statistics_id(mu: np.ndarray, sigma: np.ndarray) -> str:
    """16 hex digits of the numbers, whatever file they came in."""
    return digest(*(np.ascontiguousarray(a, dtype="<f8").tobytes() for a in (mu, sigma)))


def write_statistics(path: str | Path, reference: Reference, extractor: Extractor) -> None:
    """Write an .npz that `read_statistics` and others read; the images' identity is kept as `images`."""
    moments = reference.moments
    arrays: dict[str, Any] = {
        "mu": moments.mu,
        "sigma": moments.sigma,
        "n": moments.n,
        "extractor": extractor.name,
        "extractor_id": extractor.id,
        "images": reference.id,
    }
    if reference.features is not None:
        arrays["features"] = reference.features.numpy()
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _arrays(path: Path, wanted: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in wanted if name not in file]
            if missing:
                found = ", ".join(file.files) or "nothing"
                raise ValueError(f"it has no {' nor '.join(missing)} (it has {found})")
            return {name: file[name] for name in (*wanted, *optional) if name in file}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path} is no statistics file: {' '.join(str(error).split())}") from error


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} is of type {array.dtype}; expected numbers")
    values = np.asarray(array, dtype=np.float64)
    if not np.isfinite(values).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
        raise ValueError(f"{path}: {name} is not finite at {place}")
    return values


def _check_gaussian(path: Path, mu: np.ndarray, sigma: np.ndarray, extractor: Extractor) -> None:
    d = extractor.dim
    if mu.shape != (d,) or sigma.shape != (d, d):
        raise ValueError(
            f"{path}: mu and sigma have shapes {mu.shape} and {sigma.shape}; "
            f"{extractor.name} has {d} features, so ({d},) and ({d}, {d}) are expected"
        )
    asymmetry = float(np.abs(sigma - sigma.T).max())
    if asymmetry > SYMMETRIC * float(np.abs(sigma).max()):
        raise ValueError(f"{path}: sigma differs from its transpose by {asymmetry:.3g}: it is no covariance")
    if float(sigma.diagonal().min()) < 0:
        raise ValueError(f"{path}: sigma has a negative variance at {int(sigma.diagonal().argmin())}")


# --- images -------------------------------------------------------------------------------------


def of_images(
    path: str | Path,
    extractor: Extractor,
    *,
    features: bool = False,
    progress: Progress = lambda images: None,
) -> Reference:
    """Moments of the images of a folder (with all below it) or zip file, a block of them at a time.

    The id is of the extractor and the decoded images. features: also keep each image's.
    Raises ValueError for no or one image, and for images of different sizes.
    """
    path = Path(path).expanduser()
    names = image_names(path)
    sums = MomentSum(extractor.dim, len(names), extractor.bound)
    kept, hashes = [], []
    blocks = _blocks(path, names, extractor.block)
    while some := [torch.stack(block) for block in itertools.islice(blocks, torch.get_num_threads())]:
        for images, (rows, _) in zip(some, extractor.each(some), strict=True):
            hashes += [
                hashlib.sha256(repr(tuple(x.shape)).encode() + x.numpy().tobytes()).digest() for x in images
            ]
            sums.update(rows)
            if features:
                kept.append(rows.float().cpu())
            progress(len(images))
    identity = digest(extractor.id, b"".join(sorted(hashes)))
    return Reference(sums.moments(), identity, path.name, torch.cat(kept) if features else None)


def image_names(path: str | Path) -> list[str]:
    """Names of all images below a folder or in a zip file, sorted; ValueError for fewer than two."""
    path = Path(path)
    if path.is_dir():
        found = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist() if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is neither a folder nor a zip file: {error}") from error
    names = sorted(name for name in found if Path(name).suffix.lower() in SUFFIXES and not _hidden(name))
    if len(names) < 2:
        kinds = " ".join(sorted(SUFFIXES))
        raise ValueError(f"{path} holds {len(names)} images ({kinds}): at least 2 make a covariance")
    return names


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _blocks(path: Path, names: list[str], size: int) -> Iterator[list[Tensor]]:
    first: tuple[int, ...] | None = None
    block: list[Tensor] = []
    for name, image in zip(names, _images(path, names), strict=True):
        first = first or tuple(image.shape)
        if tuple(image.shape) != first:
            raise ValueError(
                f"{path}: {name} has {image.shape[2]} x {image.shape[1]} pixels, {names[0]} has "
                f"{first[2]} x {first[1]}: a reference's images must have one size"
            )
        block.append(image)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _images(path: Path, names: list[str]) -> Iterator[Tensor]:
    """The named images as uint8 (3, H, W)."""
    if path.is_dir():
        for name in names:
            yield _decoded(path / name, f"{path / name}")
        return
    with zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(name) as file:
                yield _decoded(file, f"{path}: {name}")


def _decoded(file: Any, name: str) -> Tensor:
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is no readable image: {error}") from error
