"""What a row's scores were computed from, kept beside it: `<study>/statistics/<run_key>.npz`.

Its FID against any other reference, and its Inception score, follow without sampling again. The file reads as
a reference too: it has `mu`, `sigma`, `n` and `extractor_id` as those of `seedsbench-reference`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seedsbench.files.archives import npz_array, npz_header, open_zip, reading
from seedsbench.files.atomic import replacing
from seedsbench.files.digests import digest
from seedsbench.files.regular import check_regular
from seedsbench.metrics.moments import Moments

_NONE = "no statistics of a row"
_TEXTS = ("extractor", "extractor_id", "reference_id")
_TEXT_BYTES = 4096
_KINDS = {"n": "iu", "mu": "f", "sigma": "f", "logits": "f", **dict.fromkeys(_TEXTS, "U")}


@dataclass(frozen=True, eq=False)
class Statistics:
    """moments: of the features. logits: (n, K), unnormalised, by sample index; None without classes.

    extractor, extractor_id, reference_id: as in the row.
    """

    moments: Moments
    logits: np.ndarray | None
    extractor: str
    extractor_id: str
    reference_id: str

    @property
    def id(self) -> str:
        """16 hex digits of all of it, which its row names."""
        arrays = [array for array in (self.moments.mu, self.moments.sigma, self.logits) if array is not None]
        numbers = [np.ascontiguousarray(array, dtype="<f8").tobytes() for array in arrays]
        return digest(self.moments.n, self.extractor, self.extractor_id, self.reference_id, *numbers)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; logits as float32 where that is exact."""
        moments = self.moments
        arrays: dict[str, Any] = {"n": moments.n, "mu": moments.mu, "sigma": moments.sigma}
        arrays |= {name: getattr(self, name) for name in _TEXTS}
        if self.logits is not None:
            single = self.logits.astype(np.float32)
            arrays["logits"] = single if np.array_equal(single, self.logits) else self.logits
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def read_kept_statistics(path: Path) -> Statistics:
    """The statistics in a file. Raises FileNotFoundError, and ValueError, in one line, for what is none."""
    check_regular(path)
    with reading(_NONE), open_zip(path) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()} & _KINDS.keys()
        headers = {name: npz_header(archive, name) for name in there}
        for name, header in headers.items():
            if header.dtype.kind not in _KINDS[name] or (name in _TEXTS and header.size > _TEXT_BYTES):
                raise ValueError(f"its {name} is {header.dtype} {header.shape}")
        return _checked({name: npz_array(archive, name) for name in there})


def _checked(arrays: Mapping[str, np.ndarray]) -> Statistics:
    """The statistics that arrays of the right kinds are; ValueError where they do not fit together."""
    if missing := _KINDS.keys() - arrays.keys() - {"logits"}:
        raise ValueError(f"it has no {min(missing)}")
    shapes = {name: array.shape for name, array in arrays.items()}
    mu, sigma, logits = arrays["mu"], arrays["sigma"], arrays.get("logits")
    n = int(arrays["n"]) if shapes["n"] == () else 0
    expected = dict.fromkeys(shapes, ()) | {"mu": (mu.size,), "sigma": (mu.size, mu.size)}
    if logits is not None:
        expected["logits"] = (n, logits.shape[-1] if logits.ndim else 0)
    if n < 2 or shapes != expected:
        raise ValueError(f"it is of {n} samples, with shapes {shapes}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError("its mu or sigma is not finite")
    moments = Moments(n, mu.astype(np.float64), sigma.astype(np.float64))
    texts = [str(arrays[name]) for name in _TEXTS]
    return Statistics(moments, None if logits is None else logits.astype(np.float64), *texts)
