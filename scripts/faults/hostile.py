"""Stub."""

KINDS = ()
