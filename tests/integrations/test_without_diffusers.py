"""Without the extra: `import seedsbench` does not miss it; what needs it says what to install."""

import subprocess
import sys

from tests.support.machine import environment

HIDDEN = "import sys; sys.modules['diffusers'] = None\n"


def run(code):
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)


def test_import_seedsbench_imports_no_diffusers():
    code = "import sys, seedsbench, seedsbench.integrations as i; seedsbench.sample\n"
    code += "print('diffusers' in sys.modules)"
    assert run(code).stdout == "False\n"


def test_one_line_says_what_to_install():
    result = run(HIDDEN + "import seedsbench.integrations.diffusers")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("ImportError: seedsbench.integrations needs the diffusers library (")
    assert last.endswith("): pip install 'seedsbench[diffusers]'")
