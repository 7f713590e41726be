"""Guard: a reverse proxy that decides how much each client may learn from a deployed model."""

__version__ = "0.1.0"
