"""Finished studies, checked against what their rows claim: `seedsbench-check`."""
