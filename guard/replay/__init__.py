"""Recorded traffic under another policy, and what a policy's edit means: what would change.

Theory of operation. Traffic (`bodies`, `sketches`) is requests in the order of time. An `engine` takes each through the
product's own handler, with the recorded clock, a model that says again what it said, and ledgers in memory, so that
budgets, windows, detection, ladder and defences are what serves and not a copy of it. Two engines run side by side
over one request after the other, and `compare` adds up what differs. `changes` looks at two policies instead.
"""
