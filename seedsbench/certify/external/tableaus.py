"""The exponential tableaus that lie in `seedsbench/solvers/tableaus/`: published ones and RES4LYF's."""

from seedsbench.certify.external.claim import Claim, Library
from seedsbench.solvers.parts.tableau_files import tableau_file, tableau_names


def claims() -> list[Claim]:
    """Each file, as solver=exp_rk, with the order that is published of it."""
    found = {name: tableau_file(name) for name in tableau_names()}
    return [
        Claim(name, {"name": "exp_rk", "tableau": name}, file.source, file.published, cause=file.cause)
        for name, file in found.items()
    ]


LIBRARY = Library(name="tableaus", module=None, install="", rounding=1e-9, claims=claims)
