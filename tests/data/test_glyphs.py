import pytest
import torch

from seedsbench.data import glyphs as g


def pictures(indices, labels, seed=0, stream=g.TRAIN):
    return g.glyphs(torch.as_tensor(indices), torch.as_tensor(labels), seed=seed, stream=stream)


def test_a_picture_does_not_depend_on_its_batch():
    indices = torch.arange(5000, 5307)
    labels = indices % 10
    together = pictures(indices, labels)
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(1))
    assert torch.equal(pictures(indices[order], labels[order]), together[order])
    for i in (0, 1, 100, 306):
        assert torch.equal(pictures(indices[i : i + 1], labels[i : i + 1])[0], together[i])


def test_pictures_are_float32_in_range_and_use_it():
    images = pictures(torch.arange(500), torch.arange(500) % 10)
    assert images.shape == (500, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() > 0.99
    assert images.max() <= 1


def test_seed_stream_and_index_change_a_picture():
    one = pictures([3], [4])
    for other in (pictures([4], [4]), pictures([3], [4], seed=1), pictures([3], [4], stream=g.REFERENCE)):
        assert not torch.equal(one, other)


def test_every_two_classes_differ_and_every_factor_changes_the_picture_of_some_class():
    def render(factors):
        return g.render(torch.arange(10), factors).flatten(1)

    base = render(torch.zeros(10, len(g.FACTORS)))
    distance = torch.cdist(base, base) + 100 * torch.eye(10)
    assert distance.min() > 5, divmod(int(distance.argmin()), 10)
    for name, moved in zip(g.FACTORS, 0.8 * torch.eye(len(g.FACTORS)), strict=True):
        assert not torch.equal(render(moved.expand(10, -1)), base), name


def test_shapes_stay_inside_the_picture():
    images = pictures(torch.arange(2000), torch.arange(2000) % 10)
    background = torch.tensor(g.BACKGROUND).reshape(1, 3, 1, 1) * 2 - 1
    covered = (images - background).abs().amax(dim=1) > 1e-3
    border = covered[:, [0, -1], :].sum(dim=(1, 2)) + covered[:, :, [0, -1]].sum(dim=(1, 2))
    assert (border <= 12).all(), border.max()
    assert 0.04 < covered.double().mean() < 0.5


def test_factors_are_scaled_to_unit_range():
    factors = g.factors(torch.arange(4000), seed=0, stream=g.FEATURE_TRAIN)
    assert factors.shape == (4000, 6)
    assert factors.abs().max() <= 1
    assert factors.mean(dim=0).abs().max() < 0.05


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"class 10\.\.10 is out of range: use 0\.\.9"):
        pictures([0], [10])
