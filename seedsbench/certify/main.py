"""`seedsbench-certify`: measure what every solver really does and write it down."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

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
    import multiprocessing

    import pandas as pd
    from tqdm import tqdm

    from seedsbench.certify.distances import floor
    from seedsbench.certify.figure import write_figure
    from seedsbench.certify.row import certify
    from seedsbench.certify.table import ordered, write_csv, write_markdown

    rows = []
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own threads
    with ProcessPoolExecutor(arguments.jobs, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(certify, entry, samples=arguments.samples): entry for entry in chosen}
        with tqdm(total=len(chosen), unit="solver", disable=None) as bar:
            for future in as_completed(futures):
                rows.append(future.result())
                bar.set_postfix_str(rows[-1]["solver"])
                bar.update()
    table, folder = arguments.output / "certificate.csv", arguments.output
    measured = pd.DataFrame(rows)
    if arguments.solvers and table.is_file():
        old = pd.read_csv(table)
        old = old[~old["solver"].isin(measured["solver"]) & old["solver"].isin(titles)]
        measured = pd.concat([old, measured], ignore_index=True)
    df = ordered(measured)
    folder.mkdir(parents=True, exist_ok=True)
    floors = floor(samples=arguments.samples)
    write_csv(df, table)
    write_markdown(df, floors, folder / "certificate.md")
    written = [folder / "certificate.md", table, *write_figure(df, floors[1], folder)]
    wrong = [row for row in rows if row["verdict"] != "as declared"]
    for row in wrong:
        print(f"{row['solver']}: {row['verdict']}", file=sys.stderr)
    print(f"{len(rows) - len(wrong)} of {len(rows)} solvers measured are as declared")
    print("\n".join(map(str, written)))
    return int(len(wrong) > 0)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
