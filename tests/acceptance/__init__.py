"""What the command, the notebook and the Python interface promise, tested by public names only."""
