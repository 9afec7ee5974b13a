"""For those who operate an installation: backups, and the check of its health."""
