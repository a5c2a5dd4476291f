"""`seedsbench-certify --external`: measure other people's samplers, library by library."""

import sys
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

from seedsbench.certify.external.diffusers import DIFFUSERS
from seedsbench.certify.external.k_diffusion import K_DIFFUSION
from seedsbench.certify.external.measure import field_row
from seedsbench.certify.external.report import libraries_first, older_rows, write_field, write_rows
from seedsbench.certify.external.tableaus import TABLEAUS
from seedsbench.checks import nearest

LIBRARIES = [DIFFUSERS, K_DIFFUSION, TABLEAUS]


def certify_field(names: list[str], output: Path) -> int:
    """Measure the libraries of these names, or all, and write certificate-field.*; 2 for an unknown name.

    One that is not installed is skipped with the reason; its older rows are kept.
    """
    known = [library.name for library in LIBRARIES]
    if unknown := [name for name in names if name not in known]:
        print(f"seedsbench-certify: {nearest(unknown[0], known, what='library')}", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = [library for library in LIBRARIES if not names or library.name in names]
    for library in chosen:
        if reason := library.missing():
            print(f"skipped: {reason}", file=sys.stderr)
    rows = older_rows(output)
    output.mkdir(parents=True, exist_ok=True)
    for library in chosen:
        if not library.missing():
            bar = tqdm(library.claims(), unit="sampler", desc=library.name, disable=None)
            rows = [row for row in rows if row["library"] != library.name]
            rows = libraries_first([*rows, *[field_row(library, claim) for claim in bar]], LIBRARIES)
            write_rows(rows, output)  # at once: the next library may take minutes
    probes = [probe for library in LIBRARIES if not library.missing() for probe in library.probes]
    if not rows:
        print("seedsbench-certify: nothing to measure", file=sys.stderr)
        return 1
    print("\n".join(map(str, write_field(rows, probes, output))))
    return 0
