"""Slurm as far as a sweep sees it: sbatch, srun, sacct and scontrol as one program, jobs run one by one here.

Jobs get the environment of a cluster that hands nothing of the submitter's SEEDSBENCH_* on.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HOME, arguments = Path(sys.argv[0]).parent.parent, sys.argv[1:]


def flag(text, name, default):
    found = re.search(rf"--{name}=(\S+)", text)
    return shlex.split(found.group(1))[0] if found else default


def sbatch():
    text = Path(arguments[-1]).read_text()
    (HOME / "submitted.sh").write_text(text)
    print("Submitted batch job 7")
    if (HOME / "record_only").exists():
        return
    (HOME / "ended").unlink(missing_ok=True)
    last = int(re.match(r"0-(\d+)", flag(text, "array", "0-0")).group(1))
    if os.fork():
        return
    os.setsid()
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    for index in range(last + 1):
        number = str(70 + index) if "--array=" in text else "7"
        job = {"SLURM_JOB_ID": number, "SLURM_NTASKS": flag(text, "ntasks-per-node", "1")}
        job |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODEID": "0"}
        if "--array=" in text:
            job |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SEEDSBENCH_")}
        name = f"7_{index}" if "--array=" in text else "7"
        requeued, runs = HOME / f"requeue-{name}", 0
        while runs == 0 or requeued.exists():
            requeued.unlink(missing_ok=True)
            runs += 1
            (HOME / f"runs-{name}").write_text(str(runs))
            subprocess.run(["bash", "-c", text], env=kept | job)
    (HOME / "ended").touch()
    os._exit(0)


def opened(pattern, job, rank):
    name = pattern.replace("%A_%a", job).replace("%j", job).replace("%t", str(rank))
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def srun():
    streams, command = {}, list(arguments)
    while command[0].startswith("--"):
        name = command.pop(0)
        if name in ("--output", "--error"):
            streams[name] = command.pop(0)
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        environment = os.environ | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        out, err = (opened(streams[name], job, rank) for name in ("--output", "--error"))
        tasks.append(subprocess.Popen(command, stdout=out, stderr=err, env=environment))
        (HOME / f"pid-{job}-{rank}").write_text(str(tasks[-1].pid))
    sys.exit(max(abs(task.wait()) for task in tasks))


def scontrol():
    assert arguments[0] == "requeue"
    (HOME / f"requeue-{arguments[1]}").touch()


def sacct():
    print("JobID|State|NodeList")
    state = "COMPLETED" if (HOME / "ended").exists() else "RUNNING"
    print(f"7|{state}|localhost\n7_[0-99]|{state}|localhost")


def install(folder, monkeypatch, *, record_only=False):
    """Put the commands on PATH; `folder` then holds submitted.sh, runs-<job> and pid-<job>-<rank>."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher())  # an earlier test's knows job 7 as ended
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    if record_only:
        (folder / "record_only").touch()
    text = f"#!{sys.executable}\n{Path(__file__).read_text()}"
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # no other checkout that is installed
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name]()
