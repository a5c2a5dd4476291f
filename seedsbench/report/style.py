"""How curves look, and how axes are written.

The family of a solver fixes hue and marker, its order the shade, so that a solver has one colour in every
figure. Hues follow Okabe and Ito (2008) and Tol (2021), told apart under the common kinds of colour
blindness; the marker repeats the family for those who see no hue at all.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from scipy.optimize import isotonic_regression

REGIME_NAMES = {"vp": "VP", "ve": "VE", "iddpm": "iDDPM", "edm": "EDM", "flow": "Flow"}
INK, GREY, PALE = "#222222", "#6b6b6b", "#e6e6e6"
DARK_GROUND = "#14171c"  # of the page, as in assets/report.css

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "text.parse_math": False,  # text of a row is no formula
    "svg.hashsalt": "seedsbench",  # else every SVG has random element ids
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


class Family(NamedTuple):
    """A family of solvers: its name in words, and the hue and marker of its curves."""

    title: str
    hue: str
    marker: str


# By what solvers declare as their `family` (`solver_family` in a row), in the order of tables and legends.
SOLVER_FAMILIES = {
    "seeds": Family("SEEDS", "#d55e00", "o"),
    "etd": Family("Exponential Runge-Kutta (ODE)", "#c99700", "D"),
    "edm": Family("EDM", "#0072b2", "s"),
    "ddim": Family("DDIM, DDPM", "#009e73", "^"),
    "dpm_solver": Family("DPM-Solver", "#aa3377", "P"),
    "k_diffusion": Family("k-diffusion", "#5b4fa2", "h"),
    "er_sde": Family("ER-SDE", "#cc6677", ">"),
    "score_sde": Family("Score SDE", "#3a9fc9", "v"),
    "multistep": Family("Linear multistep", "#7a6a2f", "X"),
    "runge_kutta": Family("Runge-Kutta", "#333333", "*"),
    "adaptive": Family("Adaptive steps", "#51687f", "<"),
    "diffusers": Family("diffusers' schedulers", "#8c510a", "d"),
    "learned": Family("Learned", "#b5467a", "H"),
    "other": Family("Others", "#777777", "p"),
}
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)), (0, (7, 2)))


class Look(NamedTuple):
    """A curve's family, its colour (that of its label too) on paper and on the dark page, and its line."""

    family: Family
    colour: str
    dark: str
    line: Any


def family_of(name: str | None) -> Family:
    """A solver's family; the last one where we do not know it.

    >>> family_of("seeds").title, family_of("mine").title
    ('SEEDS', 'Others')
    """
    return SOLVER_FAMILIES.get(name or "other", SOLVER_FAMILIES["other"])


def solver_rank(solver: str, family: str | None, order: float) -> tuple[int, float, str]:
    """Sort key of tables and legends: family, highest order first, name."""
    return (list(SOLVER_FAMILIES.values()).index(family_of(family)), -order, solver)


def looks_of(curves: pd.DataFrame) -> dict[str, Look]:
    """A look for each curve: a table by curve, with the solver's `solver_family` and `order`.

    The higher the order, the stronger the shade: from what is just legible towards black, on the dark page
    towards white.
    Curves of one colour are told apart by their dashes.
    """
    looks: dict[str, Look] = {}
    drawn: Counter[str] = Counter()
    for curve, name, order in curves[["solver_family", "order"]].itertuples():
        family = family_of(name)
        amount = float(np.interp(order, (1, 4), (0, 0.4)))
        colour = shade(legible(family.hue), -amount)
        dark = shade(legible(family.hue, ground=DARK_GROUND), amount)
        looks[str(curve)] = Look(family, colour, dark, DASHES[drawn[colour] % len(DASHES)])
        drawn[colour] += 1
    return looks


def shade(colour: str, amount: float) -> str:
    """Mix a '#rrggbb' with white (amount > 0) or black (amount < 0)."""
    target = float(amount > 0)
    red, green, blue = (c + (target - c) * abs(amount) for c in to_rgb(colour))
    return to_hex((red, green, blue))


def legible(colour: str, ground: str = "#ffffff") -> str:
    """The colour made darker, or lighter on a dark ground, until their contrast is 4.5 (WCAG AA).

    >>> legible("#d55e00", ground="#14171c"), legible("#333333", ground="#14171c")
    ('#d55e00', '#858585')
    """
    step = 0.05 if luminance(ground) < 0.18 else -0.05
    mixed = (shade(colour, step * k) for k in range(21))
    return next(found for found in mixed if contrast(found, ground) >= 4.5)


def contrast(colour: str, ground: str = "#ffffff") -> float:
    """WCAG contrast ratio of two colours, 1 to 21."""
    dark, light = sorted((luminance(colour), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """WCAG relative luminance: 0 (black) to 1 (white)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def feature_name(extractor: str) -> str:
    """The extractor in words, for axes: 'glyphs-64d' -> 'glyphs 64-d features'."""
    named = {"pixels": "raw pixels", "inception-v3": "Inception-v3", "?": "extractor not recorded"}
    named |= {"trajectory": "RMS"}
    for size in "SBL":
        vit = f"dinov2-vit-{size.lower()}-14"
        named |= {f"{vit}-bicubic": f"DINOv2 ViT-{size}/14", vit: f"DINOv2 ViT-{size}/14 (TF1 resize)"}
    if extractor in named:
        return named[extractor]
    words = re.sub(r"(\d+)d\b", r"\1-d", extractor.replace("-", " ").replace("_", " "))
    return words if words.endswith("features") else f"{words} features"


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Positions nearest (least squares) to `wanted`, `gap` apart and within [low, high], same order."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    # Less its step each position is only to be no lower than the one before: isotonic regression.
    rising = isotonic_regression(np.asarray(wanted, float)[order] - steps).x
    placed = np.empty(len(order))
    placed[order] = np.clip(rising, low, max(low, high - gap * (len(order) - 1))) + steps
    return placed


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high] for a log axis: the finest ladder that has at most `most`."""
    finest = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    ladders = (finest, (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for ladder in ladders:
        ticks = [float(f"{step}e{decade}") for decade in decades for step in ladder]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) >= 2:
        return ticks[:: math.ceil(len(ticks) / most)]
    finest = 10 ** math.floor(math.log10((high - low) / 2))
    for step in (finest, 2 * finest, 5 * finest, 10 * finest):
        within = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(within) <= most:
            break
    return [round(k * step, 12) for k in within]


def plain_number(value: float, *_: object) -> str:
    """A number as people write it: 0.05, 20, 2,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def padded(values: np.ndarray, share: float, least: float) -> tuple[float, float]:
    """Limits around positive values with a margin in log space; at least a factor `least` apart."""
    low, high = math.log(values.min()), math.log(values.max())
    pad = max(share * (high - low), (math.log(least) - (high - low)) / 2)
    return math.exp(low - pad), math.exp(high + pad)


@contextmanager
def missing_glyphs_as_boxes() -> Iterator[None]:
    """A glyph that the font has not is drawn as a box, without matplotlib's warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def text_inches(text: str, points: float) -> float:
    """Width of a text in the figures' font."""
    font = FontProperties(family="DejaVu Sans", size=points)
    with missing_glyphs_as_boxes():
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / 72
