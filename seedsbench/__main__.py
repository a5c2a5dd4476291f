"""`python -m seedsbench` is `seedsbench`."""

from seedsbench.cli import main

main()
