"""Exponential tableaus in files: they read as they are written, and have the order that they say."""

import pytest
import torch

import seedsbench
from seedsbench.solvers.parts.tableau import evaluate
from seedsbench.solvers.parts.tableau_files import parse_weight, read_tableau, tableau_file, tableau_names
from tests.support.measure import limit_drift_order

ETD3RK = {
    "source": "Cox and Matthews 2002",
    "order": 3,
    "exact_for_constants": True,
    "nodes": [0, "1/2", 1],
    "stages": [[], ["2 phi1"]],
    "end": ["4 phi2 - 8 phi3", "4 phi3 - phi2"],
}
QUICK = ("etd4rk", "lawson2b", "res4lyf_res_3s_sunstar")


def test_weights_read_as_they_are_written():
    assert parse_weight("4 phi2 - 8/3 phi3(1/2)") == ((4.0, 2, 1.0), (-8 / 3, 3, 0.5))
    assert parse_weight("-phi0") == ((-1.0, 0, 1.0),)
    assert parse_weight("0") == ()
    for wrong in ("4 phi", "phi2 phi3", "2 psi1", "4 phi2 -", "1/2"):
        with pytest.raises(ValueError, match="write it as"):
            parse_weight(wrong)


def test_a_file_is_its_tableau():
    tableau = read_tableau(ETD3RK).coefficients
    z = torch.tensor(-0.7, dtype=torch.float64)
    first = z * (evaluate(tableau.b[0], z))
    assert float(first) == pytest.approx(  # Cox and Matthews 2002, eq. 25, multiplied out
        float((-4 - z + z.exp() * (4 - 3 * z + z**2)) / z**2), rel=1e-12
    )
    assert tableau == tableau_file("etd3rk").coefficients


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"order": 4}, "sum b c"),
        ({"end": ["4 phi2 - 8 phi3", "4 phi3 - 2 phi2"]}, "sum b c must be 0.5"),
        ({"stages": [[], ["phi1"]]}, "sum b a c must be"),
        ({"exact_for_constants": False}, "must|sum"),
    ],
)
def test_coefficients_that_do_not_have_their_order_are_refused(entries, said):
    with pytest.raises(ValueError, match=said):
        read_tableau(ETD3RK | entries)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'krogstad'"):
        seedsbench.solver("exp_rk", tableau="krogstadt")


def test_what_departs_from_what_is_published_says_why():
    for name in tableau_names():
        file = tableau_file(name)
        assert (file.published != file.coefficients.order) == bool(file.cause), name
        assert file.source, name


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in tableau_names()]
)
@pytest.mark.parametrize("prediction", ["data", pytest.param("noise", marks=pytest.mark.slow)])
def test_each_has_the_order_that_it_says(name, prediction):
    solver = seedsbench.solver("exp_rk", tableau=name, prediction=prediction)
    assert limit_drift_order(solver, counts=(16, 32, 64)) == pytest.approx(solver.order, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", tableau_names())
def test_on_the_reverse_sde_each_has_the_weak_order_that_it_says(name):
    from seedsbench.certify.row import gaussian_orders

    solver = seedsbench.solver("exp_rk", tableau=name, eta=1.0)
    assert gaussian_orders(solver, 128)[1] == pytest.approx(solver.weak_order, abs=0.3)
