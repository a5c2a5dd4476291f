"""Inception and DINOv2: the features are torch-fidelity's and torch's, and what a weights file may hold."""

import importlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seedsbench.data.pictures import image_names
from seedsbench.files.digests import digest
from seedsbench.files.download import cached_path
from seedsbench.files.extractor_files import extractor_weights
from seedsbench.metrics import dinov2, inception, resize
from seedsbench.metrics.reference import of_images, read_statistics, write_statistics
from tests.support.extractors import (
    HAS_TORCH_FIDELITY,
    some_images,
    write_dinov2,
    write_images,
    write_inception,
)

needs_torch_fidelity = pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs torch-fidelity")
INCEPTION = pytest.param("inception", marks=needs_torch_fidelity)
EXTRACTORS = {"inception": inception.inception_extractor, "dinov2": dinov2.dinov2_extractor}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights for each extractor."""
    folder = tmp_path_factory.mktemp("weights")
    found = {"dinov2": write_dinov2(folder / "vit.pth")}
    return found | ({"inception": write_inception(folder / "inception.pth")} if HAS_TORCH_FIDELITY else {})


@needs_torch_fidelity
def test_features_and_logits_are_torch_fidelitys_own(weights):
    images = some_images(2, size=32)
    own = inception.torch_fidelity_class()(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(weights["inception"]),
    ).eval()  # which an older one does not do itself
    with torch.inference_mode():
        wanted = own(images)
    found = inception.inception_extractor(weights["inception"], block=2).extract(images)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)
    assert (tuple(found[0].shape), tuple(found[1].shape)) == ((2, 2048), (2, 1008))
    apart = (found[0][0] - found[0][1]).norm() / found[0].norm()
    assert apart > 0.01, "these weights tell images apart"
    assert float(found[0].abs().max()) < inception.INCEPTION_BOUND


def test_dinov2_reads_its_size_from_the_checkpoint_and_gives_finite_features(weights):
    extractor = dinov2.dinov2_extractor(weights["dinov2"], block=3)
    assert (extractor.dim, extractor.n_classes, extractor.name) == (128, 0, "dinov2-vit-128-14-bicubic")
    features, logits = extractor.padded(some_images(2, size=32))
    assert logits is None
    assert tuple(features.shape) == (2, 128)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_a_dinov2_block_is_attention_and_mlp_as_written():
    """Against torch's own encoder layer with the same numbers; LayerScale folded into the last layers."""
    torch.manual_seed(0)
    block = dinov2.TransformerBlock(128, 256)
    g1, g2 = block.ls1["gamma"], block.ls2["gamma"]
    for scale in (g1, g2):
        nn.init.uniform_(scale, 0.5, 1.5)
    layer = nn.TransformerEncoderLayer(
        128, 2, 256, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    attn, fc1, fc2, proj = layer.self_attn, block.mlp["fc1"], block.mlp["fc2"], block.attn["proj"]
    with torch.no_grad():
        for theirs, mine in (
            (attn.in_proj_weight, block.attn["qkv"].weight),
            (attn.in_proj_bias, block.attn["qkv"].bias),
            (attn.out_proj.weight, g1[:, None] * proj.weight),
            (attn.out_proj.bias, g1 * proj.bias),
            (layer.linear1.weight, fc1.weight),
            (layer.linear1.bias, fc1.bias),
            (layer.linear2.weight, g2[:, None] * fc2.weight),
            (layer.linear2.bias, g2 * fc2.bias),
        ):
            theirs.copy_(mine)
        x = torch.randn(2, 5, 128)
        torch.testing.assert_close(block(x), layer(x), rtol=1e-4, atol=1e-5)


@needs_torch_fidelity
def test_images_are_resized_as_torch_fidelity_does():
    inception.torch_fidelity_class()
    module = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
    for size in (32, 300):
        x = some_images(2, size=size).float()
        wanted = module.interpolate_bilinear_2d_like_tensorflow1x(x, size=(224, 224), align_corners=False)
        torch.testing.assert_close(resize.tf1(x, 224), wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("side", [1, 28, 32, 64, 224, 225, 512])
def test_bicubic_is_pillows_to_the_bit(side):
    """Noise and a checkerboard, whose overshoots are cut off after each of the two passes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, side, side), generator=generator, dtype=torch.uint8)
    images[1] = 255 * ((torch.arange(side)[:, None] // 3 + torch.arange(side) // 2) % 2)
    images[2] = 255 * (images[2] > 127)
    found = resize.bicubic(images, 224)
    assert found.dtype == torch.float32
    for image, mine in zip(images, found, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        assert torch.equal(mine, torch.from_numpy(np.array(pillow)).permute(2, 0, 1).float())


def test_bicubic_is_torchs_antialiased_but_for_rounding_where_nothing_overshoots():
    """EDM2's way of it: so its published FD-DINOv2 are of nearly these features."""
    images = 64 + some_images(2, size=64) // 2
    theirs = nn.functional.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True)
    torch.testing.assert_close(resize.bicubic(images, 224), theirs, rtol=0, atol=1.3)  # two roundings


def test_each_resize_of_dinov2_is_another_extractor_and_takes_no_reference_of_the_other(tmp_path, weights):
    two = {name: dinov2.dinov2_extractor(weights["dinov2"], resize=name, block=2) for name in resize.RESIZES}
    bicubic, tf1 = two["bicubic"], two["tf1"]
    assert (bicubic.name, tf1.name) == ("dinov2-vit-128-14-bicubic", "dinov2-vit-128-14")
    assert tf1.id == digest({"extractor": "dinov2", "weights": tf1.weights_id}), (
        "rows from before stay theirs"
    )
    images = write_images(tmp_path / "images", some_images(4, size=16))
    for mine, other in ((bicubic, tf1), (tf1, bicubic)):
        reference = of_images(images, mine)
        write_statistics(path := tmp_path / f"{mine.name}.npz", reference, mine)
        np.testing.assert_array_equal(read_statistics(path, mine).moments.mu, reference.moments.mu)
        with pytest.raises(ValueError, match=f"was made with {mine.name} .* are {other.name} ") as caught:
            read_statistics(path, other)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extractor", [pytest.param(INCEPTION, marks=pytest.mark.slow), "dinov2"])
def test_grey_samples_and_grey_files_are_treated_alike_and_images_are_uint8(tmp_path, weights, extractor):
    """One channel as a sample has it, and the file read as RGB: the same features, to the bit."""
    found = EXTRACTORS[extractor](weights[extractor], block=3)
    images = some_images(6, size=16, seed=4)[:, :1]
    wanted = of_images(write_images(tmp_path, images), found, features=True)
    names = [int(Path(name).stem) for name in image_names(tmp_path)]
    mine = torch.cat([found.padded(block)[0] for block in images[names].split(3)])
    assert torch.equal(mine.float(), wanted.features)
    assert wanted.facts == "1x16x16"
    with pytest.raises(ValueError, match=r"images are torch.float32 \(1, 3, 8, 8\)"):
        found.extract(torch.zeros(1, 3, 8, 8))


# Weights files


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_weights_are_looked_for_where_their_download_would_be(tmp_path, monkeypatch, extractor):
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME", "neither"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        wanted = extractor_weights(extractor)
        place = Path(torch.hub.get_dir()).absolute() / "checkpoints" / wanted.name
        assert cached_path(wanted) == place
        with pytest.raises(FileNotFoundError, match=r"metrics\.weights=") as caught:
            EXTRACTORS[extractor]()
        for said in (f"{place} is not there", f"download {wanted.source}", f"put it at {place}"):
            assert said in str(caught.value)
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("extractor", [INCEPTION, "dinov2"])
def test_a_file_that_is_not_the_weights_is_refused_with_what_to_get(tmp_path, weights, extractor):
    path = tmp_path / "w.pth"
    other = {"fc.weight": torch.zeros(2), "cls_token": torch.zeros(1, 1, 128)}
    with_registers = torch.load(weights["dinov2"]) | {"register_tokens": torch.zeros(1, 4, 128)}
    for content in ({"x": nn.Linear(1, 1)}, [torch.zeros(1)], other, with_registers, None):
        if content is None:
            path.write_text("<html>404</html>")
        else:
            torch.save(content, path)
        with pytest.raises(ValueError, match=r"w\.pth .*metrics\.weights=") as caught:
            EXTRACTORS[extractor](path)
        assert "\n" not in str(caught.value)
        if content is with_registers and extractor == "dinov2":
            assert "register_tokens" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module"), "needs torch-fidelity and torchvision .*pip"),
        # torchvision of a CUDA build on a CPU torch: its operators do not load.
        (RuntimeError("torchvision::nms"), r"made for this torch \(.*nms.*pip install torch torch"),
    ],
)
def test_a_torch_fidelity_that_cannot_be_imported_is_a_plain_message(monkeypatch, error, message):
    monkeypatch.setattr(importlib, "import_module", Mock(side_effect=error))
    with pytest.raises(ValueError, match=message):
        inception.torch_fidelity_class()
