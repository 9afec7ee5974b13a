"""The chaos suite: every promise of the queue, tried on real processes that are really hurt.

pytest runs a short form of each scenario; `python -m tests.chaos` runs the full one and prints a
table.
"""
