"""Soaks a real guard in mixed load and faults, and says whether anything grows.

    python -m tests.soak --minutes 30 --seed 1 [--out DIRECTORY]

Linux only: memory, descriptors and threads are read from /proc. The report goes to stdout, and as JSON and a picture to
DIRECTORY. The exit code is 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.report import picture, text, write_json
from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".bench/soak"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="guard-soak-") as folder:
        found = asyncio.run(soak(Path(folder), given.minutes * 60, given.seed))
    write_json(found, given.out / "soak.json")
    picture(found, given.out / "soak.png")
    print(text(found))
    return 0 if all(check.ok for check in found.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
