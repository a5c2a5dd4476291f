"""EDM2's network as its paper describes it, with nothing of ours: weights are normalised at every call.

Karras et al. 2024, configuration G and App. B. Its modules pickle as the published files' do.
"""

import math

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import nn

from tests.support.edm_files import Call, Name, New, PersistentModule, dumped, persistent

RAW_STD = np.float32([4.17, 4.62, 3.71, 3.28])
RAW_MEAN = np.float32([5.81, 3.25, 0.12, -2.15])
SCALE = np.float32(0.5) / RAW_STD
BIAS = -RAW_MEAN * SCALE
EMPTY = (Name("numpy", "ndarray"), (0,), b"b")
"""How numpy begins an array."""


def unit(x, *dims):
    return x / (1e-4 + x.square().mean(dims, keepdim=True).sqrt())


def silu(x):
    return x * torch.sigmoid(x) / 0.596


def mixed(a, b, t):
    return (a + t * (b - a)) / math.sqrt((1 - t) ** 2 + t**2)


class MPConv(PersistentModule):
    def __init__(self, *shape):
        super().__init__(*shape)
        self.weight = nn.Parameter(5 * torch.randn(shape))

    def forward(self, x):
        weight = unit(self.weight, *range(1, self.weight.ndim)) / math.sqrt(self.weight[0].numel())
        if weight.ndim == 2:
            return torch.einsum("oi,bi->bo", weight, x)
        return nnf.conv2d(x, weight, padding="same")


class MPFourier(PersistentModule):
    def __init__(self, width):
        super().__init__(width)
        self.register_buffer("freqs", 2 * math.pi * torch.randn(width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))

    def forward(self, c_noise):
        return math.sqrt(2) * torch.cos(c_noise[:, None] * self.freqs + self.phases)


class Block(PersistentModule):
    def __init__(self, kind, inputs, outputs, embedding, options, attention, resampled):
        super().__init__(kind, inputs, outputs, embedding, attention, resampled)
        self.kind, self.options, self.resampled = kind, options, resampled
        self.emb_gain = nn.Parameter(torch.randn(()))
        self.conv_res0 = MPConv(outputs, outputs if kind == "enc" else inputs, 3, 3)
        self.emb_linear = MPConv(outputs, embedding)
        self.conv_res1 = MPConv(outputs, outputs, 3, 3)
        self.conv_skip = MPConv(outputs, inputs, 1, 1) if inputs != outputs else None
        self.heads = outputs // options["channels_per_head"] if attention else 0
        self.attn_qkv = MPConv(3 * outputs, outputs, 1, 1) if self.heads else None
        self.attn_proj = MPConv(outputs, outputs, 1, 1) if self.heads else None

    def forward(self, x, embedding):
        channels = x.shape[1]
        filters = torch.full((channels, 1, 2, 2), 0.25, dtype=x.dtype)
        if self.resampled == "down":
            x = nnf.conv2d(x, filters, stride=2, groups=channels)
        if self.resampled == "up":
            x = nnf.conv_transpose2d(x, 4 * filters, stride=2, groups=channels)
        skip = self.conv_skip or (lambda image: image)
        if self.kind == "enc":
            x = unit(skip(x), 1)
        y = self.conv_res0(silu(x))
        y = self.conv_res1(silu(y * (1 + self.emb_gain * self.emb_linear(embedding))[..., None, None]))
        x = mixed(x if self.kind == "enc" else skip(x), y, self.options["res_balance"])
        if self.heads:
            b, c, h, w = x.shape
            qkv = self.attn_qkv(x).reshape(b, self.heads, c // self.heads, 3, h * w)
            q, k, v = unit(qkv, 2).unbind(3)
            shares = torch.einsum("bnci,bncj->bnij", q, k).div(math.sqrt(c // self.heads)).softmax(-1)
            y = torch.einsum("bnij,bncj->bnci", shares, v).reshape(b, c, h, w)
            x = mixed(x, self.attn_proj(y), self.options["attn_balance"])
        most = self.options["clip_act"]
        return x if most is None else x.clamp(-most, most)


DEFAULTS = {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3, "attn_resolutions": [16, 8]}
DEFAULTS |= {"channel_mult_noise": None, "channel_mult_emb": None, "label_balance": 0.5}
DEFAULTS |= {"concat_balance": 0.5, "channels_per_head": 64, "res_balance": 0.3, "attn_balance": 0.3}
DEFAULTS |= {"clip_act": 256}


class UNet(PersistentModule):
    def __init__(self, resolution, channels, label_dim, **given):
        super().__init__(resolution, channels, label_dim, **given)
        options = self.options = DEFAULTS | given
        width, multiples = options["model_channels"], options["channel_mult"]
        noise = width * (options["channel_mult_noise"] or multiples[0])
        embedding = width * (options["channel_mult_emb"] or max(multiples))
        self.out_gain = nn.Parameter(torch.randn(()))
        self.emb_fourier, self.emb_noise = MPFourier(noise), MPConv(embedding, noise)
        self.emb_label = MPConv(embedding, label_dim) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        now, left = width * multiples[0], []

        def block(kind, inputs, outputs, attention=False, resampled=None):
            return Block(kind, inputs, outputs, embedding, options, attention, resampled)

        for level, multiple in enumerate(multiples):
            size = resolution >> level
            attends, wide = size in options["attn_resolutions"], width * multiple
            if level == 0:
                self.enc[f"{size}x{size}_conv"] = MPConv(now, channels + 1, 3, 3)
            else:
                self.enc[f"{size}x{size}_down"] = block("enc", now, now, resampled="down")
            left.append(now)
            for index in range(options["num_blocks"]):
                self.enc[f"{size}x{size}_block{index}"] = block("enc", now, wide, attends)
                now = wide
                left.append(now)
        for level in range(len(multiples) - 1, -1, -1):
            size = resolution >> level
            attends, wide = size in options["attn_resolutions"], width * multiples[level]
            if level == len(multiples) - 1:
                self.dec[f"{size}x{size}_in0"] = block("dec", now, now, True)
                self.dec[f"{size}x{size}_in1"] = block("dec", now, now)
            else:
                self.dec[f"{size}x{size}_up"] = block("dec", now, now, resampled="up")
            for index in range(options["num_blocks"] + 1):
                self.dec[f"{size}x{size}_block{index}"] = block("dec", now + left.pop(), wide, attends)
                now = wide
        self.out_conv = MPConv(channels, now, 3, 3)

    def forward(self, x, c_noise, labels):
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            labels = self.emb_label(labels * math.sqrt(labels.shape[1]))
            embedding = mixed(embedding, labels, self.options["label_balance"])
        embedding = silu(embedding)
        x, states, t = nnf.pad(x, (0, 0, 0, 0, 0, 1), value=1.0), [], self.options["concat_balance"]
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("_conv") else layer(x, embedding)
            states.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                shares, parts = ((1 - t), t), (x, states.pop())
                whole = math.sqrt(sum(part.shape[1] for part in parts) / ((1 - t) ** 2 + t**2))
                both = zip(shares, parts, strict=True)
                x = torch.cat([whole * s / math.sqrt(part.shape[1]) * part for s, part in both], dim=1)
            x = layer(x, embedding)
        return self.out_gain * self.out_conv(x)


class Precond(PersistentModule):
    """D(x, sigma, labels); the constructor's first arguments as the published one's are called."""

    def __init__(self, img_resolution, img_channels, label_dim, sigma_data=0.5, **given):
        arguments = {"img_channels": img_channels, "label_dim": label_dim, "sigma_data": sigma_data}
        super().__init__(img_resolution, **arguments, **given)
        self.label_dim, self.sigma_data = label_dim, sigma_data
        self.unet = UNet(img_resolution, img_channels, label_dim, **given)
        self.logvar_fourier, self.logvar_linear = MPFourier(128), MPConv(1, 128)

    def forward(self, x, sigma, labels=None):
        if labels is None:
            labels = torch.zeros(1, self.label_dim, dtype=x.dtype)
        sigma, data = sigma.reshape(-1, 1, 1, 1).to(x.dtype), self.sigma_data
        total = sigma.square() + data**2
        out = self.unet(x / total.sqrt(), sigma.flatten().log() / 4, labels)
        return data**2 / total * x + sigma * data / total.sqrt() * out


TINY = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
TINY |= {"channels_per_head": 16}


def network(resolution=8, channels=3, label_dim=10, *, seed=0, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    made = Precond(resolution, channels, label_dim, **(TINY | options)).eval().requires_grad_(False)
    return made.to(dtype)


def array(values, home="numpy._core.multiarray", code="f4", **state):
    """The call by which a numpy array is pickled; state: what is to be said instead."""
    values = np.asarray(values, dtype=f"<{code}")
    kind = Call("numpy", "dtype", code, False, True, state=(3, "<", None, None, None, -1, -1, 0))
    said = {"version": 1, "shape": values.shape, "dtype": kind, "by_columns": False, "data": values.tobytes()}
    return Call(home, "_reconstruct", *EMPTY, state=tuple((said | state).values()))


def vae_encoder(**state):
    """EDM2's encoder of latents, an object that is no module."""
    said = {"vae_name": "stabilityai/sd-vae-ft-mse", "scale": array(SCALE), "bias": array(BIAS)}
    said |= {"_init_args": (), "_init_kwargs": {}, "batch_size": 8, "_vae": None}
    return persistent("StabilityVAEEncoder", said | state)


def rgb_encoder():
    return persistent("StandardRGBEncoder", {"_init_args": (), "_init_kwargs": {}})


def snapshot(ema, encoder):
    """What a published file holds."""
    return {
        "ema": ema,
        "encoder": encoder,
        "dataset_kwargs": New("dnnlib.util", "EasyDict"),
        "loss_fn": persistent("EDM2Loss", {"P_mean": -0.4, "P_std": 1.0, "sigma_data": 0.5}),
    }


def write_edm2(path, *, latents=False, protocol=4, **options):
    """Write such a .pkl of random weights in half precision, as published; returns its path."""
    ema = network(channels=4 if latents else 3, dtype=torch.float16, **options)
    path.write_bytes(dumped(snapshot(ema, vae_encoder() if latents else rgb_encoder()), protocol))
    return path
