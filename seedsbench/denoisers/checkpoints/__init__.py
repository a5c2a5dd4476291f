"""Readers of other people's checkpoint files, one module a format."""
