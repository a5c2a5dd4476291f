"""What samples are compared with: statistics in an .npz file, or images in a folder, zip file or .npz.

The .npz has `mu` (D,) and `sigma` (D, D), as EDM's and most other published ones do. Those that
`seedsbench-reference` writes also say which extractor and images they are of, and may hold `features`.
An .npz with `arr_0` instead holds images, as guided-diffusion's samples do. A .pkl is as EDM2 publishes them.
Identities are of contents: packing, names and order of the images do not matter.
"""

import hashlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.data.pictures import ARRAY, image_names, pictures
from seedsbench.files.archives import Header, npz_array, npz_header, open_zip, reading, shown
from seedsbench.files.digests import digest
from seedsbench.files.numpy_pickles import array_of
from seedsbench.files.regular import check_regular
from seedsbench.metrics.base import as_matrix
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.fid import checked_gaussian
from seedsbench.metrics.moments import Moments, MomentSum
from seedsbench.metrics.pickled_statistics import SUFFIX, pickled_statistics

_SMALL = ("n", "extractor", "extractor_id", "image_shape", "image_bits")
_SMALL_BYTES = 4096
_MAX_SIDE = 2**16
_BLOCK_BYTES = 2**26
"""Of a block of images that an extractor sees at a time: 16 of 1182 x 1182 pixels."""
_COLOURS = {1: "grey", 3: "colour"}  # by number of channels


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments to compare with. id: 16 hex digits of the contents. name: for readers.

    features: (n, D) float32 of the images, where they were kept. shape: (channels, height, width) of each,
    one channel if all are grey. bits: 8 or 16 a channel, as they were stored. None where nothing says so.
    """

    moments: Moments
    id: str
    name: str
    features: Tensor | None = None
    shape: tuple[int, ...] | None = None
    bits: int | None = None

    @property
    def facts(self) -> str:
        """The shape for readers, as 3x64x64, or "unknown"."""
        return "unknown" if self.shape is None else "x".join(map(str, self.shape))


def doubts(reference: Reference, dim: int, image_shape: tuple[int, ...] | None = None) -> tuple[str, ...]:
    """What a reader of scores of `dim` features should know of a reference, a sentence each.

    image_shape: (C, H, W) of the samples, compared where the reference's is known.
    """
    name, n, found = reference.name, reference.moments.n, []
    if 0 < n <= dim:
        found.append(f"{name} is of {n} images for {dim} features: its covariance is singular")
    if reference.bits == 16:
        found.append(f"{name} is of 16-bit images, of which the upper 8 bits were used")
    if image_shape is not None and reference.shape is not None:
        (channels, *size), (wanted, *samples) = reference.shape, image_shape
        if size != samples:
            found.append(
                f"{name} is of images of {size[1]} x {size[0]} pixels, the samples have "
                f"{samples[1]} x {samples[0]}: such scores compare with no others"
            )
        if channels != wanted and wanted in _COLOURS:
            found.append(f"{name} is of {_COLOURS[channels]} images, the samples are {_COLOURS[wanted]}")
    return tuple(found)


def read_reference(
    path: str | Path,
    extractor: Extractor,
    *,
    features: bool = False,
    progress: Callable[[int], object] = lambda images: None,
) -> Reference:
    """Statistics from an .npz file, or computed from the images of a folder, .zip or .npz.

    features: also return the features of each image. progress: called with the number of images done.
    Raises FileNotFoundError, and ValueError for statistics that cannot be the extractor's.
    """
    path, advice = Path(path).expanduser(), "give an .npz with mu and sigma, or a folder or zip of images"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: {advice}")
    if not path.is_dir():
        check_regular(path)
    if holds_images(path, features=features):
        return of_images(path, extractor, features=features, progress=progress)
    if path.suffix.lower() not in (".npz", SUFFIX):
        raise ValueError(f"{path} is of type {path.suffix!r}: {advice}")
    return read_statistics(path, extractor, features=features)


def holds_images(path: str | Path, *, features: bool = False) -> bool:
    """Whether `read_reference` reads images there: from an .npz only if it lacks the wanted statistics."""
    path = Path(path).expanduser()
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    wanted = {"mu.npy", "sigma.npy", *(["features.npy"] if features else [])}
    try:
        with reading(str(path)), open_zip(path) as archive:
            found = set(archive.namelist())
    except ValueError:
        return False  # read_statistics says what is wrong with it
    return f"{ARRAY}.npy" in found and not wanted <= found


def read_statistics(path: str | Path, extractor: Extractor, *, features: bool = False) -> Reference:
    """mu and sigma from an .npz or .pkl file, checked: shapes, finite, symmetric, no negative variance.

    features: the file must hold them. ValueError, in one line, for anything else, and for statistics
    that say they are another extractor's.
    """
    path = Path(path).expanduser()
    dim, pickled = extractor.dim, path.suffix.lower() == SUFFIX
    records, n = pickled_statistics(path, extractor) if pickled else ({}, 0)
    headers = {} if pickled else _headers(path, features=features)
    shapes = {name: one.shape or () for name, one in (records or headers).items()}
    if shapes["mu"] != (dim,) or shapes["sigma"] != (dim, dim):
        raise ValueError(
            f"{path}: mu and sigma have shapes {shapes['mu']} and {shapes['sigma']}; "
            f"{extractor.name} has {dim} features, so ({dim},) and ({dim}, {dim}) are expected"
        )
    if features and "features" not in shapes:
        raise ValueError(f"{path} holds no features: make it with seedsbench-reference --features")
    if features and shapes["features"][1:] != (dim,):
        raise ValueError(f"{path}: features have shape {shapes['features']}; expected (n, {dim})")
    if pickled:
        stored = {name: array_of(record).astype(np.float64) for name, record in records.items()}
        stored["n"] = np.asarray(n)
    else:
        stored = _arrays(path, headers)
    mu, sigma = stored["mu"], stored["sigma"]
    checked_gaussian(mu, sigma, f"{path}: its")
    made_with = str(stored.get("extractor_id", extractor.id))
    if made_with != extractor.id:
        raise ValueError(
            f"{path} was made with {shown(stored.get('extractor', 'another extractor'), 60)} "
            f"{shown(made_with, 60)}, "
            f"these weights are {extractor.name} {extractor.id}: make it again with seedsbench-reference"
        )
    rows = None
    if features:
        rows = as_matrix(stored["features"], f"{path}: features").float()
    moments = Moments(_count(path, stored.get("n", np.asarray(0))), mu, sigma)
    identity = statistics_id(mu, sigma)
    if not {"image_shape", "image_bits"} <= stored.keys():
        return Reference(moments, identity, path.name, rows)
    shape, bits = stored["image_shape"].tolist(), stored["image_bits"].tolist()
    sides = shape[1:] if stored["image_shape"].shape == (3,) and shape[0] in _COLOURS else []
    if not sides or not all(type(n) is int and 0 < n <= _MAX_SIDE for n in sides) or bits not in (8, 16):
        found = f"image_shape is {shown(shape, 60)} and image_bits {shown(bits, 60)}"
        raise ValueError(f"{path}: {found}; expected [1 or 3, height, width] and 8 or 16")
    return Reference(moments, identity, path.name, rows, tuple(shape), bits)


def statistics_id(mu: np.ndarray, sigma: np.ndarray) -> str:
    """16 hex digits of the numbers, whatever file they came in."""
    return digest(*(np.ascontiguousarray(a, dtype="<f8").tobytes() for a in (mu, sigma)))


def write_statistics(path: str | Path, reference: Reference, extractor: Extractor) -> None:
    """Write an .npz that `read_statistics` and others read; with what is known of the images.

    `images` is their identity, `image_shape` their channels, height and width, `image_bits` their depth.
    """
    moments = reference.moments
    arrays: dict[str, Any] = {"mu": moments.mu, "sigma": moments.sigma, "n": moments.n}
    arrays |= {"extractor": extractor.name, "extractor_id": extractor.id, "images": reference.id}
    optional = {"image_shape": reference.shape, "image_bits": reference.bits, "features": reference.features}
    arrays |= {name: np.asarray(value) for name, value in optional.items() if value is not None}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _headers(path: Path, *, features: bool) -> dict[str, Header]:
    """Of what `write_statistics` writes, as far as it is there; features, which are large, if asked for."""
    known = ("mu", "sigma", *_SMALL, *(["features"] if features else []))
    with reading(f"{path} is no statistics file"), open_zip(path) as archive:
        there = set(archive.namelist())
        if missing := [name for name in ("mu", "sigma") if f"{name}.npy" not in there]:
            held = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:10]) or "nothing"
            raise ValueError(f"it has no {' nor '.join(missing)} (it has {held})")
        headers = {name: npz_header(archive, name) for name in known if f"{name}.npy" in there}
        for name in _SMALL:
            if name in headers and headers[name].size > _SMALL_BYTES:
                raise ValueError(f"{name} has {headers[name].size} bytes, over {_SMALL_BYTES}")
        for name in ("mu", "sigma", "features"):
            if name in headers and not np.can_cast(headers[name].dtype, np.float64, "same_kind"):
                raise ValueError(f"{name} is of {headers[name].dtype}, no kind of number")
        return headers


def _arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Arrays whose headers were found good, mu and sigma as float64."""
    with reading(f"{path} is no statistics file"), open_zip(path) as archive:
        found = {name: npz_array(archive, name) for name in names}
        return found | {name: found[name].astype(np.float64) for name in ("mu", "sigma")}


def _count(path: Path, value: np.ndarray) -> int:
    """The number of images, 0 where it is not known."""
    if value.shape != () or value.dtype.kind not in "iu" or not 0 <= int(value) < 2**53:
        found = shown(value.tolist(), 60)
        raise ValueError(f"{path}: n is {found}; expected a whole number of images, or 0 for unknown")
    return int(value)


def of_images(
    path: str | Path,
    extractor: Extractor,
    *,
    features: bool = False,
    progress: Callable[[int], object] = lambda images: None,
) -> Reference:
    """Moments of the images of a folder (with all below it), .zip or .npz, a block of them at a time.

    The id is of the extractor and the decoded images. features: also keep each image's.
    Raises ValueError for no or one image, and for images of different sizes, or too large for a block.
    """
    path = Path(path).expanduser()
    names = image_names(path)
    sums = MomentSum(extractor.dim, len(names), extractor.bound)
    kept, hashes, bits, shape = [], [], 8, (1,)
    all_pictures = pictures(path, names, max_pixels=_BLOCK_BYTES // (3 * extractor.block))
    blocks = iter(lambda: list(itertools.islice(all_pictures, extractor.block)), [])
    while some := list(itertools.islice(blocks, torch.get_num_threads())):
        stacked = [torch.stack([picture.pixels for picture in block]) for block in some]
        bits = max(bits, *(picture.bits for block in some for picture in block))
        for images, (rows, _) in zip(stacked, extractor.each(stacked), strict=True):
            for image in images:
                header = repr(tuple(image.shape)).encode()
                hashes.append(hashlib.sha256(header + image.numpy().tobytes()).digest())
            coloured = bool((images != images[:, :1]).any())
            shape = (3 if coloured else shape[0], *images.shape[2:])
            sums.update(rows)
            if features:
                kept.append(rows.float().cpu())
            progress(len(images))
    identity = digest(extractor.id, b"".join(sorted(hashes)))
    rows = torch.cat(kept) if features else None
    return Reference(sums.moments(), identity, path.name, rows, shape, bits)
