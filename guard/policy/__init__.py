"""The policy: its language, its files, and its compilation to a plan."""
