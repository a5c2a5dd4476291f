"""`python -m seedsbench` is `seedsbench`."""

from seedsbench.cli.main import main

main()
