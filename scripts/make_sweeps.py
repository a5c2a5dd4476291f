"""Write the W&B sweep files of sweeps/ from conf/experiment/: python scripts/make_sweeps.py

The same parameters with the same values, one run a cell; what an experiment searches in an interval, W&B
searches by Bayes' rule. Edit the experiment, then run this.
"""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = {
    "churn_search": "churn_optuna",
    "cifar10_regimes": "cifar10_regimes",
    "embedded_pareto": "embedded_pareto",
    "seeds1_ablation": "seeds1_ablation",
    "seeds_ablation": "seeds_ablation",
}
"""Sweep file -> experiment."""
INTERVAL = re.compile(r"interval\(([\d.]+), *([\d.]+)\)")


def parameter(text: Any) -> dict[str, Any]:
    """A parameter of a sweep as W&B writes it: from `a`, `a,b` or `interval(low, high)`."""
    if found := INTERVAL.fullmatch(str(text)):
        return {"distribution": "uniform", "min": float(found[1]), "max": float(found[2])}
    values = [yaml.safe_load(value) for value in str(text).split(",")]
    return {"value": values[0]} if len(values) == 1 else {"values": values}


def description(text: str) -> str:
    """The first comment of an experiment's file, less the command at its end."""
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ") and "@package" not in line]
    return comments[0].split(": seedsbench")[0]


def sweep_text(name: str) -> str:
    """The sweep file of this name."""
    experiment = SWEEPS[name]
    text = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    config = yaml.safe_load(text)
    sweeper = config.pop("hydra")["sweeper"]
    config.pop("defaults", None)  # of Hydra: which sweeper
    study = name if config["study"] == experiment else config["study"]
    told = {**config, "study": study, "tracker": "wandb", **sweeper["params"]}
    searched = any(INTERVAL.fullmatch(str(text)) for text in told.values())
    sweep = {
        "name": name,
        "description": description(text),
        "program": "seedsbench",
        "command": ["${env}", "${program}", "${args_no_hyphens}"],
        "method": "bayes" if searched else "grid",
        "metric": {"name": "fid", "goal": sweeper.get("direction", "minimize")},
        **({"run_cap": sweeper["n_trials"]} if searched else {}),
        "parameters": {key: parameter(text) for key, text in told.items()},
    }
    source = f"# Written by scripts/make_sweeps.py from conf/experiment/{experiment}.yaml: edit that.\n"
    run = f"# Without W&B: seedsbench -m experiment={experiment}\n"
    return source + run + yaml.safe_dump(sweep, default_flow_style=None, sort_keys=False, width=110)


def main() -> None:
    """Write all of them."""
    for name in SWEEPS:
        (ROOT / "sweeps" / f"{name}.yaml").write_text(sweep_text(name))


if __name__ == "__main__":
    main()
