"""torchvision of a CUDA build beside a CPU torch: its import fails for want of two operators.

Nobody here calls them. Once they are declared it imports, and with it torch-fidelity and diffusers.
"""

import sys
from typing import Any

import torch

_LIBRARIES: list[Any] = []  # an operator lives as long as the library object that declared it


def declare_torchvision_operators() -> None:
    """Declare torchvision's `nms` and `qnms`, forget half-finished imports of it and torch-fidelity."""
    for module in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "torch_fidelity")]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)
