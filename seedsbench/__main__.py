"""`python -m seedsbench` is `seedsbench`."""

import os
import sys

from seedsbench.cli.main import main

if sys.path and sys.path[0] == os.getcwd():  # which Python itself puts there: no code of that folder may run
    del sys.path[0]
main()
