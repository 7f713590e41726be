"""Serve a digits classifier with Ray Serve: what `tests/recorded/ray` came from.

The HTTP proxy listens on 127.0.0.1, but the processes that Ray starts beside it (raylet, gcs_server, dashboard and
metrics agents) listen on every interface. Run it, and the recorder, in a network namespace with a loopback only:

    unshare --net sh -c 'ip link set lo up; python serve.py --port 18120 & ...'

Ray writes a cluster token into the home directory: give it a HOME of its own. All its processes end with this one on
SIGTERM.
"""

import argparse
import os
import signal
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no call home

import numpy as np
import ray
from ray import serve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.5})
class Digits:
    """Scores digits with the same classifier as the other servers'."""

    def __init__(self) -> None:
        pixels, labels = load_digits(return_X_y=True)
        rows, _, truth, _ = train_test_split(pixels / 16.0, labels, test_size=0.5, random_state=0, stratify=labels)
        self.classifier = LogisticRegression(max_iter=2000).fit(rows, truth)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer an object a row."""
        scores = self.classifier.predict_proba(np.array((await request.json())["instances"]))
        return {
            "predictions": [
                {"label": int(row.argmax()), "score": float(row.max()), "probs": row.tolist()} for row in scores
            ]
        }


def main() -> None:
    """Read the port, serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Digits.bind(), route_prefix="/digits")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
