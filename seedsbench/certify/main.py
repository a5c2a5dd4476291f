"""`seedsbench-certify`: measure what every solver really does and write it down."""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from seedsbench.files.console import exit_code

_DESCRIPTION = """\
Measure every configured solver on problems whose answers are known: drift, weak and strong order, evaluations
per step, and error at a budget. Exact denoisers only: no weights, no GPU.

writes  <output>/certificate.csv   every number
        <output>/certificate.md    the tables people read
        <output>/certificate.png   error against NFE, by family (and .svg)

Named solvers are measured alone; their rows take the place of older ones in the files. Exit code 1 says
that a declared order is not the measured one.
"""
_EXAMPLE = "example:  seedsbench-certify seeds3 heun        seedsbench-certify --config-dir mine ab2"


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 if all is as declared, 1 if not, 2 for a wrong command."""
    return exit_code("seedsbench-certify", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.config_dir is not None:
        _add_config_dir(arguments.config_dir)
    from seedsbench.certify.row import configured_solvers
    from seedsbench.checks import nearest

    known = configured_solvers()
    names = {one.name for one in known}
    if unknown := [name for name in arguments.solvers if name not in names]:
        print(f"seedsbench-certify: {nearest(unknown[0], names, what='solver')}", file=sys.stderr)
        return 2
    chosen = [one for one in known if not arguments.solvers or one.name in arguments.solvers]
    rows, wrong = _measure(chosen, arguments)
    if rows:
        from seedsbench.certify.table import ordered, orders_text

        print(orders_text(ordered(rows)))
        _write(rows, {one.title for one in known}, arguments)
    wrong += [f"{row['solver']}: {row['verdict']}" for row in rows if row["verdict"] != "as declared"]
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} are as declared")
    return int(len(wrong) > 0)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("seedsbench-certify", formatter_class=raw)
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLE
    parser.add_argument("solvers", nargs="*", metavar="solver", help="config names; all if none is given")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--samples", type=_positive, default=50_000, help="for the errors (default: 50000)")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=_positive, default=cores, help="processes (default: all cores)")
    parser.add_argument("--config-dir", type=Path, help="folder with solver/*.yaml and modules of your own")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def _add_config_dir(folder: Path) -> None:
    """Make a user's solvers known here and in the worker processes, as seedsbench --config-dir does."""
    place = str(folder.expanduser().resolve())
    os.environ["SEEDSBENCH_CONF"] = os.pathsep.join(filter(None, [os.environ.get("SEEDSBENCH_CONF"), place]))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, place)


def _write(rows: list[dict[str, Any]], known: set[str], arguments: argparse.Namespace) -> None:
    """Write the files; of named solvers, with the older rows of the others that still exist."""
    import pandas as pd

    from seedsbench.certify.distances import distances_of_exact_samples
    from seedsbench.certify.figure import write_error_figure
    from seedsbench.certify.table import ordered, write_tables

    table = arguments.output / "certificate.csv"
    older = pd.read_csv(table).to_dict("records") if arguments.solvers and table.is_file() else []
    newest = {row["solver"]: row for row in [*older, *rows] if row["solver"] in known}
    df, exact = ordered(list(newest.values())), distances_of_exact_samples(samples=arguments.samples)
    arguments.output.mkdir(parents=True, exist_ok=True)
    written = write_tables(df, exact, arguments.output)
    written += write_error_figure(df, exact[1], arguments.output)
    print("\n".join(map(str, written)))


def _measure(chosen: list, arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, what went wrong) of the chosen solvers, each in a process; one that fails stops no other."""
    import torch
    from tqdm import tqdm

    from seedsbench.certify.row import certify

    rows, failures = [], []
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own threads
    with ProcessPoolExecutor(arguments.jobs, context, torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(certify, one, samples=arguments.samples): one.title for one in chosen}
        with tqdm(as_completed(futures), total=len(chosen), unit="solver", disable=None) as bar:
            for future in bar:
                title = futures[future]
                try:
                    rows.append(future.result())
                except Exception as error:
                    failures.append(f"{title}: failed: {type(error).__name__}: {error}")
                bar.set_postfix_str(title)
    return rows, failures


if __name__ == "__main__":
    sys.exit(main())
