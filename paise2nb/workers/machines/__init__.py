"""Other machines run jobs: messages through Redis, the relay at home, and a machine that joins."""
