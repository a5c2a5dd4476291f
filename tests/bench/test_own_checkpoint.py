"""A researcher's own weights at full size, through the command line: a network, Inception, a row, again."""

import sys

import pytest

from seedsbench.data.uint8 import QUANTISERS
from seedsbench.files.digests import file_sha256
from tests.support.cells import python, rows_of
from tests.support.edm_checkpoint import CIFAR10, write_edm
from tests.support.extractors import HAS_TORCH_FIDELITY, some_images, write_images, write_inception

PEAK_MB = 2500
RUN = """
import sys
from seedsbench.cli.main import main
try:
    main(sys.argv[1:])
finally:
    status = open("/proc/self/status").read()
    print("peak kB", status.split("VmHWM:")[1].split()[0])
"""
MAKE = "from seedsbench.cli.reference import main; main()"


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs torch-fidelity (pip install torch-fidelity)")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its peak memory from /proc")
def test_a_cifar10_size_network_and_inception_leave_a_row_once_and_in_little_memory(tmp_path):
    network = {**CIFAR10, "attn_resolutions": [16]}
    net = write_edm(tmp_path / "net.pkl", resolution=32, network=network)
    assert net.stat().st_size > 4 * 55.7e6
    weights = write_inception(tmp_path / "inception.pth")
    write_images(tmp_path / "images", some_images(12, size=32))
    given = ("images", "ref.npz", "--weights", "inception.pth", "--features", "--device", "cpu")
    python("-c", MAKE, *given, folder=tmp_path)
    command = ["model=file", "model.path=net.pkl", "regime=vp", "solver=seeds3", "nfe=7", "samples=16"]
    command += ["metrics=inception", "metrics.weights=inception.pth", "metrics.reference=ref.npz"]
    command += ["metrics.real=ref.npz", "device=cpu", "study=own"]
    said = python("-c", RUN, *command, folder=tmp_path)
    assert int(said.split("peak kB")[1].split()[0]) / 1000 < PEAK_MB
    (row,) = rows_of(tmp_path / "results" / "own").values()
    assert (row["status"], row["reason"], row["nfe"]) == ("done", None, 7)
    scores = ("fid", "is_mean", "is_std", "kid_mean", "kid_std", "precision", "recall", "density", "coverage")
    assert None not in [row[score] for score in scores]
    protocol = ("samples", "seed", "extractor", "extractor_weights", "reference", "quantiser")
    known = (16, 0, "inception-v3", file_sha256(weights)[:16], "ref.npz", QUANTISERS["signed"])
    assert tuple(row[name] for name in protocol) == known
    assert all(len(row[name]) == 16 for name in ("model_id", "extractor_id", "reference_id"))
    assert "already done" in python("-c", RUN, *command, folder=tmp_path)
    assert rows_of(tmp_path / "results" / "own") == {row["run_key"]: row}
