"""Pickles of the structure that EDM's code writes, made without it, and pickles no code should write."""

import io
import pickle
import struct
import sys
import types
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

PERSISTENCE = "torch_utils.persistence"
REBUILD = "_reconstruct_persistent_obj"


def _run_source(meta):
    """What the real function does, in short: run the source found in the file."""
    exec(meta["module_src"], {})
    return meta


_run_source.__module__, _run_source.__qualname__ = PERSISTENCE, REBUILD


def fake_persistence():
    """A context with `torch_utils.persistence` importable, whose function does run the source in a file."""
    modules = {name: types.ModuleType(name) for name in ("torch_utils", PERSISTENCE)}
    setattr(modules[PERSISTENCE], REBUILD, _run_source)
    return patch.dict(sys.modules, modules)


class Name:
    """Pickled as a global of this name, whether there is one or not."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only pickled")


class Call:
    """Pickled as a call of a global with arguments, and a state if there is one (BUILD)."""

    def __init__(self, module, name, *args, state=None):
        self.reduced = (Name(module, name), args) + (() if state is None else (state,))

    def __reduce_ex__(self, protocol):
        return self.reduced


class Runs:
    """Pickled by any pickler as a call of a function that there is."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class New:
    """Pickled as a new object (NEWOBJ) of a global, with a state."""

    def __init__(self, module, name, *args, state=None):
        self.cls, self.args, self.state = Name(module, name), args, state


class Writer(pickle._Pickler):
    """The standard pickler in Python, which also knows the classes above and old numpy's spelling."""

    def __init__(self, file, protocol, numpy_home="numpy.core.multiarray"):
        super().__init__(file, protocol)
        self.numpy_home = numpy_home

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            if self.proto >= 4:
                super().save(obj.module)
                super().save(obj.name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, New):
            self.save(obj.cls)
            self.save(obj.args)
            self.write(pickle.NEWOBJ)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)

    def reducer_override(self, obj):
        if isinstance(obj, np.generic):
            return Name(self.numpy_home, "scalar"), (obj.dtype, obj.tobytes())
        return NotImplemented


def dumped(value, protocol=4, **options):
    """The pickle of a value that may hold Name, Call and New."""
    file = io.BytesIO()
    Writer(file, protocol, **options).dump(value)
    return file.getvalue()


def persistent(class_name, state, source="", **other):
    """The call by which a persistent object is pickled."""
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Call(PERSISTENCE, REBUILD, meta | other)


class PersistentModule(nn.Module):
    """A module that is pickled as EDM's are: by source, class name, and its whole __dict__."""

    source = ""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self._init_args, self._init_kwargs = args, kwargs

    def __reduce_ex__(self, protocol):
        function, args = persistent(type(self).__name__, dict(self.__dict__), self.source).reduced
        fake = sys.modules.get(PERSISTENCE)  # the standard pickler wants the function itself
        return (getattr(fake, REBUILD) if fake else function), args


class Conv2d(PersistentModule):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias=bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None
        self.register_buffer("resample_filter", torch.ones(1, 1, 2, 2) / 4 if bias else None)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


class SongUNet(PersistentModule):
    def __init__(self, channels, blocks):
        super().__init__(channels, blocks)
        self.map_label, self.label_dropout, self.skip_scale = None, np.float32(0.25), np.sqrt(0.5)
        self.enc = nn.ModuleDict({f"8x8_conv{i}": Conv2d(channels, channels) for i in range(2 * blocks)})
        self.dec = nn.ModuleDict({"8x8_up": Conv2d(channels, channels, bias=False)})


class EDMPrecond(PersistentModule):
    def __init__(self, *args, channels=4, blocks=2, **kwargs):
        super().__init__(*args, **kwargs)
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), 0.5
        self.model = SongUNet(channels, blocks)
        self.register_buffer("u", torch.arange(5, dtype=torch.float64))


KWARGS = {
    "img_channels": 3,
    "label_dim": 0,
    "use_fp16": False,
    "sigma_max": float("inf"),
    "model_type": "SongUNet",
    "channel_mult": [1, 2],
    "attn_resolutions": (8,),
    "init": {"init_mode": "xavier_uniform", "init_weight": np.sqrt(1e-5)},
    "dropout": np.float16(0.5),
}


def network(dtype=torch.float32, **size):
    """A little network with all that EDM's have: blocks in ModuleDicts, buffers, numpy scalars."""
    torch.manual_seed(0)
    return EDMPrecond(16, **KWARGS, **size).eval().requires_grad_(False).to(dtype)


def snapshot(ema, source=""):
    """The dict of a training snapshot around the network."""
    return {
        "loss_fn": persistent("EDMLoss", {"P_mean": -1.2, "sigma_data": 0.5}, source),
        "augment_pipe": persistent("AugmentPipe", {"p": 0.12, "Hz_fbank": torch.ones(2, 3)}, source),
        "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "/data/x.zip"},
        "ema": ema,
    }


def storage_reference(*reference):
    """A pickle of a storage by its persistent id."""
    return dumped(("storage", *reference), 2)[:-1] + pickle.BINPERSID + pickle.STOP


def storage_blob(numel=3, data=None, kind=("torch", "FloatStorage"), counted=None, rest=(None,), keys=("0",)):
    """The legacy save format of one storage, with what it declares left to choose."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    head += storage_reference(Name(*kind), "0", "cpu", numel, *rest) + pickle.dumps(list(keys), 2)
    count = struct.pack("<q", numel if counted is None else counted)
    return head + count + (bytes(4 * numel) if data is None else data)


def tensor(size=(3,), stride=(1,), offset=0, blob=None):
    """The call by which a tensor is pickled."""
    storage = Call("torch.storage", "_load_from_bytes", storage_blob() if blob is None else blob)
    return Call("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, False, {})


def net_state(**members):
    """The state of a module without anything but the given members."""
    return {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_args": (), "_init_kwargs": {}} | members
