"""Feature extractors for tests: a quick fake one, and weights files of the real ones with random numbers."""

import importlib.util
import io
import math

import torch
from PIL import Image

from seedsbench.files.digests import digest
from seedsbench.metrics import inception
from seedsbench.metrics.dinov2 import VisionTransformer
from seedsbench.metrics.extraction import Extractor

HAS_TORCH_FIDELITY = importlib.util.find_spec("torch_fidelity") is not None
DIM = 6


def fake_extractor(weights=None, device="cpu", *, block=4, bound=64.0):
    """Six smooth functions of a uint8 image, three logits, and a memory of the batches it saw."""

    def extract(images):
        assert images.dtype == torch.uint8
        sizes.append(len(images))
        x = images.expand(-1, 3, -1, -1).double() / 127.5 - 1
        means, spreads = x.mean((2, 3)), x.std((2, 3))
        features = torch.cat([means, spreads], 1) + 0.25 * (means.sum(1, keepdim=True))
        return features.float(), 3 * means.float()

    sizes = extract.sizes = []
    identity = digest({"fake": str(weights)})
    return Extractor("fake", identity, DIM, 3, bound, True, extract, str(weights), block)


def write_images(folder, images, names=None):
    """uint8 (n, 1 or 3, H, W) as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{i:04d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(folder / name)
    return folder


def some_images(n, size=8, seed=0):
    """uint8 (n, 3, size, size), each a blob of its own colour and contrast."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(n, 3, 1, 1, generator=generator) * 200
    noise = torch.rand(n, 3, size, size, generator=generator) * torch.rand(n, 1, 1, 1, generator=generator)
    return (level + 55 * noise).to(torch.uint8)


def write_inception(path, seed=0):
    """Random weights in the format of torch-fidelity's file; activations keep their size."""

    class Unloaded(inception.torch_fidelity_class()):
        def load_state_dict(self, state):
            assert state == {}

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    state = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if name.endswith("conv.weight"):
            spread = math.sqrt(2 / value[0].numel())
            value.copy_(torch.randn(value.shape, generator=generator) * spread)
        elif name == "fc.weight":
            value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    torch.save(state, path)
    return path


def write_dinov2(path, dim=128, depth=2, side=4, seed=0):
    """A small vision transformer in the format of DINOv2's checkpoints, with random weights."""
    network = VisionTransformer(dim, depth, 2 * dim, side**2 + 1)
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for value in state.values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    torch.save(state, path)
    return path
