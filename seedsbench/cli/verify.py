"""`seedsbench-verify`: make a printed FID again, and say whether it agrees.

    seedsbench-verify cifar10_uncond edm heun 35 device=cuda --sign-off "Ada <ada@example.org>"
    seedsbench-verify edm_table2                     # every printed number whose protocol is that experiment
    seedsbench-verify cifar10_uncond edm heun 35 dry_run=true

Fetches the network, statistics and feature network, samples and scores as the printed number was made
(50,000 images, three times, for EDM's), and compares. It agrees if the least of as many runs, or their mean
if that was printed, differs by at most 2 % of the printed number, or by the spread of the runs if that is
larger. The record in results/verified/ holds versions, card, hashes, rows and verdict: sign it off, and
send it by pull request (CONTRIBUTING.md). Rows that are done already, by torchrun for instance, are not run
again.

exit codes  0 agrees    1 does not agree, or could not be made    2 the command was wrong
"""

import argparse
import os
import sys
from datetime import datetime
from functools import partial
from pathlib import Path

from seedsbench.cli.command import Command, Usage, parse, use_config_dirs, with_experiment
from seedsbench.cli.compose import compositions
from seedsbench.cli.dry_run import files_of_cell
from seedsbench.cli.main import run_command
from seedsbench.files.atomic import write_atomic
from seedsbench.files.console import exit_code
from seedsbench.files.model_files import Wanted, resolve
from seedsbench.files.rows import Row, read_row
from seedsbench.report.printed import Printed, asked_for, printed
from seedsbench.report.verified import agreement, record_text, sentence

MAY_BE_CHOSEN = ("device", "batch_size", "results_dir", "study", "save_every", "log_progress")
MAY_BE_CHOSEN += ("offline", "force", "debug", "plan", "dry_run")
"""What may be chosen beside the number: where and how it is run. All else would make another number."""


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 where all agree, 1 where one does not or could not be made, 2 for a wrong command."""
    return exit_code("seedsbench-verify", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    given = _parser().parse_intermixed_args(argv)
    try:
        how = [word for word in given.words if "=" in word]
        numbers = asked_for([word for word in given.words if word not in how], printed(given.published))
        for word in how:
            if word.split("=")[0] not in MAY_BE_CHOSEN:
                raise ValueError(
                    f"{word} would make another number: beside it give {', '.join(MAY_BE_CHOSEN)}"
                )
        use_config_dirs(Command((), config_dirs=tuple(given.config_dir)))
        commands = [parse([*one.overrides, f"repeats={one.runs}", *how]) for one in numbers]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                f"run it by itself, after torchrun -m seedsbench {' '.join(commands[0].overrides)}"
            )
    except (Usage, ValueError, OSError) as error:
        print(f"seedsbench-verify: {error}", file=sys.stderr)
        return 2
    return max(_code(*both, given) for both in zip(numbers, commands, strict=True))


def _code(number: Printed, command: Command, given: argparse.Namespace) -> int:
    """Make one number again and say what came of it, or, in one line, why nothing did."""
    try:
        return _verified(number, command, given.output, given.sign_off)
    except (Usage, ValueError, OSError) as error:
        print(f"seedsbench-verify: {' '.join(number.name)}: {error}", file=sys.stderr)
        return 1


def _verified(number: Printed, command: Command, folder: Path, signed_off_by: str | None) -> int:
    (composed,) = compositions(with_experiment(command), study="verify")
    cell = composed.cell
    files = [] if cell.dry_run or cell.plan else [_file(one, cell.offline) for one in files_of_cell(cell)]
    ran = run_command(command)
    if ran.code >= 128 or not ran.keys:
        return ran.code
    rows = [_done(ran.study, key) for key in ran.keys]
    verdict = agreement(number, [row["fid"] for row in rows])
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = folder / f"{'-'.join(number.name)}_{stamp}.json"
    write_atomic(path, record_text(number, rows, verdict, files, signed_off_by).encode())
    print(f"\n{sentence(number, verdict)}")
    print(path if signed_off_by else f'{path} (to send it, add --sign-off "Name <address>")')
    return int(not verdict.agrees)


def _file(wanted: Wanted, offline: bool) -> dict[str, str]:
    """A file that is needed, had and checked: what a record says of it. Raises FetchError."""
    found = resolve(wanted, offline=offline)
    source = wanted.remote.source if wanted.remote else "a file of one's own"
    return {"role": wanted.role, "name": found.path.name, "source": source, "sha256": found.sha256}


def _done(study: Path, key: str) -> Row:
    """A row of the study; ValueError if it was not done."""
    row = read_row(study / "rows" / f"{key}.json")
    if row["status"] != "done":
        raise ValueError(f"seed {row.get('seed')} is {row['status']}: {row.get('reason')}")
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedsbench-verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="+", help="model regime solver nfe, or an experiment; device=cuda and so on"
    )
    parser.add_argument("--sign-off", help='"Name <address>": who says that it was run as the record says')
    parser.add_argument("--output", type=Path, default=Path("results/verified"), help="folder of the record")
    parser.add_argument("--published", type=Path, help="CSV of printed numbers in place of the package's own")
    parser.add_argument("--config-dir", action="append", default=[], help="of your own models and solvers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
