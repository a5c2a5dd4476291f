"""How curves look: fixed colours and markers a solver family, fixed shades a solver, plain log ticks.

Nothing here depends on what else a study holds, so that a solver looks the same in every figure. Hues
follow Okabe and Ito (2008) and Tol (2021), told apart under the common kinds of colour blindness; the
marker repeats the family for those who see no hue at all.
"""

import math
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags

OVERSAMPLED = 10  # widths are measured at so many pixels a point, beyond which rounding is not seen
REGIME_NAMES = {"vp": "VP", "ve": "VE", "iddpm": "iDDPM", "edm": "EDM"}
INK, GREY, PALE = "#222222", "#6b6b6b", "#e6e6e6"

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
    "svg.hashsalt": "seedsbench",  # else every SVG has random element ids
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

# family: hue, marker, solvers in their fixed order (dark to light)
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "seeds": ("#d55e00", "o", ("seeds3", "seeds3_asreleased", "seeds2", "seeds1")),
    "etd": ("#c99700", "D", ("etd_erk4", "etd_erk3", "etd_erk2", "etd_erk1")),
    "edm": ("#0072b2", "s", ("heun", "karras_sde", "euler", "karras_ve", "restart")),
    "ddim": ("#009e73", "^", ("ddim", "ddpm")),
    "dpm": (
        "#aa3377",
        "P",
        (
            *("dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "dpm_solver3", "dpm_solver2", "dpm_solver1"),
            *("dpm2", "dpm_fast", "dpm_adaptive"),
        ),
    ),
    "dpm_sde": (
        "#5b4fa2",
        "h",
        (
            *("dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "dpmpp_2s_ancestral", "dpm2_ancestral"),
            *("euler_ancestral", "sa_solver", "er_sde"),
        ),
    ),
    "score_sde": ("#3a9fc9", "v", ("pc_vp", "pc_ve", "pc_subvp", "euler_maruyama", "adaptive_sde")),
    "multistep": ("#7a6a2f", "X", ("unipc", "deis", "ipndm", "ipndm_v", "lms", "pndm")),
    "runge_kutta": ("#333333", "*", ("rk4", "dopri5", "rk45", "midpoint")),
    "other": ("#777777", "p", ()),
}
FAMILY_NAMES = {
    "seeds": "SEEDS",
    "etd": "Exponential Runge-Kutta (ODE)",
    "edm": "EDM",
    "ddim": "DDIM, DDPM",
    "dpm": "DPM-Solver (ODE)",
    "dpm_sde": "DPM-Solver++ and others (SDE)",
    "score_sde": "Score SDE",
    "multistep": "Linear multistep",
    "runge_kutta": "Runge-Kutta",
    "other": "Others",
}
ALIASES = {
    "exponential": "etd",
    "exponential_twins": "etd",
    "exponential_ode": "etd",
    "etd_erk": "etd",
    "karras": "edm",
    "ddpm": "ddim",
    "dpm_solver": "dpm",
    "dpm_solver_pp": "dpm",
    "dpmpp": "dpm",
    "score": "score_sde",
    "rk": "runge_kutta",
}
PREFIXES = {"seeds": "seeds", "etd": "etd", "dpm": "dpm", "ddim": "ddim", "ddpm": "ddim", "pc_": "score_sde"}
# Lightness steps within a family: below zero towards black, above towards white.
SHADES = (0.0, -0.32, 0.3, 0.52, -0.55, 0.15, -0.18, 0.42, -0.44, 0.6)
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)), (0, (7, 2)))
FIXED_SHADES = {"seeds3": 0.0, "seeds3_asreleased": -0.35, "seeds2": 0.3, "seeds1": 0.52}
FIXED_DASH = {"seeds3_asreleased": 1}


@dataclass(frozen=True)
class Look:
    """A curve's colour, the darker colour its label is legible in, its marker and its line style."""

    colour: str
    text: str
    marker: str
    line: Any


def family_of(solver: str, family: str | None = None) -> str:
    """The family a solver is known under, else the one its row names, else by prefix, else 'other'.

    >>> family_of("seeds3_mine"), family_of("mine"), family_of("mine", "DPM-Solver++")
    ('seeds', 'other', 'dpm')
    """
    for name, (_, _, members) in FAMILIES.items():
        if solver in members:
            return name
    named = re.sub(r"[^a-z0-9]+", "_", str(family or "").lower().replace("++", "pp")).strip("_")
    named = ALIASES.get(named, named)
    if named in FAMILIES and named != "other":
        return named
    starts = (*PREFIXES.items(), *((f"{known}_", known) for known in FAMILIES))
    for start, known in starts:
        if solver.startswith(start) or named.startswith(start):
            return known
    return "other"


def solver_rank(solver: str, family: str | None = None) -> tuple[int, int, str]:
    """Sort key: family, place within it, name."""
    known = family_of(solver, family)
    members = FAMILIES[known][2]
    place = members.index(solver) if solver in members else len(members)
    return (list(FAMILIES).index(known), place, solver)


def look(solver: str, family: str | None = None, variant: int = 0) -> Look:
    """The fixed look of a solver; `variant` numbers its parameter sets within one figure."""
    known = family_of(solver, family)
    hue, marker, members = FAMILIES[known]
    # A solver we do not know takes a place by its name, so that it keeps its look between studies.
    place = members.index(solver) if solver in members else zlib.crc32(solver.encode())
    colour = shade(hue, FIXED_SHADES.get(solver, SHADES[place % len(SHADES)]))
    dash = DASHES[(FIXED_DASH.get(solver, 0) + variant) % len(DASHES)]
    # Light shades carry their family's hue in the label: darkened themselves they would turn brown.
    text = legible(colour if contrast(colour) > contrast(hue) else hue)
    return Look(colour, text, marker, dash)


def shade(colour: str, amount: float) -> str:
    """Mix a '#rrggbb' with white (amount > 0) or black (amount < 0)."""
    target = 255 if amount > 0 else 0
    mixed = [round(c + (target - c) * abs(amount)) for c in _rgb(colour)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def legible(colour: str) -> str:
    """The colour darkened until it has a contrast of 4.5 with white (WCAG AA)."""
    for step in range(20):
        darker = shade(colour, -0.05 * step)
        if contrast(darker) >= 4.5:
            return darker
    return INK


def contrast(colour: str) -> float:
    """WCAG contrast ratio with white: 1 (white) to 21 (black)."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in _rgb(colour)]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def feature_name(extractor: str) -> str:
    """The extractor in words, for axes: 'glyphs-64d' -> 'glyphs 64-d features'."""
    named = {"pixels": "raw pixels", "inception-v3": "Inception-v3", "?": "extractor not recorded"}
    named |= {f"dinov2-vit-{size.lower()}-14": f"DINOv2 ViT-{size}/14" for size in "SBL"}
    if extractor in named:
        return named[extractor]
    words = re.sub(r"(\d+)d\b", r"\1-d", extractor.replace("-", " ").replace("_", " "))
    return words if words.endswith("features") else f"{words} features"


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Positions nearest (least squares) to `wanted`, `gap` apart and within [low, high], same order.

    With y_i = z_i + i*gap this is isotonic regression of z: pool neighbours that violate the order.
    """
    order = np.argsort(wanted, kind="stable")
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(wanted, float)[order] - gap * np.arange(len(order)):
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    z = np.repeat([value for value, _ in blocks], [count for _, count in blocks])
    z = np.clip(z, low, max(low, high - gap * (len(order) - 1)))
    placed = np.empty(len(order))
    placed[order] = z + gap * np.arange(len(order))
    return placed


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high] for a log axis: the finest ladder that has at most `most`."""
    ladders = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5, 7))
    ladders = (*ladders, (1, 2, 5), (1, 3), (1,))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for ladder in ladders:
        ticks = [float(f"{step}e{decade}") for decade in decades for step in ladder]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) >= 2:
        return ticks[:: math.ceil(len(ticks) / most)]
    step = 10 ** math.floor(math.log10((high - low) / 2))
    return [
        round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ][:most]


def plain(value: float, *_: object) -> str:
    """A number as people write it: 0.05, 20, 2,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def padded(values: np.ndarray, share: float, least: float) -> tuple[float, float]:
    """Limits around positive values with a margin in log space; at least a factor `least` apart."""
    low, high = math.log(values.min()), math.log(values.max())
    pad = max(share * (high - low), (math.log(least) - (high - low)) / 2)
    return math.exp(low - pad), math.exp(high + pad)


def text_inches(text: str, points: float) -> float:
    """Width of a text in the figures' font."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(points, 72 * OVERSAMPLED)
    font.set_text(text, 0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 / 72 / OVERSAMPLED
