"""Codecs: one file an API, one line of registration."""
