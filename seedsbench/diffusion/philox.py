"""Philox-4x32-10, a counter-based generator (Salmon et al. 2011), and what is made of its words.

A counter-based generator has no state: word = f(key, counter). Naming what a random number belongs
to (seed, stream, sample, draw, position) in the key and counter is therefore enough to get the same
number whatever the batch size, order, rank or restart.

Everything after the integer rounds uses only IEEE-exact operations (+, -, *, /, sqrt and scaling
by powers of two), never a library `log` or `cos`: those may round differently in the vectorised
body and the scalar tail of a loop, between builds, and between CPU and GPU (see `diffusion.ieee`).
The polynomials chosen below are good to about 1e-12 relative, and normals come out bitwise equal on
every IEEE device.
"""

import math

import torch
from torch import Tensor

from seedsbench.diffusion import ieee

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
ROUNDS = 10

LOG_TERMS = ieee.LOG_TERMS[:8]
SIN_TERMS = tuple((-1) ** k * (math.pi / 2) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(7))
COS_TERMS = tuple((-1) ** k * (math.pi / 2) ** (2 * k) / math.factorial(2 * k) for k in range(8))


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32 on int64 tensors that hold 32-bit words.

    counter: four broadcastable int64 tensors with values in [0, 2**32). key: two such integers.
    Returns four int64 tensors with values in [0, 2**32). The product of two 32-bit words overflows
    only into the sign bit of int64, so the masked shifts below are exact.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = ((p1 >> 32) & WORD) ^ c1 ^ k0
        c2 = ((p0 >> 32) & WORD) ^ c3 ^ k1
        c1, c3 = p1 & WORD, p0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def uniform(words: Tensor) -> Tensor:
    """(word + 1/2) 2^-32: float64 in the open interval (0, 1)."""
    return (words.double() + 0.5) * 2.0**-32


def _cos_sin(words: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi (word + 1/2) 2^-32, by quarter turns: r in [-1/2, 1/2) of a quarter."""
    quarter = (words + (1 << 29)) >> 30
    r = ((words - (quarter << 30)).double() + 0.5) * 2.0**-30
    square = r * r
    s, c = r * ieee.horner(square, SIN_TERMS), ieee.horner(square, COS_TERMS)
    swap = (quarter & 1).bool()
    cos_sign = 1.0 - ((quarter + 1) & 2).double()
    sin_sign = 1.0 - (quarter & 2).double()
    return torch.where(swap, s, c) * cos_sign, torch.where(swap, c, s) * sin_sign


def box_muller(words_r: Tensor, words_angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (float64, |z| < 6.8) from two 32-bit words."""
    radius = (-2.0 * ieee.log(uniform(words_r), LOG_TERMS)).sqrt()
    cos, sin = _cos_sin(words_angle)
    return radius * cos, radius * sin


def philox_normal(indices: Tensor, n_values: int, *, seed: int, stream: int, draw: int) -> Tensor:
    """Standard normals, shape (B, n_values), float64, one row for each sample index.

    indices: (B,) int64 in [0, 2**32); seed in [0, 2**64); stream and draw in [0, 2**32). A value is
    a pure function of (seed, stream, draw, its sample index, its position).
    """
    blocks = -(-n_values // 4)
    words = torch.cat(_words(indices, blocks, seed, stream, draw), dim=1)
    half = 2 * blocks
    normals = torch.cat(box_muller(words[:, :half], words[:, half:]), dim=1)
    return normals[:, :n_values].contiguous()


def philox_uniform(indices: Tensor, n_values: int, *, seed: int, stream: int, draw: int) -> Tensor:
    """Uniforms in (0, 1), shape (B, n_values), float64, keyed as in `philox_normal`."""
    words = torch.cat(_words(indices, -(-n_values // 4), seed, stream, draw), dim=1)
    return uniform(words[:, :n_values])


def philox_words(indices: Tensor, *, seed: int, stream: int, draw: int) -> Tensor:
    """One 32-bit word for each sample index, (B,) int64."""
    return _words(indices, 1, seed, stream, draw)[0][:, 0]


def _words(indices: Tensor, blocks: int, seed: int, stream: int, draw: int) -> tuple[Tensor, ...]:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is out of range: it must be an integer in [0, 2**64)")
    row = indices.to(torch.int64)[:, None]
    position = torch.arange(blocks, dtype=torch.int64, device=indices.device)[None, :]
    zero = torch.zeros((), dtype=torch.int64, device=indices.device)
    counter = (position + zero, zero + draw, zero + stream, row)
    return tuple(word.expand(row.shape[0], blocks) for word in philox4x32(counter, (seed & WORD, seed >> 32)))
