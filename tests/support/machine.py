"""What the tests may find of the machine they run on: nothing that a user or a scheduler has set there."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]

_STARTS = ("HYDRA_", "WANDB", "SEEDSBENCH_", "MPL", "OMP_", "MKL_", "XDG_", "LC_", "LANG")
_STARTS += ("SLURM_", "SUBMITIT_", "TORCHELASTIC_", "HF_", "HUGGINGFACE_", "DIFFUSERS_", "PYTHON")
_NAMES = {"TORCH_HOME", "TZ", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "NETRC"}
_NAMES |= {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}


def clear(keep=()):
    """Take out of this process's environment what would change a test, except the names in `keep`."""
    for name in set(os.environ) - set(keep):
        if name.startswith(_STARTS) or name in _NAMES or name.lower().endswith("_proxy"):
            del os.environ[name]


def environment(**more):
    """Of a Python that a test starts: this package, one thread, none of the test's own SEEDSBENCH_*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEEDSBENCH_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
