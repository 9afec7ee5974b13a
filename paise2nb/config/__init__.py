"""Settings: profiles, layers of YAML, and what each key may hold."""
