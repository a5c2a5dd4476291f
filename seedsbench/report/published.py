"""Published scores to compare with: numbers printed in papers, with where they stand.

assets/published.csv has a row a number: dataset, resolution, network, conditioning, regime, solver, NFE, FID,
IS, source and place. Notes say whether the method is training-free, searched or learned, and whether the
source is the method's own paper ("primary"). They were measured by others, with other code. `overrides` are
those of the command here that is to make the number again, where its protocol is known (`printed.py`).
"""

import math
from functools import cache
from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import Panel
from seedsbench.report.rows import take
from seedsbench.report.style import REGIME_NAMES

PUBLISHED = Path(__file__).parent / "assets" / "published.csv"
# model of a row: dataset, resolution and conditioning in the file
_DATASETS = {
    "cifar10_uncond": ("CIFAR-10", 32, "uncond"),
    "cifar10_cond": ("CIFAR-10", 32, "cond"),
    "ffhq64": ("FFHQ", 64, "uncond"),
    "afhqv2": ("AFHQv2", 64, "uncond"),
    "imagenet64": ("ImageNet", 64, "cond"),
    "celeba64": ("CelebA", 64, "uncond"),
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

    Empty unless the panel is scored on Inception features: no other FID may be compared with these.
    """
    everything = published()
    model = panel.key["model"].removesuffix("_baseline")
    if model not in _DATASETS or not panel.key["extractor"].startswith("inception"):
        return everything.iloc[:0]
    dataset, resolution, conditioning = _DATASETS[model]
    wanted = {"dataset": dataset, "conditioning": conditioning, "kind": "training-free", "primary": True}
    wanted["regime"] = REGIME_NAMES.get(panel.key["regime"], panel.key["regime"])
    fits = (everything[list(wanted)] == pd.Series(wanted)).all(axis=1)
    fits &= everything["resolution"].isin([resolution, math.nan])
    return take(everything, fits).sort_values(["nfe", "fid"], kind="stable", ignore_index=True)
