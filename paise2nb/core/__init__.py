"""What every layer uses: errors, clocks, processes, files, SQLite, URLs, rendering. No jobs."""
