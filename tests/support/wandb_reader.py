"""What an offline W&B run holds: its `.wandb` file, a LevelDB log of protobuf records, read back."""

import json
import struct
import sys

BLOCK = 32768


def records(path):
    """The wandb Records of a run folder's `.wandb` file."""
    from wandb.proto import wandb_internal_pb2 as pb

    (file,) = path.glob("*.wandb")
    data, place, parts, found = file.read_bytes(), 7, [], []
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        if kind == 0:
            break
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = pb.Record()
            record.ParseFromString(b"".join(parts))
            found.append(record)
            parts = []
    return found


def _values(items):
    """Keys and values of an update; a nested key (samples, path) becomes a dict in a dict."""
    found = {}
    for item in items:
        place = found
        *above, last = item.nested_key or [item.key]
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


class OfflineRun:
    """Name, group, config, history, summary, metrics and exit code of an offline run."""

    def __init__(self, path):
        self.files = path / "files"
        self.config, self.summary, self.history, self.metrics, self.aims = {}, {}, [], {}, {}
        self.exit_code = None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            found = getattr(record, kind)
            if kind == "run":
                self.id, self.group, self.job_type = found.run_id, found.run_group, found.job_type
                self.name, self.sweep, self.project = found.display_name, found.sweep_id, found.project
                self.tags, self.commit = list(found.tags), found.git.commit
                self.config.update(_values(found.config.update))
            elif kind in ("config", "summary"):
                getattr(self, kind).update(_values(found.update))
            elif kind == "history":
                self.history.append(_values(found.item))
            elif kind == "metric":
                self.metrics[found.name] = found.step_metric
                self.aims[found.name] = "min" if found.summary.min else "max" if found.summary.max else ""
            elif kind == "exit":
                self.exit_code = found.exit_code


def offline_runs(study):
    """All offline runs below a study folder, oldest first."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # as at the end of a process: only now is everything on disk
    paths = sorted(study.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_ctime_ns)
    return [*map(OfflineRun, paths)]
