"""`seedsbench-fetch`: bring the files of cells into the cache, on a login node or ahead of a sweep.

    seedsbench-fetch model=cifar10_cond regime=vp metrics=inception
    seedsbench-fetch -m model=cifar10_cond,ffhq64 regime=vp,ve

The overrides are those of `seedsbench`; dry_run=true only prints, offline=true only checks what is
there. Exit codes: 0 all there, 1 some file could not be had, 2 the command was wrong.
"""

import logging
import sys
from functools import partial

from seedsbench.bench.cell import Cell
from seedsbench.cli.command import Usage, parse, use_config_dirs, with_experiment
from seedsbench.cli.compose import compositions
from seedsbench.cli.dry_run import dry_run_text, files_of
from seedsbench.files.console import exit_code
from seedsbench.files.download import FetchError
from seedsbench.files.model_files import resolve


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when all is there, 1 when a file could not be had, 2 when the command was wrong."""
    return exit_code("seedsbench-fetch", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("filelock").setLevel(logging.WARNING)
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return 0
    try:
        command = parse(arguments)
        use_config_dirs(command)
        cells = [one.cell for one in compositions(with_experiment(command), study="fetch")]
        if cells[0].dry_run:
            print(dry_run_text(cells))
            return 0
        failed = _fetch_all(cells)
    except (Usage, ValueError) as error:
        print(f"seedsbench-fetch: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def _fetch_all(cells: list[Cell]) -> int:
    """Fetch each file once; says what became of it, and returns how many could not be had."""
    failed, seen, found = 0, set(), files_of(cells)
    for title, files in found.items():
        if isinstance(files, ValueError):
            if len(found) == 1:
                raise files
            failed += 1
            print(f"seedsbench-fetch: {title}: {files}", file=sys.stderr)
            continue
        if not files:
            print(f"{title}: nothing to fetch")
        for wanted in files:
            place = (wanted.remote, wanted.path)
            if place in seen:
                continue
            seen.add(place)
            try:
                file = resolve(wanted, offline=cells[0].offline)
            except FetchError as error:
                failed += 1
                print(f"seedsbench-fetch: {error}", file=sys.stderr)
            else:
                print(f"{title}: {wanted.role} {file.path} (sha256 {file.sha256})")
    return failed


if __name__ == "__main__":
    sys.exit(main())
