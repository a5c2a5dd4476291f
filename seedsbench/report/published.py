"""Published scores to compare with: numbers printed in papers, with where they stand.

assets/published.csv has a row a number: dataset, resolution, network, conditioning, regime, solver, NFE, FID,
IS, source and place. Notes say whether the method is training-free, searched or learned, and whether the
source is the method's own paper ("primary"). They were measured by others, with other code.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from seedsbench.report.pareto import Panel
from seedsbench.report.rows import take
from seedsbench.report.style import REGIME_NAMES

FILE = Path(__file__).parent / "assets" / "published.csv"
# model of a row: dataset, resolution and conditioning in the file
DATASETS = {
    "cifar10_uncond": ("CIFAR-10", 32, "uncond"),
    "cifar10_cond": ("CIFAR-10", 32, "cond"),
    "ffhq64": ("FFHQ", 64, "uncond"),
    "afhqv2": ("AFHQv2", 64, "uncond"),
    "imagenet64": ("ImageNet", 64, "cond"),
    "celeba64": ("CelebA", 64, "uncond"),
}


@dataclass(frozen=True)
class Choice:
    """Which of the published numbers are shown. primary: only a method's own paper."""

    classes: tuple[str, ...] = ("training-free",)
    primary: bool = True


@cache
def published() -> pd.DataFrame:
    """All rows that have an NFE and an FID, with the columns `kind` and `primary` taken from the notes."""
    df = pd.read_csv(FILE)
    df = df.assign(
        kind=df["note"].map(lambda note: _noted(note, "class")),
        primary=df["note"].map(lambda note: _noted(note, "primary") == "yes"),
    )
    return take(df, df["nfe"].notna() & df["fid"].notna()).reset_index(drop=True)


def matching(panel: Panel, choice: Choice = Choice()) -> pd.DataFrame:
    """Published numbers for a panel's data set, conditioning and regime, lowest NFE first.

    Empty unless the panel is scored on Inception features: no other FID may be compared with these.
    """
    everything = published()
    model = panel.key["model"].removesuffix("_baseline")
    if model not in DATASETS or not panel.key["extractor"].startswith("inception"):
        return everything.iloc[:0]
    dataset, resolution, conditioning = DATASETS[model]
    regime = REGIME_NAMES.get(panel.key["regime"], panel.key["regime"])
    fits = (
        (everything["dataset"] == dataset)
        & ((everything["resolution"] == resolution) | everything["resolution"].isna())
        & (everything["conditioning"] == conditioning)
        & (everything["regime"] == regime)
        & everything["kind"].isin(choice.classes)
        & (everything["primary"] | (not choice.primary))
    )
    return take(everything, fits).sort_values(["nfe", "fid"], kind="stable").reset_index(drop=True)


def _noted(note: object, name: str) -> str:
    found = re.search(rf"\b{name}=([^;]+)", str(note))
    return found[1].strip() if found else ""
