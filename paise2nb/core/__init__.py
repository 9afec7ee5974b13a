"""What every layer uses and what knows nothing of jobs."""
