"""The exponential tableaus that lie in `seedsbench/solvers/tableaus/`: published ones and RES4LYF's."""

from seedsbench.certify.external.published import Library, Published
from seedsbench.solvers.parts.tableau_files import TableauFile, tableau_file, tableau_names


def _claims() -> list[Published]:
    """Each file, as solver=exp_rk, with the order that is published of it."""
    found = {name: tableau_file(name) for name in tableau_names()}
    return [
        Published(name, {"name": "exp_rk", "tableau": name}, file.source, file.published, cause=_cause(file))
        for name, file in found.items()
    ]


def _cause(file: TableauFile) -> str:
    """Why it departs, with the first classical order condition that its coefficients miss, if any."""
    missed = [
        f". At z = 0 {name} is {value:.4g}, not {wanted:.4g}"
        for _, name, value, wanted in file.coefficients.conditions()
        if abs(value - wanted) > 1e-9
    ]
    return "".join([file.cause, *missed[:1]]) if file.cause else ""


TABLEAUS = Library(name="tableaus", module=None, install="", rounding=1e-9, claims=_claims)
