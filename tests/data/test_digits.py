"""The embedded digits: all there, as published, and what is measured of their ink."""

import pytest
import torch

from seedsbench.data.digits import digits, moments_of_ink
from seedsbench.data.uint8 import to_uint8


def test_they_are_the_published_test_set():
    images, labels = digits()
    assert (images.shape, float(images.min()), float(images.max())) == ((1797, 1, 8, 8), -1.0, 1.0)
    assert (images * 8 == (images * 8).round()).all(), "17 levels of grey"
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(to_uint8(images).unique()) == 17


def test_moments_follow_the_ink():
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 2, 1:5] = 1.0  # a bar of four pixels: row 2, columns 1 to 4
    bar = moments_of_ink(image)[0].tolist()
    assert bar == pytest.approx([4 / 64, 2.5, 2.0, 1.25, 0.0, 0.0])
    moved = moments_of_ink(image.roll((3, 2), (2, 3)))[0].tolist()
    assert moved == pytest.approx([4 / 64, 4.5, 5.0, 1.25, 0.0, 0.0])
    turned = moments_of_ink(image.transpose(2, 3))[0].tolist()
    assert turned == pytest.approx([4 / 64, 2.0, 2.5, 0.0, 1.25, 0.0])
