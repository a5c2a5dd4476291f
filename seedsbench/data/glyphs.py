"""The embedded data set: 16x16 RGB pictures of ten shapes, drawn on demand from a formula.

Unlimited and fresh: training, reference and floor use separate streams of one counter-based
generator, so no picture is ever shared by accident and no file has to be shipped. A picture is
`label` + six factors (position, radius, rotation, stroke, hue), rendered from a signed distance
(negative inside) with one pixel of anti-aliasing.

Only +, -, *, /, sqrt, abs, min and max are used, so a picture is bitwise the same whatever the
batch it is drawn in (library sin and cos are not: vector body and scalar tail may round differently).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seedsbench.data.embedded_set import EmbeddedSet
from seedsbench.exact.philox import philox_uniform

SIZE = 16
CLASSES = ("disk", "triangle", "square", "star", "plus", "crescent", "heart", "half_disc", "arc", "bar")
GLYPHS = EmbeddedSet(
    "glyphs", shape=(3, SIZE, SIZE), classes=CLASSES, targets=7
)  # a hue is two: it is an angle
ASSETS = GLYPHS.assets

# Streams of the generator: which set of pictures an index counts in.
TRAIN, REFERENCE, FLOOR, FEATURE_TRAIN = 0x100, 0x101, 0x102, 0x103

BACKGROUND = (0.07, 0.07, 0.12)  # RGB in [0, 1]
SATURATION, VALUE = 0.7, 1.0
_CHUNK = 2048  # pictures rendered at a time: keeps the temporaries inside the cache


# Range of each generating factor, in units of half the picture (rotation in radians, hue in turns).
FACTORS = {
    "x": (-0.11, 0.11),
    "y": (-0.11, 0.11),
    "radius": (0.50, 0.72),
    "rotation": (-0.3, 0.3),
    "stroke": (0.13, 0.20),
    "hue": (0.0, 1.0),
}


class _Frame(NamedTuple):
    """Pixel centres in a shape's own frame (x right, y up), (n, 256), and its sizes, (n, 1)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    stroke: Tensor


def factors(indices: Tensor, *, seed: int, stream: int) -> Tensor:
    """Factors of pictures `indices` (n,) int64, scaled to [-1, 1]: (n, 6) float64 in FACTORS order."""
    return philox_uniform(indices, 8, seed=seed, stream=stream, draw=0)[:, : len(FACTORS)] * 2 - 1


def glyphs(indices: Tensor, labels: Tensor, *, seed: int, stream: int) -> Tensor:
    """Pictures (n, 3, 16, 16) float32 in [-1, 1]; the i-th depends on seed, stream, index and label i.

    indices: (n,) int64 in [0, 2**32). labels: (n,) int64 in [0, 10).
    """
    return render(labels, factors(indices, seed=seed, stream=stream))


def render(labels: Tensor, factors: Tensor) -> Tensor:
    """Draw labels (n,) int64 with factors (n, 6) in [-1, 1]: images (n, 3, 16, 16) float32 in [-1, 1]."""
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(CLASSES):
        raise ValueError(f"class {int(labels.min())}..{int(labels.max())} is out of range: use 0..9")
    images = torch.empty(len(labels), 3, SIZE, SIZE)
    low, high = torch.tensor(list(FACTORS.values()), dtype=torch.float64).T
    physical = low + (factors.double() + 1) / 2 * (high - low)
    for label, name in enumerate(CLASSES):
        for chosen in (labels == label).nonzero()[:, 0].split(_CHUNK):
            rows = physical[chosen]
            distance = _DISTANCES[name](_frame(rows))
            images[chosen] = _paint(distance, rows[:, 5])
    return images


def _frame(rows: Tensor) -> _Frame:
    """Rotate and shift the pixel grid into the frame of each shape. rows: (n, 6) physical factors."""
    centres = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    x = centres.repeat(SIZE)[None, :] - rows[:, 0:1].float()
    y = -centres.repeat_interleave(SIZE)[None, :] - rows[:, 1:2].float()
    angle = rows[:, 3:4]
    square = angle * angle
    # Taylor series in float64: |angle| <= 0.3, so these are exact to 1e-11.
    cos = (1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))).float()
    sin = (angle * (1 - square / 6 * (1 - square / 20 * (1 - square / 42)))).float()
    return _Frame(cos * x + sin * y, cos * y - sin * x, rows[:, 2:3].float(), rows[:, 4:5].float())


def _paint(distance: Tensor, hue: Tensor) -> Tensor:
    """Blend foreground over background by pixel coverage. distance: (n, 256); hue: (n,) in [0, 1)."""
    coverage = (0.5 - distance * (SIZE / 2)).clamp(0, 1).reshape(-1, 1, SIZE, SIZE)
    foreground = (_rgb(hue) * 2 - 1).float()[:, :, None, None]
    background = torch.tensor(BACKGROUND).reshape(1, 3, 1, 1) * 2 - 1
    return background + coverage * (foreground - background)


def _rgb(hue: Tensor) -> Tensor:
    """HSV -> RGB at fixed saturation and value: (n,) in [0, 1) -> (n, 3) in [0, 1]."""
    corner = hue[:, None] * 6 + torch.tensor([[0.0, 4.0, 2.0]], dtype=hue.dtype)
    corner = torch.where(corner >= 6, corner - 6, corner)
    return VALUE * (1 - SATURATION * (1 - ((corner - 3).abs() - 1).clamp(0, 1)))


def _norm(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def _box(x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    return torch.maximum(x.abs() - width, y.abs() - height)


def _triangle(f: _Frame) -> Tensor:
    # Three half planes at the inradius; moved down so that the bounding box is centred.
    y = f.y + 0.22 * f.radius
    slanted = (math.sqrt(3) / 2) * f.x.abs() + 0.5 * y
    return torch.maximum(slanted, -y) - 0.56 * f.radius


def _star(f: _Frame) -> Tensor:
    # Mirrors fold the plane onto one tenth of the star (between a tip and a notch); one edge remains.
    x, y = _mirror(f.x.abs(), f.y + 0.05 * f.radius, math.radians(18))
    x, y = _mirror(x.abs(), y, math.radians(54))
    tip = 1.18 * f.radius
    notch_x, notch_y = 0.45 * math.sin(math.pi / 5), 0.45 * math.cos(math.pi / 5)
    return (x * (1 - notch_y) + (y - tip) * notch_x) / math.hypot(1 - notch_y, notch_x)


def _mirror(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Reflect what lies clockwise of the line through the origin at `angle` to its other side."""
    normal_x, normal_y = -math.sin(angle), math.cos(angle)
    depth = 2 * (normal_x * x + normal_y * y).clamp(max=0)
    return x - depth * normal_x, y - depth * normal_y


def _plus(f: _Frame) -> Tensor:
    arm = 1.05 * f.radius
    return torch.minimum(_box(f.x, f.y, arm, f.stroke), _box(f.x, f.y, f.stroke, arm))


def _crescent(f: _Frame) -> Tensor:
    x = f.x - 0.15 * f.radius
    bite = 0.85 * f.radius - _norm(x - 0.55 * f.radius, f.y)
    return torch.maximum(_norm(x, f.y) - 1.05 * f.radius, bite)


def _heart(f: _Frame) -> Tensor:
    # A square on its corner, and a disk on each of its upper sides.
    half = 0.9 * f.radius
    x, y = f.x.abs(), f.y + 0.1 * half
    diamond = (x + y.abs() - half) * math.sqrt(0.5)
    lobe = _norm(x - 0.5 * half, y - 0.5 * half) - math.sqrt(0.5) * half
    return torch.minimum(diamond, lobe)


def _half_disc(f: _Frame) -> Tensor:
    y = f.y + 0.5 * f.radius
    return torch.maximum(_norm(f.x, y) - 1.1 * f.radius, -y)


def _arc(f: _Frame) -> Tensor:
    ring = (_norm(f.x, f.y) - 0.85 * f.radius).abs() - f.stroke
    opening = (-f.y - 0.6 * f.x.abs()) / math.hypot(1, 0.6)
    return torch.maximum(ring, opening)


_DISTANCES: dict[str, Callable[[_Frame], Tensor]] = {
    "disk": lambda f: _norm(f.x, f.y) - f.radius,
    "triangle": _triangle,
    "square": lambda f: _box(f.x, f.y, 0.82 * f.radius, 0.82 * f.radius),
    "star": _star,
    "plus": _plus,
    "crescent": _crescent,
    "heart": _heart,
    "half_disc": _half_disc,
    "arc": _arc,
    "bar": lambda f: _box(f.x, f.y, 1.1 * f.radius, f.stroke),
}
