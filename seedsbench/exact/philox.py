"""Philox-4x32-10, a counter-based generator (Salmon et al. 2011), and what is made of its words.

A counter-based generator has no state: word = f(key, counter). Naming what a random number belongs
to (seed, stream, sample, draw, position) in the key and counter is therefore enough to get the same
number whatever the batch size, order, rank or restart.

Everything after the integer rounds uses only operations that IEEE 754 defines exactly (as in
exact/same_bits.py) and work on the bits of a float64. The polynomials are good to about 1e-12 relative. What
is left is torch's own sqrt: where torch has MKL, one float64 root in a hundred is off by its last bit on the
CPU (always the same, wherever it stands), so that other machines agree to 1e-15 rather than bit by bit.
"""

import math
import struct

import torch
from torch import Tensor

from seedsbench.exact import same_bits

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
ROUNDS = 10

COUNTERS_PER_THREAD = 1 << 14  # at a time: their dozen temporaries fit a processor's own cache
SIGN = -(1 << 63)

RADIUS_TERMS = tuple(-2 * term for term in same_bits.LOG_TERMS[:8])
SQRT_HALF = struct.unpack("<q", struct.pack("<d", math.sqrt(0.5)))[0]
SIN_TERMS = tuple((-1) ** k * (math.pi / 2) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(7))
COS_TERMS = tuple((-1) ** k * (math.pi / 2) ** (2 * k) / math.factorial(2 * k) for k in range(8))


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32 on int64 tensors that hold 32-bit words.

    counter: four broadcastable int64 tensors with values in [0, 2**32). key: two such integers.
    Returns four int64 tensors with values in [0, 2**32). The product of two 32-bit
    words overflows only into the sign bit of int64, so the masked shifts below are exact.
    """
    c0, c1, c2, c3 = (
        c.clone(memory_format=torch.contiguous_format) for c in torch.broadcast_tensors(*counter)
    )
    k0, k1 = key
    for _ in range(ROUNDS):  # in place: c1 and c3 are whole products, cut to their low words by the next mask
        c0.mul_(MULTIPLIERS[0])
        c2.mul_(MULTIPLIERS[1])
        c1.bitwise_xor_(c2 >> 32).bitwise_and_(WORD).bitwise_xor_(k0)
        c3.bitwise_xor_(c0 >> 32).bitwise_and_(WORD).bitwise_xor_(k1)
        c0, c1, c2, c3 = c1, c2, c3, c0
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1.bitwise_and_(WORD), c2, c3.bitwise_and_(WORD)


def uniform(words: Tensor, bits: int = 32) -> Tensor:
    """(word + 1/2) 2^-bits, float64 and exact; for 32 in the open interval (0, 1)."""
    e = 52 - bits  # the word is put into the last bits of 2^e, and 2^e taken away again
    return (words | (1023 + e) << 52).view(torch.float64).sub_(2.0**e - 2.0 ** -(bits + 1))


def _radius(words: Tensor) -> Tensor:
    """sqrt(-2 log u) of u = (word + 1/2) 2^-32 = m 2^e m in [sqrt(1/2), sqrt(2)): see `same_bits.log`."""
    u = uniform(words).view(torch.int64)
    exponent = (u - SQRT_HALF) >> 52
    m = (u - (exponent << 52)).view(torch.float64)
    s = (m - 1).div_(m + 1)
    series = same_bits.horner(s * s, RADIUS_TERMS).mul_(s)
    return exponent.double().mul_(-2 * math.log(2.0)).add_(series).sqrt_()


def _cos_sin(words: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi (word + 1/2) 2^-32, by quarter turns: r in [-1/2, 1/2) of a quarter."""
    turn = uniform(words, 30)
    quarter = turn + 2.0**52  # rounds to whole quarters, whose number is now in the last bits
    r = turn.sub_(quarter - 2.0**52)
    square = r * r
    sin, cos = same_bits.horner(square, SIN_TERMS).mul_(r), same_bits.horner(square, COS_TERMS)
    s, c, q = (value.view(torch.int64) for value in (sin, cos, quarter))
    swap = (s ^ c).bitwise_and_(-(q & 1))
    s.bitwise_xor_(swap).bitwise_xor_((q << 62).bitwise_and_(SIGN))
    c.bitwise_xor_(swap).bitwise_xor_((q + 1 << 62).bitwise_and_(SIGN))
    return c.view(torch.float64), s.view(torch.float64)


def box_muller(words_r: Tensor, words_angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (float64, |z| < 6.8) from two 32-bit words."""
    radius, (cos, sin) = _radius(words_r), _cos_sin(words_angle)
    return cos.mul_(radius), sin.mul_(radius)


def philox_normal(indices: Tensor, n_values: int, *, seed: int, stream: int, draw: int) -> Tensor:
    """Standard normals, shape (B, n_values), float64, one row for each sample index.

    indices: (B,) int64 in [0, 2**32); seed in [0, 2**64); stream and draw in [0, 2**32). A value is
    a pure function of (seed, stream, draw, its sample index, its position).
    """
    row, position, names, key = _counter(indices, -(-n_values // 4), seed, stream, draw)
    normals = torch.empty(len(row), 4, position.shape[1], dtype=torch.float64, device=row.device)
    # Many passes over little memory, which stays in the processor's cache, rather than the other way round.
    size = COUNTERS_PER_THREAD * torch.get_num_threads() if row.device.type == "cpu" else normals.numel()
    high = max(1, size // max(1, position.shape[1]))
    for rows, some in zip(row.split(high), normals.split(high), strict=True):
        for columns, part in zip(position.split(size, 1), some.split(size, 2), strict=True):
            c0, c1, c2, c3 = philox4x32((columns, *names, rows), key)
            part[:, :2], part[:, 2:] = box_muller(torch.stack((c0, c1), 1), torch.stack((c2, c3), 1))
    return normals.flatten(1)[:, :n_values].contiguous()


def philox_uniform(indices: Tensor, n_values: int, *, seed: int, stream: int, draw: int) -> Tensor:
    """Uniforms in (0, 1), shape (B, n_values), float64, keyed as in `philox_normal`."""
    words = torch.cat(_words(indices, -(-n_values // 4), seed, stream, draw), dim=1)
    return uniform(words[:, :n_values])


def philox_words(indices: Tensor, *, seed: int, stream: int, draw: int) -> Tensor:
    """One 32-bit word for each sample index, (B,) int64."""
    return _words(indices, 1, seed, stream, draw)[0][:, 0]


def _words(indices: Tensor, blocks: int, seed: int, stream: int, draw: int) -> tuple[Tensor, ...]:
    row, position, names, key = _counter(indices, blocks, seed, stream, draw)
    return philox4x32((position, *names, row), key)


def _counter(
    indices: Tensor, blocks: int, seed: int, stream: int, draw: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[int, int]]:
    """The counter's parts: sample (B, 1), position (1, blocks), (draw, stream) each (); and the key."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is out of range: it must be an integer in [0, 2**64)")
    row = indices.to(torch.int64)[:, None]
    position = torch.arange(blocks, dtype=torch.int64, device=indices.device)[None, :]
    names = [torch.full((), name, dtype=torch.int64, device=row.device) for name in (draw, stream)]
    return row, position, (names[0], names[1]), (seed & WORD, seed >> 32)
