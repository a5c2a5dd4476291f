"""EDM2's files of statistics: numbers as the standard pickler wrote them, and nothing runs."""

import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest

from seedsbench.metrics.reference import read_reference, statistics_id
from tests.support.edm2_plain import array
from tests.support.edm_files import Call, Name, New, dumped
from tests.support.extractors import DIM, fake_extractor

OTHER = DIM + 1
EXTRACTORS = {
    "fid": dataclasses.replace(fake_extractor(), entry="fid"),
    "fd_dinov2": dataclasses.replace(fake_extractor(), dim=OTHER, entry="fd_dinov2"),
}


def gaussian(dim):
    root = np.random.default_rng(dim).standard_normal((dim, dim))
    return {"mu": root[0].copy(), "sigma": root @ root.T}


STATISTICS = {"fid": gaussian(DIM), "fd_dinov2": gaussian(OTHER)}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_each_extractor_finds_its_own(tmp_path, protocol):
    path = tmp_path / "img512.pkl"
    path.write_bytes(pickle.dumps({"num_images": 50_000, **STATISTICS}, protocol))
    for entry, extractor in EXTRACTORS.items():
        found, wanted = read_reference(path, extractor), STATISTICS[entry]
        np.testing.assert_array_equal(found.moments.mu, wanted["mu"])
        np.testing.assert_array_equal(found.moments.sigma, wanted["sigma"])
        assert (found.moments.n, found.name) == (50_000, "img512.pkl")
        assert found.id == statistics_id(wanted["mu"], wanted["sigma"])
        np.savez(tmp_path / "same.npz", **wanted)
        assert read_reference(tmp_path / "same.npz", extractor).id == found.id


def test_other_spellings_are_read(tmp_path):
    sigma = np.asfortranarray(STATISTICS["fid"]["sigma"] + np.diag(np.arange(DIM) * 1.0))
    sigma[0, 1] = sigma[1, 0] = 0.5
    old = {"mu": array(STATISTICS["fid"]["mu"], "numpy.core.multiarray", "f4"), "sigma": sigma}
    (tmp_path / "a.pkl").write_bytes(dumped({"fid": old, "more": New("dnnlib.util", "EasyDict")}))
    found = read_reference(tmp_path / "a.pkl", EXTRACTORS["fid"]).moments
    np.testing.assert_array_equal(found.sigma, sigma)
    np.testing.assert_array_equal(found.mu, STATISTICS["fid"]["mu"].astype(np.float32))
    assert found.n == 0


def hostile(command):
    """name -> (what is pickled, what the refusal says)."""
    good = STATISTICS["fid"]
    large = array([1.0], shape=(10**6, 10**6))
    return {
        "code": ({"fid": good, "x": Call("os", "system", command)}, "names the global os.system"),
        "code of numpy": ({"fid": good, "x": Call("numpy", "load", "x")}, "names the global numpy.load"),
        "objects": ({"fid": {**good, "mu": np.array([{}] * DIM)}}, "only plain numbers are read"),
        "a tensor": ({"fid": {**good, "mu": Name("torch._utils", "_rebuild_tensor_v2")}}, "_rebuild_tensor"),
        "a network": ({"fid": Call("torch_utils.persistence", "_reconstruct_persistent_obj", {})}, "torch_u"),
        "more than it holds": ({"fid": {**good, "sigma": large}}, "sets the state"),
        "not its features": ({"fd_dinov2": good}, "has no statistics 'fid': it holds the text 'fd_dinov2'"),
        "no statistics": (
            {"fid": {"mu": good["mu"]}},
            "its 'fid' is a dict: expected a dict with",
        ),
        "a list": ([good], "it holds a list"),
        "another dimension": ({"fid": STATISTICS["fd_dinov2"]}, r"mu and sigma have shapes \(7,\)"),
        "not finite": ({"fid": {**good, "mu": good["mu"] * np.nan}}, "mean is not finite|finite"),
        "no covariance": ({"fid": {**good, "sigma": -good["sigma"]}}, "its"),
        "no number of images": ({"fid": good, "num_images": -1}, "num_images is the value -1"),
    }


@pytest.mark.parametrize("name", list(hostile("")))
def test_a_hostile_file_is_refused_in_one_line_and_without_effect(tmp_path, name):
    marker, path = tmp_path / "it ran", tmp_path / "a.pkl"
    value, said = hostile(f"touch '{marker}'")[name]
    path.write_bytes(dumped(value))
    tracemalloc.start()
    with pytest.raises(ValueError, match=said) as caught:
        read_reference(path, EXTRACTORS["fid"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert peak < 10e6


def test_every_cut_file_is_refused(tmp_path):
    data = pickle.dumps(STATISTICS)
    for end in range(0, len(data), 61):
        (tmp_path / "a.pkl").write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"a\.pkl is not read"):
            read_reference(tmp_path / "a.pkl", EXTRACTORS["fid"])


def test_features_that_such_files_are_not_of_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(STATISTICS))
    said = "a.pkl is of features other than fake's: such files are of metrics=inception, and"
    with pytest.raises(ValueError, match=said):
        read_reference(tmp_path / "a.pkl", fake_extractor())
    with pytest.raises(ValueError, match="holds no features: make it with seedsbench-reference --features"):
        read_reference(tmp_path / "a.pkl", EXTRACTORS["fid"], features=True)
