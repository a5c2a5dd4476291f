"""Without the extra: `import seedsbench` does not miss it; what needs it says what to install."""

import pytest

from tests.support.cells import python
from tests.support.machine import ROOT

HIDDEN = """
import sys
sys.modules["diffusers"] = None
import seedsbench, seedsbench.integrations
seedsbench.sample
import seedsbench.integrations.diffusers
"""


def test_import_seedsbench_does_not_miss_it_and_what_does_says_what_to_install():
    last = python("-c", HIDDEN, folder=ROOT, code=1).strip().splitlines()[-1]
    assert last.startswith("ImportError: seedsbench.integrations needs the diffusers library (")
    assert last.endswith("): pip install 'seedsbench[diffusers]'")


@pytest.mark.slow
def test_import_seedsbench_imports_no_diffusers():
    code = "import sys, seedsbench, seedsbench.integrations; seedsbench.sample\n"
    code += "print('diffusers' in sys.modules)"
    assert python("-c", code, folder=ROOT) == "False\n"
