"""Metrics: as the references have them, to the bit the same for all batches and ranks, clear in refusing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench import metrics
from seedsbench.metrics import moments
from seedsbench.metrics.fid_infinity import FIDInfinity
from tests.support.golden import golden
from tests.support.parity import fid_gaussians, kernel_of, plain_moments


def cases(start, *names):
    """(file, case) of the recorded cases that start so."""
    return [(name, case) for name in names for case in sorted(golden(name).cases) if case.startswith(start)]


FID_CASES = [case for _, case in cases("", "metrics_fid")]
# Left out: four cases of shuffled 200 x 1008 logits, whose 0.7 MB of noise test nothing that these do not.
IS_CASES = [case for case in cases("is_", "metrics_is_kid_prc", "metrics_kernels") if "splits" in case[1]]
KID_CASES = cases("kid_", "metrics_is_kid_prc", "metrics_kernels")
PRC_CASES = cases("prc_", "metrics_is_kid_prc", "metrics_kernels")


def normal(*shape, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def gaussians(case):
    return fid_gaussians(golden("metrics_fid"), case)


def test_the_golden_cases_are_all_there():
    assert (len(FID_CASES), len(IS_CASES), len(KID_CASES), len(PRC_CASES)) == (19, 8, 27, 12)


# Shift of each feature, samples, features and draws of a case of FID-infinity.
FAR_AND_NEAR = [(0.3, 300, 4, 40), (0.0, 300, 4, 40)]
FAR_AND_NEAR += [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in [(0.0, 1000, 16, 200), (0.1, 1000, 16, 200), (0.0, 2000, 64, 60), (0.05, 500, 64, 60)]
]


# Frechet distance


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c.endswith("d2048") else c for c in FID_CASES]
)
def test_frechet_distance_agrees_with_references(case):
    value = metrics.frechet_distance(*gaussians(case))
    for name in ("fid_sym", "fid_eig", "fid_sqrtm"):
        assert value == pytest.approx(float(golden("metrics_fid").array(case, name)), rel=1e-6, abs=1e-9)


CASES_OF_EVERY_RANK = ["d64_full", "d64_rank20", "features_n20_25_d64", "d16_rank1_vs_full", "d16_zero_sigma"]
CASES_OF_EVERY_RANK += ["d16_both_zero", "d16_orthogonal_support", "d16_identical", "d16_illcond"]


@pytest.mark.parametrize("case", CASES_OF_EVERY_RANK)
def test_large_problems_agree_with_small_ones_whichever_factor_exists_and_in_either_order(case):
    mu1, cov1, mu2, cov2 = gaussians(case)
    small = pytest.approx(metrics.frechet_distance(mu1, cov1, mu2, cov2), rel=1e-6, abs=1e-9)
    assert metrics.frechet_distance(mu2, cov2, mu1, cov1) == small
    assert metrics.frechet_distance(mu1, cov1, mu2, cov2, cholesky_from=1) == small


def test_scores_of_which_the_value_is_known():
    assert metrics.frechet_distance(1.0, 4.0, 3.0, 9.0) == pytest.approx(4.0 + 1.0)
    assert metrics.inception_score(torch.zeros(30, 5), splits=3)[0] == pytest.approx(1.0, abs=1e-10)
    certain = 1e6 * torch.eye(5)[torch.arange(30) % 5]
    assert metrics.inception_score(certain, splits=3) == pytest.approx((5.0, 0.0), abs=1e-9)


@pytest.mark.parametrize("n", [2, 20, 63, 64, 65])
@pytest.mark.parametrize("copies", [1, 3])
def test_few_samples_of_a_large_problem_are_scored_to_rounding(n, copies):
    spread = torch.logspace(0, -3, 64, dtype=torch.float64)
    rows = (normal(n, 64) * spread).repeat(copies, 1)
    mu, cov = plain_moments(normal(500, 64, seed=1) * spread)
    # The eigenvalues of the product, of a root never multiplied out, less the zero that centring leaves.
    root = (rows - rows.mean(0)) / (len(rows) - 1) ** 0.5
    inner = torch.linalg.eigvalsh(root @ torch.as_tensor(cov) @ root.T).sort().values[-min(64, n - 1) :]
    wanted = float((rows.mean(0) - torch.as_tensor(mu)).square().sum() + root.square().sum())
    wanted += float(np.trace(cov)) - 2 * float(inner.sqrt().sum())
    few = plain_moments(rows)
    for pair in ((*few, mu, cov), (mu, cov, *few)):
        assert metrics.frechet_distance(*pair, cholesky_from=1) == pytest.approx(wanted, rel=1e-8)


def test_singular_covariances_stored_in_float32_are_scored_to_its_rounding():
    first, second = (plain_moments(normal(n, 64, seed=n)) for n in (20, 30))
    exact = metrics.frechet_distance(*first, *second, cholesky_from=1)
    rounded, other = ((mu, cov.astype(np.float32)) for mu, cov in (first, second))
    for pair, wanted, within in (
        (second, exact, 1e-4 * exact),
        (other, exact, 1e-4 * exact),
        (rounded, 0, 1e-3),
    ):
        assert metrics.frechet_distance(*rounded, *pair, cholesky_from=1) == pytest.approx(wanted, abs=within)


@pytest.mark.parametrize(
    ("gaussians", "message"),
    [
        (([0.0, 0.0], np.eye(3), [0.0, 0.0], np.eye(2)), "first mean and covariance have shapes"),
        (([0.0, 0.0], np.eye(2), [0.0], np.eye(1)), "2 and 1 features"),
        (([0.0, np.nan], np.eye(2), [0.0, 0.0], np.eye(2)), r"first mean is not finite at \[1\]"),
        (([0.0, 0.0], np.eye(2), [0.0, 0.0], [[1, np.inf], [0, 1]]), "second covariance is not finite"),
        (([0.0, 0.0], np.eye(2), [0.0, 0.0], [[1, 0.5], [0, 1]]), "not symmetric"),
        (([0.0, 0.0], [[1, 0], [0, -1]], [0.0, 0.0], np.eye(2)), "negative variance at 1"),
        (([0.0, 0.0], [[1, 2], [2, 1]], [0.0, 0.0], np.eye(2)), "eigenvalue -1"),
    ],
)
@pytest.mark.parametrize("cholesky_from", [1, 1024])
def test_frechet_distance_refuses_what_is_no_gaussian(gaussians, message, cholesky_from):
    with pytest.raises(ValueError, match=message):
        metrics.frechet_distance(*gaussians, cholesky_from=cholesky_from)


# Moments


def test_moments_agree_with_float64_to_rounding():
    features = normal(2000, 64) + 3.0
    sums = metrics.MomentSum(64, 2000, 128.0)
    sums.update(features)
    exact = sums.moments()
    mu, sigma = plain_moments(features)
    assert sums.bits == 16
    assert np.abs(exact.mu - mu).max() < sums.step / 2
    assert np.abs(exact.sigma - sigma).max() < 6 * sums.step / np.sqrt(6 * 2000)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.5])
def test_rounding_of_features_changes_fid_by_less_than_one_in_a_million(shift):
    mix = torch.eye(64, dtype=torch.float64) + 0.3 * normal(64, 64, seed=5) / 8
    first, second = normal(2000, 64, seed=1) @ mix, normal(2000, 64, seed=2) @ mix + shift
    fid = metrics.FID(64, 2000, 128.0)
    fid.update(first, None, torch.arange(2000))
    reference = moments.Moments(2000, *plain_moments(second))
    plain = metrics.frechet_distance(*plain_moments(first), reference.mu, reference.sigma)
    assert fid.compute(reference)["fid"] == pytest.approx(plain, rel=1e-6)


def test_moments_survive_a_mean_far_larger_than_the_spread():
    features = torch.round(normal(500, 4) * 8) / 1024 + 60.0
    sums = metrics.MomentSum(4, 50_000, 64.0)
    sums.update(features)
    assert sums.bits == 17
    mu, sigma = plain_moments(features - 60.0)
    np.testing.assert_allclose(sums.moments().sigma, sigma, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(sums.moments().mu - 60.0, mu, rtol=1e-9)


def test_extreme_features_do_not_overflow():
    features = torch.tensor([[64.0, -64.0]]).repeat(50_000, 1)
    features[::2] *= -1
    sums = metrics.MomentSum(2, 50_000, 64.0)
    sums.update(features)
    expected = 4096.0 * 50_000 / 49_999
    wanted = [[expected, -expected], [-expected, expected]]
    np.testing.assert_allclose(sums.moments().sigma, wanted, rtol=1e-14)


# FID extrapolated to infinitely many samples


@pytest.mark.parametrize(("shift", "n", "dim", "draws"), FAR_AND_NEAR)
def test_fid_infinity_is_without_bias_and_its_error_bars_cover(shift, n, dim, draws):
    """Draws of a known Gaussian against exact moments: the truth is |shift|^2, and 0 is the hardest."""
    reference = moments.Moments(0, np.zeros(dim), np.eye(dim))
    found = []
    for seed in range(draws):
        features, whole = normal(n, dim, seed=seed) + shift, metrics.FID(dim, n, 16.0)
        streamed = FIDInfinity(dim, n, 16.0)
        for metric in (whole, streamed):
            metric.update(features, None, torch.arange(n))
        found.append([whole.compute(reference)["fid"], *streamed.compute(reference).values()])
    fid, infinity, error = np.array(found).T
    off = infinity - dim * shift**2
    assert abs(off.mean()) < 3 * off.std() / draws**0.5 + 0.02 * (fid.mean() - dim * shift**2)
    assert 0.8 * off.std() < np.sqrt(np.mean(error**2)) < 2 * off.std()
    assert np.mean(abs(off) < 2 * error) > 0.85


def test_too_few_samples_to_extrapolate_from_are_refused():
    few = FIDInfinity(2, 19, 16.0)
    few.update(normal(19, 2), None, torch.arange(19))
    with pytest.raises(ValueError, match="19 samples are too few to extrapolate from: use 20 or more"):
        few.compute(moments.Moments(0, np.zeros(2), np.eye(2)))


# Independence of batches, order and ranks: every streaming metric, bit for bit

N, D, K = 60, 5, 7
FEATURES, LOGITS = normal(N, D, seed=3).float(), 3 * normal(N, K, seed=4).float()
REAL = normal(50, D, seed=6)
REFERENCE = moments.Moments(50, *plain_moments(REAL))
# How each accumulator of the Scorer is made and scored.
STREAMING = {
    "fid": (lambda: metrics.FID(D, N, 16.0), lambda fid: fid.compute(REFERENCE)),
    "infinity": (lambda: FIDInfinity(D, N, 16.0), lambda fid: fid.compute(REFERENCE)),
    "is": (lambda: metrics.InceptionScore(N, K, splits=4), lambda score: score.compute()),
    "table": (lambda: metrics.FeatureTable(N, D), lambda table: of_pairs(table.complete())),
}


def of_pairs(table):
    distance = metrics.kernel_distance(table, REAL, subsets=5, subset_size=20)
    return distance, metrics.precision_recall(REAL, table, k=3)


def stream(metric, order):
    for batch in order:
        where = torch.as_tensor(batch, dtype=torch.int64)
        metric.update(FEATURES[where], LOGITS[where], where)
    return metric


def add(metric, other):
    getattr(metric, "sums", metric).add(getattr(other, "sums", other).state())


@pytest.mark.parametrize("name", STREAMING)
@settings(max_examples=25)
@given(order=st.permutations(range(N)), cuts=st.lists(st.integers(0, N), max_size=6), rank=st.integers(0, N))
def test_scores_do_not_depend_on_batches_order_or_ranks(name, order, cuts, rank):
    make, score = STREAMING[name]
    whole = score(stream(make(), [range(N)]))
    parts = [stream(make(), [batch]) for batch in np.split(np.array(order), sorted(cuts))]
    while len(parts) > 1:
        add(parts[rank % (len(parts) - 1)], parts.pop())
    assert score(parts[0]) == whole


def test_scores_do_not_depend_on_the_number_of_threads(threads):
    def scores():
        return score_of("table", range(N)), metrics.frechet_distance(*gaussians("d64_full"))

    found = scores()
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert scores() == found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", STREAMING)
def test_scores_of_features_on_a_gpu_have_the_same_bits(name):
    make, score = STREAMING[name]
    metric = make()
    for start in range(0, N, 16):
        where = torch.arange(start, min(start + 16, N)).cuda()
        metric.update(FEATURES.cuda()[where], LOGITS.cuda()[where], where)
    assert score(metric) == score(stream(make(), [range(N)]))


# Inception score


@pytest.mark.parametrize(("name", "case"), IS_CASES)
def test_inception_score_agrees_with_reference(name, case):
    settings = golden(name).cases[case]
    logits = golden("metrics_is_kid_prc").tensor(case.split("_splits")[0] + "_logits", "logits")
    if name == "metrics_kernels":  # which shuffles first
        logits = logits[np.random.RandomState(settings["rng_seed"]).permutation(len(logits))]
    mean, std = metrics.inception_score(logits, splits=settings["splits"])
    assert mean == pytest.approx(float(golden(name).array(case, "mean")), rel=1e-8)
    assert std == pytest.approx(float(golden(name).array(case, "std")), rel=1e-8, abs=1e-12)


# Kernel distance, precision and recall


@pytest.mark.parametrize(("name", "case"), KID_CASES)
def test_kernel_distance_agrees_with_reference(name, case):
    """With KID's own kernel, which the other cases replace."""
    data, settings = golden(name), golden(name).cases[case]
    features = data if settings["features"] == "features_b" else golden("metrics_is_kid_prc")
    x, y = (features.tensor(settings["features"], side) for side in "xy")
    indices = data.array(case, "idx_x"), data.array(case, "idx_y")
    own = {} if name == "metrics_is_kid_prc" else {"kernel": kernel_of(settings)}
    mean, std = metrics.kernel_distance(x, y, indices=indices, **own)
    # The Gaussian kernel of 2048 features is 1e-9 or so: differences of numbers near zero, no smaller ones.
    assert mean == pytest.approx(float(data.array(case, "mean")), rel=1e-6)
    assert std == pytest.approx(float(data.array(case, "std")), rel=1e-6, abs=1e-12)


def test_kernel_distance_is_unbiased_sees_a_shift_and_follows_the_seed():
    x, y = normal(400, 8, seed=1), normal(400, 8, seed=2)
    mean, std = metrics.kernel_distance(x, y, subsets=40, subset_size=100)
    assert abs(mean) < std
    assert metrics.kernel_distance(x, y + 1.0, subsets=10, subset_size=100)[0] > 10 * std
    scores = [metrics.kernel_distance(x, y, 3, 20, seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(("name", "case"), PRC_CASES)
def test_precision_and_recall_agree_with_references(name, case):
    data, settings = golden(name), golden(name).cases[case]
    fake, real = (data.tensor(*settings[side].split("/")) for side in ("generated", "real"))
    found = metrics.precision_recall(real, fake, k=settings["prc_neighborhood"])
    for score, value in found.items():
        assert value == pytest.approx(float(data.array(case, f"prdc_{score}")), rel=1e-9)
    for score in ("precision", "recall"):
        assert found[score] == pytest.approx(settings[score], rel=1e-6)


def test_identical_sets_lie_inside_each_other_ties_included():
    x = 0.1 * normal(200, 33)
    found = metrics.precision_recall(x, x.clone(), k=3)
    assert found == {"precision": 1.0, "recall": 1.0, "density": pytest.approx(4 / 3), "coverage": 1.0}


def test_far_sets_share_nothing_and_blocks_do_not_matter():
    x, y = normal(40, 4, seed=1), normal(50, 4, seed=2)
    assert set(metrics.precision_recall(x, y + 100.0).values()) == {0.0}
    whole = metrics.precision_recall(x, y + 0.5)
    assert metrics.precision_recall(x, y + 0.5, at_once=120) == whole


# What cannot be scored

X, Y, ALL = normal(40, 4), normal(50, 4), torch.arange(40)


def score_of(name, samples):
    make, score = STREAMING[name]
    return score(stream(make(), [samples]))


def summed(*rows):
    metrics.MomentSum(2, 4, 8.0).update(torch.tensor(rows))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda: metrics.MomentSum(2, 4, float("nan")), "bound nan"),
        (lambda: metrics.MomentSum(2, 0, 1.0), "n_max 0"),
        (lambda: metrics.MomentSum(2, 4, 8.0).moments(), "at least 2"),
        (lambda: summed([0.0, 1.0], [0.0, float("nan")]), "row 1, column 1 is nan"),
        (lambda: summed([0.0, -9.0]), "column 1 is -9.0, beyond the bound 8"),
        (lambda: summed(*[[0.0, 1.0]] * 5), "5 samples are more than n_max 4"),
        (lambda: summed([0.0, 1.0, 2.0]), r"shape \(1, 3\); expected \(n, 2\)"),
        (lambda: metrics.inception_score(torch.zeros(9, 3), 10), "9 samples cannot fill 10 splits"),
        (lambda: metrics.inception_score(torch.full((9, 3), torch.nan), 1), "row 0, column 0 is nan"),
        (lambda: metrics.inception_score(torch.zeros(9), 1), "expected a matrix"),
        (lambda: metrics.InceptionScore(20, 3).update(X, None, ALL), "this extractor gives none"),
        (lambda: metrics.kernel_distance(X, Y, 3, 1), "use at least 1 subset of 2 to 40"),
        (lambda: metrics.kernel_distance(X, Y, 3, 41), "use at least 1 subset of 2 to 40"),
        (lambda: metrics.kernel_distance(X, normal(50, 5)), "4 and 5 columns"),
        (lambda: metrics.precision_recall(X, normal(50, 5)), "4 and 5 columns"),
        (lambda: metrics.precision_recall(X, Y, k=0), "use 1 to 39"),
        (lambda: metrics.precision_recall(X, Y, k=40), "use 1 to 39"),
        (lambda: metrics.FeatureTable(40, 2).update(X, None, ALL), r"\(40, 4\); expected \(40, 2\)"),
        (lambda: score_of("table", range(N - 2)), f"2 of {N} samples .*, the first has index {N - 2}"),
        (lambda: score_of("is", range(N - 1)), "every sample must be scored once"),
        (lambda: STREAMING["is"][0]().update(X[:1], LOGITS[:1], torch.tensor([N])), f"sample index {N}"),
        (lambda: STREAMING["table"][0]().update(FEATURES[:1], None, torch.tensor([N])), f"sample index {N}"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(score, message):
    with pytest.raises(ValueError, match=message):
        score()
