"""Which precision a cell can have, and whether its network can be compiled, before anything is loaded."""

from omegaconf import DictConfig

from seedsbench.checks import NO_NETWORK

FORMULAS = ("mixture_problem", "finite_glyphs_problem")
"""Builders of `seedsbench.bench.problems` whose models are formulas."""


def check_network(cfg: DictConfig) -> None:
    """Raise ValueError where a cell's network is to run another way, and its model has none."""
    module, _, name = str(cfg.model.get("_target_")).rpartition(".")
    formula = module == "seedsbench.bench.problems" and name in FORMULAS
    if formula and (cfg.precision != "fp32" or cfg.compile):
        raise ValueError(f"model={cfg.hydra.runtime.choices.model} {NO_NETWORK}")


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where no device of this kind ("cpu", "cuda", "cuda:1") has this precision."""
    if precision in ("tf32", "fp16") and not device.startswith("cuda"):
        raise ValueError(f"precision={precision} needs device=cuda: on {device} use fp32 or bf16")
