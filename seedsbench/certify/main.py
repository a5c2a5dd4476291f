"""`seedsbench-certify`: measure what every solver really does and write it down."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

HELP = """\
Measure every configured solver on problems whose answers are known: drift, weak and strong order, evaluations
per step, and error at a budget. Exact denoisers only: no weights, no GPU.

writes  <output>/certificate.csv   every number
        <output>/certificate.md    the tables people read
        <output>/certificate.png   error against NFE, by family (and .svg)

Named solvers are measured alone; their rows take the place of older ones in the files. Exit code 1 says
that a declared order is not the measured one.
"""
EXAMPLE = "example:  seedsbench-certify seeds3 heun        seedsbench-certify --config-dir mine ab2"


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 if all is as declared, 1 if not, 2 for a wrong command."""
    arguments = _parser().parse_args(argv)
    if arguments.config_dir is not None:
        _add_config_dir(arguments.config_dir)
    from seedsbench.certify.row import entries

    found = entries()
    known = {entry.name for entry in found}
    for name in arguments.solvers:
        if name not in known:
            from seedsbench.checks import nearest

            print(f"seedsbench-certify: {nearest(name, known, what='solver')}", file=sys.stderr)
            return 2
    chosen = [entry for entry in found if not arguments.solvers or entry.name in arguments.solvers]
    return _run(chosen, [entry.title for entry in found], arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedsbench-certify",
        description=HELP,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("solvers", nargs="*", metavar="solver", help="config names; all if none is given")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--samples", type=_positive, default=50_000, help="for the errors (default: 50000)")
    parser.add_argument(
        "--jobs", type=_positive, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
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
    known = os.environ.get("SEEDSBENCH_CONF")
    os.environ["SEEDSBENCH_CONF"] = place if not known else f"{known}{os.pathsep}{place}"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, place)


def _run(chosen: list, titles: list[str], arguments: argparse.Namespace) -> int:
    from seedsbench.certify.distances import floor
    from seedsbench.certify.figure import write_figure
    from seedsbench.certify.table import ordered, write_csv, write_markdown

    rows, failures = _measure(chosen, arguments)
    folder = arguments.output
    if rows:
        older = _older(folder / "certificate.csv", titles) if arguments.solvers else []
        told = {row["solver"]: row for row in [*older, *rows]}
        df = ordered(list(told.values()))
        floors = floor(samples=arguments.samples)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(df, folder / "certificate.csv")
        write_markdown(df, floors, folder / "certificate.md")
        written = [
            folder / "certificate.md",
            folder / "certificate.csv",
            *write_figure(df, floors[1], folder),
        ]
        print("\n".join(map(str, written)))
    wrong = [f"{row['solver']}: {row['verdict']}" for row in rows if row["verdict"] != "as declared"]
    for line in [*failures, *wrong]:
        print(line, file=sys.stderr)
    print(f"{len(rows) - len(wrong)} of {len(chosen)} are as declared")
    return int(len(wrong) + len(failures) > 0)


def _measure(chosen: list, arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, what went wrong) of the chosen entries, each in a process; one that fails stops no other."""
    import multiprocessing

    from tqdm import tqdm

    from seedsbench.certify.row import certify

    rows, failures = [], []
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own threads
    with ProcessPoolExecutor(arguments.jobs, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(certify, entry, samples=arguments.samples): entry for entry in chosen}
        with tqdm(total=len(chosen), unit="solver", disable=None) as bar:
            for future in as_completed(futures):
                title = futures[future].title
                try:
                    rows.append(future.result())
                except Exception as error:
                    failures.append(f"{title}: failed: {type(error).__name__}: {error}")
                bar.set_postfix_str(title)
                bar.update()
    return rows, failures


def _older(table: Path, titles: list[str]) -> list[dict[str, Any]]:
    """Rows of an earlier certificate, of solvers that still exist."""
    import pandas as pd

    if not table.is_file():
        return []
    return [row for row in pd.read_csv(table).to_dict("records") if row.get("solver") in titles]


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
