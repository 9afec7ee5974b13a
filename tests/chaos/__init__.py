"""The chaos suite: scenarios that kill, stop and damage real processes and files, and then check
that no job was lost and nothing was stored twice.

pytest runs a short form of each scenario. `python -m tests.chaos` runs the full form and prints a
table.
"""
