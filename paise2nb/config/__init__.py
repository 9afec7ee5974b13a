"""Settings: profiles, layers of YAML, and the allowed values of each key."""
