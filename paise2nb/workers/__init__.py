"""What runs jobs: Huey over the job store, worker processes and their supervisor."""
