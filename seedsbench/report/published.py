"""Published scores to compare with: numbers printed in papers, with where they stand.

assets/published.csv has a row a number: dataset, resolution, network, conditioning, regime, solver, NFE, FID,
IS, source and place. Notes say whether the method is training-free, searched or learned, and whether the
source is the method's own paper ("primary"). They were measured by others, with other code. `overrides` are
those of the command here that is to make the number again, where its protocol is known (`printed.py`).
"""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from seedsbench.report.curves import MISSING, as_text
from seedsbench.report.pareto import Panel
from seedsbench.report.rows import take
from seedsbench.report.style import REGIME_NAMES

PUBLISHED = Path(__file__).parent / "assets" / "published.csv"
EXTRACTOR, SAMPLES = "inception-v3", "50000"
"""What printed FIDs are of, where the file's notes say nothing else."""


class Protocol(NamedTuple):
    """Of a row's model: data set, resolution and conditioning in the file, and the published statistics."""

    dataset: str
    resolution: int
    conditioning: str
    reference: str


# By model of a row. Statistics are known by name: rows made with others may not be compared.
_PROTOCOLS = {
    "cifar10_uncond": Protocol("CIFAR-10", 32, "uncond", "cifar10-32x32.npz"),
    "cifar10_cond": Protocol("CIFAR-10", 32, "cond", "cifar10-32x32.npz"),
    "ffhq64": Protocol("FFHQ", 64, "uncond", "ffhq-64x64.npz"),
    "afhqv2": Protocol("AFHQv2", 64, "uncond", "afhqv2-64x64.npz"),
    "imagenet64": Protocol("ImageNet", 64, "cond", "imagenet-64x64.npz"),
    "celeba64": Protocol("CelebA", 64, "uncond", "fid_stats_celeba64_train_50000_ddim.npz"),
}


@cache
def published() -> pd.DataFrame:
    """All rows that have an NFE and an FID, with the columns `kind` and `primary` taken from the notes."""
    df = pd.read_csv(PUBLISHED).dropna(subset=["nfe", "fid"])
    notes = df["note"].astype(str)
    kind, primary = (notes.str.extract(rf"\b{name}=([^;]+)")[0].str.strip() for name in ("class", "primary"))
    return df.assign(kind=kind, primary=primary == "yes").reset_index(drop=True)


def matching(panel: Panel) -> pd.DataFrame:
    """Published numbers of training-free methods, from their own papers, for a panel's data set,
    conditioning and regime, lowest NFE first.

    Empty unless the panel is of their extractor, number of samples and reference statistics: no other FID may
    be compared with these.
    """
    everything = published()
    protocol = _PROTOCOLS.get(panel.key["model"].removesuffix("_baseline"))
    same = (panel.key["extractor"], panel.key["samples"]) == (EXTRACTOR, SAMPLES)
    references = set(as_text(panel.rows, "reference")) - {MISSING}  # of a skipped row none is known
    if protocol is None or not same or references != {protocol.reference}:
        return everything.iloc[:0]
    wanted = {"dataset": protocol.dataset, "conditioning": protocol.conditioning}
    wanted |= {"kind": "training-free", "primary": True}
    wanted["regime"] = REGIME_NAMES.get(panel.key["regime"], panel.key["regime"])
    fits = (everything[list(wanted)] == pd.Series(wanted)).all(axis=1)
    fits &= everything["resolution"].isin([protocol.resolution, math.nan])
    return take(everything, fits).sort_values(["nfe", "fid"], kind="stable", ignore_index=True)
