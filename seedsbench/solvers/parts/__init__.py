"""Machinery that several solvers share."""
