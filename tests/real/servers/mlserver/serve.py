"""Train a digits classifier and serve it with the real MLServer, on 127.0.0.1 only, in this one process.

The model `digits`, version `v1`, is scikit-learn's LogisticRegression on half of the digits (64 pixels in 0..1, ten
classes). It answers the tensors `predict` (labels, the default) and `predict_proba` (probabilities).

Ends on SIGTERM, on Ctrl-C, and when the process that started it ends; nothing is left behind.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import joblib
from mlserver import MLServer
from mlserver.cli.serve import load_settings
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def train(path: Path) -> None:
    """Fit the classifier and write it to `path`; the same bytes of data give the same model on every run."""
    pixels, labels = load_digits(return_X_y=True)
    fit_pixels, _, fit_labels, _ = train_test_split(
        pixels / 16.0, labels, test_size=0.5, random_state=0, stratify=labels
    )
    joblib.dump(LogisticRegression(C=1.0, max_iter=2000).fit(fit_pixels, fit_labels), path)


def write_settings(folder: Path, *, port: int, grpc_port: int) -> None:
    """Lay out the model repository that `mlserver start` would read."""
    model = folder / "digits"
    model.mkdir()
    train(model / "digits.joblib")
    server = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,  # its listener would want a third port
        "parallel_workers": 0,  # inference in this process: no children
    }
    (folder / "settings.json").write_text(json.dumps(server))
    settings = {
        "name": "digits",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./digits.joblib", "version": "v1"},
    }
    (model / "model-settings.json").write_text(json.dumps(settings))


def end_with_parent() -> None:
    """Send this process SIGTERM once the process that started it is gone (a test run that was killed)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


async def serve(folder: Path) -> None:
    """Run the server as `mlserver start FOLDER` does."""
    settings, models = await load_settings(str(folder))
    await MLServer(settings).start(models)


def main() -> None:
    """Read the ports, prepare a temporary model repository, serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="HTTP")
    parser.add_argument("--grpc-port", type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent()
    with tempfile.TemporaryDirectory(prefix="mlserver-") as name:
        folder = Path(name)
        write_settings(folder, port=arguments.port, grpc_port=arguments.grpc_port)
        asyncio.run(serve(folder))


if __name__ == "__main__":
    main()
