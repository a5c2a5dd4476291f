"""Readers of other people's weights: one module a format, none of which runs code found in a file."""
