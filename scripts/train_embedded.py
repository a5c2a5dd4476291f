"""Train what the package ships. For example: python scripts/train_embedded.py target=edm device=cuda

An interrupted run continues when the same command is given again. Order: features, reference, and the
regimes at any time.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from scripts.training.loop import TrainingOptions
from scripts.training.targets import run


@hydra.main(version_base="1.3", config_path="conf", config_name="train_embedded")
def main(config: DictConfig) -> None:
    """Turn the configuration into options and run."""
    torch.set_num_threads(config.threads)
    chosen = {key: config[key] for key in TrainingOptions.__dataclass_fields__}
    run(TrainingOptions(**{**chosen, "out": Path(config.out)}))


if __name__ == "__main__":
    main()
