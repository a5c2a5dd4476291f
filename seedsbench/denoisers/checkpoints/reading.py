"""What all readers of checkpoint files share: the safe load and the error they raise."""

from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A checkpoint file, or a hint about it, that cannot be used."""


def read_torch(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU; code in the file is never run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())[:200]}") from error
