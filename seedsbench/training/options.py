"""The choices of a training run, as given on the command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingOptions:
    """One run of scripts/train_embedded.py; the values are in scripts/conf/train_embedded.yaml.

    target: edm, vp, ve, iddpm, features or reference.
    iterations, batch, lr: Adam steps, images a step, peak learning rate.
    shards: parts of a batch computed side by side, one thread each (CPU); 1 on a GPU.
    warmup: steps of linear warm-up. flat: fraction of the run at the peak, before the cosine to 0.
    weighting: how noise levels count in the loss, a key of losses.WEIGHTINGS.
    P_mean, P_std: training draws ln sigma ~ N(P_mean, P_std^2) in the EDM regime; the others have
        their own distributions (Karras et al. 2022, Table 1).
    clip: gradient norm. ema: decay of the weight average. label_dropout: fraction without label.
    initial: weights file to start from (a warm restart of a finished run), or "" for a fresh network.
    pool: pictures rendered at the start and drawn from. checkpoint_every: iterations between checkpoints.
    """

    target: str
    device: str
    iterations: int
    batch: int
    shards: int
    lr: float
    warmup: int
    flat: float
    weighting: str
    P_mean: float
    P_std: float
    clip: float
    ema: float
    label_dropout: float
    pool: int
    seed: int
    checkpoint_every: int
    out: Path
    initial: str = ""

    def __post_init__(self) -> None:
        if self.shards < 1 or self.batch % self.shards:
            raise ValueError(f"batch={self.batch} cannot be split into shards={self.shards} equal parts")
