"""What Hydra's launchers do when a worker dies, mended: it costs its own cell, and the others are waited for.

As they come they give up at the first: submitit's stops waiting for its other jobs, joblib's ends them.
Imports no launcher before one is used.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus


@contextmanager
def surviving(launcher: str) -> Iterator[list[str]]:
    """While this holds, cells whose worker dies return None; gives a list of what is known of them.

    launcher: name of a Hydra launcher; one that is neither submitit's nor joblib's stays as it is.
    """
    lost: list[str] = []
    try:
        mended = _joblib(lost) if launcher == "joblib" else _submitit(lost)
    except ImportError:
        yield lost
        return
    owner, name, value = mended
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield lost
    finally:
        setattr(owner, name, before)


def _submitit(lost: list[str]) -> tuple[Any, str, Any]:
    """The method that waits for a job, not raising."""
    from submitit import Job  # type: ignore[import-not-found]
    from submitit.core.utils import UncompletedJobError  # type: ignore[import-not-found]

    results = Job.results

    def waiting(job: Any) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError as error:
            lost.append(str(error).strip())
            return [JobReturn(status=JobStatus.COMPLETED)]

    return Job, "results", waiting


def _joblib(lost: list[str]) -> tuple[Any, str, Any]:
    """The function that runs cells; what is left when a worker has died, it runs one by one."""
    from hydra_plugins.hydra_joblib_launcher import _core  # type: ignore[import-not-found]
    from joblib.externals.loky.process_executor import (  # type: ignore[import-not-found]
        TerminatedWorkerError,
    )

    launch = _core.launch

    def launching(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        try:
            return list(launch(launcher, job_overrides, initial_job_idx))
        except TerminatedWorkerError:  # of which cell, nobody knows; finished ones are found done
            print("seedsbench: a worker was lost; its cell and the others go on one by one", file=sys.stderr)
        results = []
        for index, overrides in enumerate(job_overrides, initial_job_idx):
            try:
                results += launch(launcher, [overrides], index)
            except TerminatedWorkerError:  # noqa: PERF203
                lost.append(f"{' '.join(overrides)}: its worker died (killed, or out of memory?)")
                results.append(JobReturn(status=JobStatus.COMPLETED))
        return results

    return _core, "launch", launching
