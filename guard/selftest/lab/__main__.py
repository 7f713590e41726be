"""`python -m guard.selftest.lab`: serve the lab's models; the first line on stdout is the port."""

from __future__ import annotations

import argparse
import contextlib

from guard.selftest.lab.server import serve

parser = argparse.ArgumentParser(prog="python -m guard.selftest.lab", description=__doc__)
parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0, help="of every split and training")
options = parser.parse_args()
with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how people end it
    serve(options.seed, options.port, options.host)
