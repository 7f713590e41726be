"""Where ledgers are kept: in memory, in a SQLite file, in Redis. `open.open_state` picks one by URL."""
