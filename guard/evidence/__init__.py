"""Evidence against a client: counts, the null they are held against, bets, restarts, pools and thresholds. Pure.

Theory: `docs/detection.md`. A client's whole state is counts N[signal, bucket, bin] of windows of 16 queries.
"""
