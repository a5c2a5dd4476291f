"""Random-weight EDM checkpoints whose structure is that of published files, from our own networks."""

import torch
from torch import nn

from seedsbench.denoisers.networks.unet import DhariwalUNet, DhariwalUNetConfig, SongUNet, SongUNetConfig
from seedsbench.denoisers.preconditioning.karras import IDDPMPreconditioner
from tests.support.edm_files import dumped, persistent, snapshot

NETWORKS = {"SongUNet": (SongUNet, SongUNetConfig), "DhariwalUNet": (DhariwalUNet, DhariwalUNetConfig)}
TINY = {"model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1}
TINY |= {"attn_resolutions": [4]}
CIFAR10 = {"model_type": "SongUNet", "model_channels": 128, "channel_mult": [2, 2, 2], "augment_dim": 9}


def write_edm(
    path, class_name="EDMPrecond", *, resolution=8, channels=3, label_dim=0, network=None, seed=0, **numbers
):
    """Write such a .pkl, the constructor's first two arguments by position, and return its path."""
    options = dict(TINY if network is None else network)
    build, config = NETWORKS[options["model_type"]]
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items() if key != "model_type"}
    outputs = 2 * channels if class_name == "iDDPMPrecond" else channels
    torch.manual_seed(seed)
    net = build(config(resolution, channels, outputs, label_dim=label_dim, **given))
    for parameter in net.parameters():  # published networks start their last layers at zero; these do not
        nn.init.normal_(parameter, std=0.05)
    kwargs = {"label_dim": label_dim, **options, **numbers}
    outer = {"_modules": {"model": _tree(net)}, "_parameters": {}, "_buffers": {}, "training": False}
    outer |= {"_init_args": (resolution, channels), "_init_kwargs": kwargs}
    if class_name == "iDDPMPrecond":
        outer["_buffers"] = {"u": IDDPMPreconditioner().table("cpu")}
    path.write_bytes(dumped(snapshot(persistent(class_name, outer))))
    return path


def _tree(module):
    state = {"training": False, "_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
    state |= {"_modules": {name: None if m is None else _tree(m) for name, m in module._modules.items()}}
    return persistent(type(module).__name__, state)
