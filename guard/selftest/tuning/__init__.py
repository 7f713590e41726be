"""Searches a policy's parameters for the least that honest users must pay."""
