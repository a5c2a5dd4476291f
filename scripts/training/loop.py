"""The one training loop: Adam, warm-up, cosine, weight averaging, checkpoints that resume exactly."""

import copy
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import trange

from seedsbench.data.embedded_set import weights_stem
from seedsbench.files.atomic import replacing

log = logging.getLogger(__name__)
LOG_EVERY = 200

Loss = Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainingOptions:
    """One run of scripts/train_embedded.py; the values are in scripts/conf/train_embedded.yaml.

    data: glyphs or digits. target: edm, vp, ve, iddpm (digits: edm, vp), features or reference.
    training: which of several networks of a regime, from other seeds: part of the file's name.
    iterations, batch, lr: Adam steps, images a step, peak learning rate.
    shards: parts of a batch computed side by side, one thread each (CPU); 1 on a GPU.
    warmup: steps of linear warm-up. flat: fraction of the run at the peak, before the cosine to 0.
    weighting: how noise levels count in the loss, a key of targets.WEIGHTINGS.
    P_mean, P_std: training draws ln sigma ~ N(P_mean, P_std^2) in the EDM regime; the others have
        their own distributions (Karras et al. 2022, Table 1).
    clip: gradient norm. ema: decay of the weight average. label_dropout: fraction without label.
    initial: weights file to start from (a warm restart of a finished run), or "" for a fresh network.
    pool: glyphs rendered at the start and drawn from. checkpoint_every: iterations between checkpoints.
    """

    data: str
    target: str
    training: int
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
        if not 0 <= self.training <= 10**6:
            raise ValueError(f"training={self.training} must lie in [0, 1000000]")

    @property
    def stem(self) -> str:
        """What its files are called, without their endings."""
        return weights_stem(self.target, self.training)

    @property
    def checkpoint(self) -> Path:
        """Where a run leaves its state, until its result is written."""
        return self.out / f"{self.stem}.checkpoint.pt"

    def generator(self, iteration: int, shard: int) -> torch.Generator:
        """The random source of one shard of one iteration, so that a resumed run goes on as it would have.

        The counter-based noise of sampling would do too, but costs a hundred small kernels a draw.
        """
        # Iterations stay below 2^28, so that no two shards share a generator.
        return torch.Generator(self.device).manual_seed((self.seed << 32) + iteration + (shard << 28))

    def identity(self) -> dict:
        """What must agree for a checkpoint to be continued: everything but where the run lives."""
        free = ("device", "out", "checkpoint_every")
        return {key: value for key, value in vars(self).items() if key not in free}


class Ema:
    """Exponential average of a network's parameters, with a decay that grows to its final value."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.source = [p.detach() for p in network.parameters()]
        self.average = [p.clone() for p in self.source]

    def update(self, iteration: int) -> None:
        """Call after step `iteration` (0, 1, ...): early on, the average forgets its start faster."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for average, value in zip(self.average, self.source, strict=True):
            average.lerp_(value, 1 - decay)

    def copy_to(self, network: nn.Module) -> None:
        """Overwrite the parameters of a network of the same kind with the averages."""
        with torch.no_grad():
            for parameter, average in zip(network.parameters(), self.average, strict=True):
                parameter.copy_(average)


def learning_rate(iteration: int, options: TrainingOptions) -> float:
    """Linear warm-up, flat, then half a cosine to zero at the end of the run."""
    progress = (iteration / options.iterations - options.flat) / (1 - options.flat)
    cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, progress)))
    return options.lr * cosine * min(1.0, (iteration + 1) / options.warmup)


def train(network: nn.Module, loss: Loss, options: TrainingOptions) -> float:
    """Minimise `loss`, resuming from a checkpoint of the same run if there is one.

    Leaves the averaged weights in the network. Returns the seconds spent, those before an interruption
    included.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=options.lr, betas=(0.9, 0.99), fused=True)
    ema = Ema(network, options.ema)
    start, seconds = _resume(network, optimizer, ema, options)
    began = time.perf_counter()
    # The loss is summed on the device: reading it at every step would make the host wait for the GPU.
    total = torch.zeros((), device=options.device)
    replicas = [network, *(_sharing(network) for _ in range(options.shards - 1))]
    workers = ThreadPoolExecutor(options.shards, "shard", torch.set_num_threads, (torch.get_num_threads(),))
    progress = trange(start, options.iterations, initial=start, total=options.iterations, mininterval=5)
    for iteration in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, options)
        random = [options.generator(iteration, shard) for shard in range(options.shards)]
        total += sum(workers.map(partial(_backward, loss), replicas, random)) / options.shards
        _step(replicas, optimizer, options.clip)
        ema.update(iteration)
        done = iteration + 1
        if done % LOG_EVERY == 0:
            progress.set_postfix(loss=f"{_mean_loss(total, options.target, done):.4f}")
            total.zero_()
        if done % options.checkpoint_every == 0 and done < options.iterations:
            state = {
                "iteration": done,
                "seconds": seconds + time.perf_counter() - began,
                "run": options.identity(),
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.average,
            }
            with replacing(options.checkpoint) as temporary:
                torch.save(state, temporary)
    ema.copy_to(network)
    return seconds + time.perf_counter() - began


def _sharing(network: nn.Module) -> nn.Module:
    """A copy that shares the parameters' memory and has gradients of its own."""
    replica = copy.deepcopy(network)
    for mine, shared in zip(replica.parameters(), network.parameters(), strict=True):
        mine.data = shared.data
    return replica


def _backward(loss: Loss, network: nn.Module, generator: torch.Generator) -> Tensor:
    network.zero_grad(set_to_none=True)
    value = loss(network, generator)
    value.backward()
    return value.detach()


def _step(replicas: list[nn.Module], optimizer: torch.optim.Optimizer, clip: float) -> None:
    """One optimiser step with the mean of the replicas' gradients."""
    parameters = list(replicas[0].parameters())
    if len(replicas) > 1:
        for same in zip(*(replica.parameters() for replica in replicas), strict=True):
            grads = [p.grad for p in same if p.grad is not None]
            if grads:
                same[0].grad = torch.stack(grads).mean(dim=0)
    nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _mean_loss(total: Tensor, target: str, done: int) -> float:
    mean = float(total) / LOG_EVERY
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"{target}: the loss is {mean} at iteration {done}: lower lr, or clip harder"
        )
    return mean


def _resume(
    network: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, options: TrainingOptions
) -> tuple[int, float]:
    path, wanted = options.checkpoint, options.identity()
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, map_location=options.device, weights_only=True)
    if state["run"] != wanted:
        changed = [key for key in wanted if state["run"].get(key) != wanted[key]]
        raise ValueError(
            f"{path} belongs to a run with another {', '.join(changed)}: delete it, or use another out="
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    for mine, stored in zip(ema.average, state["ema"], strict=True):
        mine.copy_(stored)
    log.info("%s: resumed at iteration %d", options.target, state["iteration"])
    return state["iteration"], state["seconds"]
