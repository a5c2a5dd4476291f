"""Counter-based noise: known answers, distribution, independence, and independence of everything else."""

import hashlib
import math
from functools import reduce

import numpy as np
import pytest
import torch
from scipy import stats

from seedsbench.diffusion.noise import LABELS, LATENTS, STEPS, Philox, latents
from seedsbench.exact import philox, same_bits
from seedsbench.exact.philox import philox4x32, philox_normal, philox_uniform
from seedsbench.noise import Recorded, Silent

# kat_vectors of the Random123 distribution: counter, key, output of philox4x32_10.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize("case", KNOWN)
def test_random123_known_answers(case):
    counter, key, wanted = ([int(word, 16) for word in words.split()] for words in case)
    words = philox4x32(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert [int(word) for word in words] == wanted


def plain_normals(indices, n_values, *, seed, stream, draw):
    """The same numbers by whole arrays and library calls that are exact: frexp, comparisons, selection."""
    position = torch.arange(-(-n_values // 4))[None, :]
    counter = position, torch.tensor(draw), torch.tensor(stream), indices[:, None]
    words = torch.cat(philox4x32(counter, (seed % 2**32, seed >> 32)), 1)
    half = words.shape[1] // 2
    series = lambda x, terms: reduce(lambda value, term: value * x + term, reversed(terms))  # noqa: E731
    mantissa, exponent = torch.frexp((words[:, :half].double() + 0.5) / 2**32)
    low = mantissa < math.sqrt(0.5)
    m = torch.where(low, 2 * mantissa, mantissa)
    s = (m - 1) / (m + 1)
    log = (exponent.double() - low.double()) * math.log(2.0) + s * series(s * s, same_bits.LOG_TERMS[:8])
    quarter = (words[:, half:] + 2**29) >> 30
    r = ((words[:, half:] - (quarter << 30)).double() + 0.5) / 2**30
    sin, cos = r * series(r * r, philox.SIN_TERMS), series(r * r, philox.COS_TERMS)
    turned = [cos, -sin, -cos, sin]
    cos, sin = (sum(torch.where(quarter == q, turned[(q - k) % 4], 0.0) for q in range(5)) for k in (0, 1))
    radius = (-2 * log).sqrt()
    return torch.cat([radius * cos, radius * sin], 1)[:, :n_values]


NAMES = [(0, 2, 0), (2**63 + 5, 0x100, 9), (2**64 - 1, 0, 2**32 - 1)]


@pytest.mark.parametrize("chunk", [1, 100, philox.COUNTERS_PER_THREAD])
@pytest.mark.parametrize(("seed", "stream", "draw"), NAMES)
def test_bits_are_those_of_the_plain_formulas_in_pieces_of_any_size(seed, stream, draw, chunk, monkeypatch):
    indices = torch.tensor([0, 2**31 + 5, 2**32 - 1])
    name = {"seed": seed, "stream": stream, "draw": draw}
    monkeypatch.setattr(philox, "COUNTERS_PER_THREAD", chunk)
    for n in (3, 60) if chunk == 1 else (7, 3072, 40001):
        assert torch.equal(philox_normal(indices, n, **name), plain_normals(indices, n, **name))


def test_the_numbers_of_earlier_versions():
    first = philox_normal(torch.tensor([0]), 4, seed=0, stream=2, draw=0)[0]
    recorded = [1.6116789046773259, -0.8036904028210338, 2.1876532915876603, 0.17559437193425045]
    assert torch.allclose(first, torch.tensor(recorded, dtype=torch.float64), rtol=5e-16, atol=0)
    indices = torch.tensor([0, 1, 2**31 + 5, 2**32 - 1, 77])
    uniforms = philox_uniform(indices, 150001, seed=1, stream=2, draw=3).contiguous().numpy()
    assert hashlib.sha256(uniforms.tobytes()).hexdigest()[:16] == "9efc66e78b0c80e6"


def test_bits_do_not_depend_on_threads(threads):
    indices, name = torch.arange(24), {"seed": 3, "stream": 2, "draw": 1}
    assert torch.equal(philox_normal(indices, 3072, **name), plain_normals(indices, 3072, **name))


@pytest.fixture(scope="module")
def million():
    return philox_normal(torch.arange(1000), 1000, seed=11, stream=STEPS, draw=0).numpy()


def test_normals_have_normal_moments_and_law(million):
    z = million.ravel()
    n = len(z)
    assert n == 10**6
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs(stats.skew(z)) < 4 * (6 / n) ** 0.5
    assert abs(stats.kurtosis(z)) < 4 * (24 / n) ** 0.5
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert 4.5 < np.abs(z).max() < 6.8


def test_no_correlation_across_samples_positions_draws_streams_or_seeds(million):
    n = million.size
    others = [
        philox_normal(torch.arange(1000), 1000, seed=seed, stream=stream, draw=draw).numpy()
        for seed, stream, draw in [(11, STEPS, 1), (11, LATENTS, 0), (12, STEPS, 0)]
    ]
    others += [np.roll(million, shift, axis) for shift, axis in ((1, 0), (1, 1), (500, 1))]
    for other in others:
        for f in (lambda v: v, lambda v: v**2 - 1):  # linear, and in the squares: catches shared radii
            a, b = f(million).ravel(), f(other).ravel()
            assert abs((a * b).mean() / (a.std() * b.std())) < 5 / n**0.5


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (3, 5, 7), (3, 16, 16)])
def test_a_sample_is_a_function_of_its_index(shape):
    indices = torch.tensor([9, 3, 2**31 + 5, 0, 77, 4])
    whole = Philox(indices, shape, seed=5)
    draws = [whole.normal() for _ in range(3)]
    for size in (1, 4):
        for k, part in enumerate(indices.split(size)):
            alone = Philox(part, shape, seed=5)
            for draw in draws:
                assert torch.equal(alone.normal(), draw[k * size : k * size + len(part)])


def test_increments_scale_float32_rounds_and_streams_differ():
    q = torch.tensor([1.0, 3.25], dtype=torch.float64)
    indices, shape = torch.arange(4), (2, 1, 1)
    one, two = Philox(indices, shape), Philox(indices, shape)
    rounded = Philox(indices, shape, dtype=torch.float32)
    fine = one.normal()
    assert torch.equal(two.increment(q[0], q[1]), fine * 1.5)
    assert torch.equal(two.increment(q[1], q[0]), one.normal() * 1.5)
    assert torch.equal(rounded.normal(), fine.float())
    streams = (Philox(indices, shape, stream=stream).normal() for stream in (LATENTS, LABELS, STEPS))
    assert len({float(normals[0, 0]) for normals in streams}) == 3


def test_recorded_replays_and_says_when_it_runs_out():
    z = torch.randn(2, 3, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    recorded = Recorded(z.numpy())
    assert torch.equal(recorded.normal(), z[0])
    recorded.normal()
    with pytest.raises(ValueError, match="draw 3 but only 2"):
        recorded.normal()
    assert not Silent((1, 1, 1, 1)).normal().any()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="seed"):
        latents(torch.arange(1), (1, 1, 1), seed=seed)


@pytest.mark.gpu
def test_normals_are_the_same_on_a_gpu():
    """Uniforms bit for bit; normals but for the root: a CPU's vector library may miss its last bit."""
    indices = torch.arange(64)
    names = {"seed": 3, "stream": 1, "draw": 2}
    uniforms = philox_uniform(indices, 3072, **names)
    assert torch.equal(philox_uniform(indices.cuda(), 3072, **names).cpu(), uniforms)
    cpu = Philox(indices, (3, 32, 32)).normal()
    gpu = Philox(indices, (3, 32, 32), device="cuda").normal().cpu()
    assert ((gpu - cpu).abs() <= 4 * torch.finfo(torch.float64).eps * cpu.abs()).all()
