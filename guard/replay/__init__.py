"""Recorded traffic under another policy: what would change."""
