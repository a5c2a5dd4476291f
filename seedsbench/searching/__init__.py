"""Grids searched by rule: a fine solution of the ODE is the teacher, a few of its levels are chosen."""
