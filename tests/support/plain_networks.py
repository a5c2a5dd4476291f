"""DiT and the U-Net of guided diffusion written out plainly from their papers, in float64; nothing of ours.

One image at a time, one head at a time, patches cut out one by one: slow, and hard to get wrong. Weights are
those of a published file's names; the lists of names and shapes are here too.
"""

import math

import torch
import torch.nn.functional as nnf


def random_state(shapes, seed=0):
    """Weights of a size that keeps activations near one: vectors about 0 (norms' scales about 1)."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(name, shape):
        z = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return 0.2 * z + (1 if name.endswith(("norm.weight", ".0.weight")) else 0)
        return z / math.sqrt(math.prod(shape[1:]))

    return {name: drawn(name, shape) for name, shape in shapes.items()}


def _affine(name, outputs, *inputs):
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def _applied(state, name, x):
    return x @ state[f"{name}.weight"].double().flatten(1).T + state[f"{name}.bias"].double()


def sinusoids(t, width):
    """cos, then sin, of t at width/2 frequencies falling from 1 towards 1/10000 (exclusive)."""
    rates = torch.tensor([10000 ** (-i / (width // 2)) for i in range(width // 2)], dtype=torch.float64)
    return torch.cat([(t * rates).cos(), (t * rates).sin()])


def _attended(q, k, v):
    """(T, c) of one head."""
    weights = torch.exp(q @ k.T / math.sqrt(q.shape[1]))
    return weights / weights.sum(dim=1, keepdim=True) @ v


# --- DiT --------------------------------------------------------------------------------------------


def dit_shapes(*, width, depth, patch, size, inputs=4, outputs=8, classes=1000):
    """Name -> shape of DiT's published files (and SiT's)."""
    shapes = {
        "pos_embed": (1, (size // patch) ** 2, width),
        **_affine("x_embedder.proj", width, inputs, patch, patch),
        **_affine("t_embedder.mlp.0", width, 256),
        **_affine("t_embedder.mlp.2", width, width),
        "y_embedder.embedding_table.weight": (classes + 1, width),
    }
    for n in range(depth):
        shapes |= _affine(f"blocks.{n}.attn.qkv", 3 * width, width)
        shapes |= _affine(f"blocks.{n}.attn.proj", width, width)
        shapes |= _affine(f"blocks.{n}.mlp.fc1", 4 * width, width)
        shapes |= _affine(f"blocks.{n}.mlp.fc2", width, 4 * width)
        shapes |= _affine(f"blocks.{n}.adaLN_modulation.1", 6 * width, width)
    shapes |= _affine("final_layer.linear", patch**2 * outputs, width)
    return shapes | _affine("final_layer.adaLN_modulation.1", 2 * width, width)


def grid_of_sinusoids(width, side):
    """(1, side^2, width): of each token sin and cos of its column, then of its row (width / 4 rates each)."""
    rates = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
    places = [(column, row) for row in range(side) for column in range(side)]
    waves = [
        [f(at * rate) for at in place for f in (math.sin, math.cos) for rate in rates] for place in places
    ]
    return torch.tensor(waves)[None]


def dit_output(state, x, t, label, *, heads):
    """What the network says of images x (B, C, S, S) at times t (B,), with the class of each or None."""
    classes = len(state["y_embedder.embedding_table.weight"]) - 1
    labels = [classes if one is None else one for one in label]
    return torch.stack(
        [_dit_one(state, *one, heads) for one in zip(x.double(), t.tolist(), labels, strict=True)]
    )


def _dit_one(state, image, t, label, heads):
    kernel = state["x_embedder.proj.weight"].double()
    patch, side = kernel.shape[-1], image.shape[-1] // kernel.shape[-1]
    corners = [(i * patch, j * patch) for i in range(side) for j in range(side)]
    cut = [image[:, i : i + patch, j : j + patch].flatten() for i, j in corners]
    tokens = _applied(state, "x_embedder.proj", torch.stack(cut)) + state["pos_embed"][0].double()
    time = _applied(state, "t_embedder.mlp.0", sinusoids(t, 256))
    condition = _applied(state, "t_embedder.mlp.2", time * torch.sigmoid(time))
    condition = condition + state["y_embedder.embedding_table.weight"][label].double()
    depth = sum(key.endswith("attn.qkv.weight") for key in state)
    for n in range(depth):
        tokens = _dit_block(state, f"blocks.{n}", tokens, condition, heads)
    shift, scale = _modulation(state, "final_layer", condition, 2)
    pixels = _applied(state, "final_layer.linear", _normed(tokens) * (1 + scale) + shift)
    channels = pixels.shape[1] // patch**2
    result = torch.zeros(channels, *image.shape[1:], dtype=torch.float64)
    for (i, j), one in zip(corners, pixels, strict=True):
        result[:, i : i + patch, j : j + patch] = one.reshape(patch, patch, channels).permute(2, 0, 1)
    return result


def _modulation(state, name, condition, parts):
    return _applied(state, f"{name}.adaLN_modulation.1", condition * torch.sigmoid(condition)).chunk(parts)


def _normed(x):
    x = x - x.mean(dim=1, keepdim=True)
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


def _dit_block(state, name, tokens, condition, heads):
    """Eq. of adaLN-Zero: shift, scale and gate of attention, then of the perceptron."""
    shift, scale, gate, shift2, scale2, gate2 = _modulation(state, name, condition, 6)
    q, k, v = _applied(state, f"{name}.attn.qkv", _normed(tokens) * (1 + scale) + shift).chunk(3, dim=1)
    parts = zip(*(part.chunk(heads, dim=1) for part in (q, k, v)), strict=True)
    mixed = torch.cat([_attended(*part) for part in parts], dim=1)
    tokens = tokens + gate * _applied(state, f"{name}.attn.proj", mixed)
    h = _applied(state, f"{name}.mlp.fc1", _normed(tokens) * (1 + scale2) + shift2)
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return tokens + gate2 * _applied(state, f"{name}.mlp.fc2", h)


# --- the U-Net that torchcfm has of guided diffusion --------------------------------------------------


def _unet_plan(width, mults, blocks, attended):
    """(name, kind, inputs, outputs) of every layer in the order in which they run."""
    plan, skips, channels = [("input_blocks.0.0", "first", 3, width)], [width], width
    for level, mult in enumerate(mults):
        for _ in range(blocks):
            at = f"input_blocks.{len(skips)}"
            plan.append((f"{at}.0", "residual", channels, mult * width))
            channels = mult * width
            if level in attended:
                plan.append((f"{at}.1", "attention", channels, channels))
            skips.append(channels)
        if level < len(mults) - 1:
            plan.append((f"input_blocks.{len(skips)}.0", "down", channels, channels))
            skips.append(channels)
    for n, kind in enumerate(("residual", "attention", "residual")):
        plan.append((f"middle_block.{n}", kind, channels, channels))
    n = 0
    for level, mult in reversed(list(enumerate(mults))):
        for last in [False] * blocks + [True]:
            at = f"output_blocks.{n}"
            layers = [("joined", channels + skips.pop(), mult * width)]
            channels = mult * width
            layers += [("attention", channels, channels)] if level in attended else []
            layers += [("up", channels, channels)] if last and level > 0 else []
            plan += [(f"{at}.{m}", *layer) for m, layer in enumerate(layers)]
            n += 1
    return plan


def unet_shapes(width, mults, blocks, attended, classes=0):
    """Name -> shape of torchcfm's files: no scale and shift, resampling by convolutions."""
    wide = 4 * width
    shapes = {**_affine("time_embed.0", wide, width), **_affine("time_embed.2", wide, wide)}
    if classes:
        shapes["label_emb.weight"] = (classes, wide)
    for name, kind, inputs, outputs in _unet_plan(width, mults, blocks, attended):
        if kind == "attention":
            shapes |= _affine(f"{name}.norm", inputs) | _affine(f"{name}.qkv", 3 * inputs, inputs, 1)
            shapes |= _affine(f"{name}.proj_out", inputs, inputs, 1)
        elif kind in ("residual", "joined"):
            shapes |= _affine(f"{name}.in_layers.0", inputs)
            shapes |= _affine(f"{name}.in_layers.2", outputs, inputs, 3, 3)
            shapes |= _affine(f"{name}.emb_layers.1", outputs, wide)
            shapes |= _affine(f"{name}.out_layers.0", outputs)
            shapes |= _affine(f"{name}.out_layers.3", outputs, outputs, 3, 3)
            if inputs != outputs:
                shapes |= _affine(f"{name}.skip_connection", outputs, inputs, 1, 1)
        else:
            inside = {"first": "", "down": ".op", "up": ".conv"}[kind]
            shapes |= _affine(f"{name}{inside}", outputs, inputs, 3, 3)
    return shapes | _affine("out.0", width) | _affine("out.2", 3, width, 3, 3)


def unet_output(state, x, t, label, *, width, mults, blocks, attended, head_channels):
    """What the network says of images x (B, 3, S, S) at times t (B,), with the class of each or None."""
    plan = _unet_plan(width, mults, blocks, attended)
    found = zip(x.double()[:, None], t.tolist(), label, strict=True)
    return torch.cat([_unet_one(state, plan, *one, width, head_channels) for one in found])


def _unet_one(state, plan, x, t, label, width, head_channels):
    time = _applied(state, "time_embed.0", sinusoids(t, width))
    embedding = _applied(state, "time_embed.2", nnf.silu(time))
    if label is not None:
        embedding = embedding + state["label_emb.weight"][label].double()
    skips, before = [], ""
    for name, kind, _, _ in plan:
        stage = ".".join(name.split(".")[:2])
        if before.startswith("input_blocks") and stage != before:
            skips.append(x)
        before = stage
        if kind == "attention":
            x = _unet_attention(state, name, x, head_channels)
        elif kind in ("residual", "joined"):
            x = torch.cat([x, skips.pop()], dim=1) if kind == "joined" else x
            x = _unet_residual(state, name, x, embedding)
        elif kind == "up":
            x = _convolved(state, f"{name}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        else:
            x = (
                _convolved(state, name, x)
                if kind == "first"
                else _convolved(state, f"{name}.op", x, stride=2)
            )
    return _convolved(state, "out.2", nnf.silu(_grouped(state, "out.0", x)))


def _convolved(state, name, x, stride=1):
    kernel, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
    return nnf.conv2d(x, kernel, bias, stride=stride, padding=kernel.shape[-1] // 2)


def _grouped(state, name, x):
    """Group norm of 32 groups."""
    groups = x.reshape(32, -1)
    groups = groups - groups.mean(dim=1, keepdim=True)
    groups = groups / (groups.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    scale, shift = (state[f"{name}.{kind}"].double()[None, :, None, None] for kind in ("weight", "bias"))
    return groups.reshape(x.shape) * scale + shift


def _unet_residual(state, name, x, embedding):
    h = _convolved(state, f"{name}.in_layers.2", nnf.silu(_grouped(state, f"{name}.in_layers.0", x)))
    h = h + _applied(state, f"{name}.emb_layers.1", nnf.silu(embedding))[None, :, None, None]
    h = _convolved(state, f"{name}.out_layers.3", nnf.silu(_grouped(state, f"{name}.out_layers.0", h)))
    return h + (
        _convolved(state, f"{name}.skip_connection", x) if f"{name}.skip_connection.bias" in state else x
    )


def _unet_attention(state, name, x, head_channels):
    """The older order: the heads one after the other, of each q, k and v."""
    tokens = _grouped(state, f"{name}.norm", x)[0].flatten(1).T
    qkv = _applied(state, f"{name}.qkv", tokens).split(3 * head_channels, dim=1)
    mixed = torch.cat([_attended(*head.chunk(3, dim=1)) for head in qkv], dim=1)
    return x + _applied(state, f"{name}.proj_out", mixed).T.reshape(x.shape)
