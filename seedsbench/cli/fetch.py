"""`seedsbench-fetch`: bring the files of cells into the cache, on a login node or ahead of a sweep.

    seedsbench-fetch model=cifar10_cond regime=vp metrics=inception
    seedsbench-fetch -m model=cifar10_cond,ffhq64 regime=vp,ve

The overrides are those of `seedsbench`; dry_run=true only prints, offline=true only checks what is
there. Exit codes: 0 all there, 1 some file could not be had, 2 the command was wrong.
"""

import logging
import os
import sys

from omegaconf import DictConfig

from seedsbench.cli.check import Usage, compositions, parse, with_experiment
from seedsbench.cli.dry_run import dry_run_text, files_of
from seedsbench.files.download import FetchError
from seedsbench.files.model_files import resolve


def main(argv: list[str] | None = None) -> None:
    """Entry point of `seedsbench-fetch`; exits the process."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("filelock").setLevel(logging.WARNING)
    os.environ.setdefault("SEEDSBENCH_STUDY", "fetch")  # part of any configuration; nothing is written there
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return
    try:
        configurations = compositions(with_experiment(parse(arguments)))
        if configurations[0].dry_run:
            print(dry_run_text(configurations))
            return
        failed = _fetch_all(configurations)
    except (Usage, ValueError) as error:
        print(f"seedsbench-fetch: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(1 if failed else 0)


def _fetch_all(configurations: list[DictConfig]) -> int:
    """Fetch each file once; says what became of it, and returns how many could not be had."""
    failed, seen, found = 0, set(), files_of(configurations)
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
                file = resolve(wanted, offline=configurations[0].offline)
            except FetchError as error:
                failed += 1
                print(f"seedsbench-fetch: {error}", file=sys.stderr)
            else:
                print(f"{title}: {wanted.role} {file.path} (sha256 {file.sha256})")
    return failed


if __name__ == "__main__":
    main()
