"""The job store: the one place that knows the state of every job, with all SQL about jobs."""
