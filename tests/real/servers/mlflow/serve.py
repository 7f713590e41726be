"""Train a breast cancer classifier and serve it with MLflow's real scoring server, in this one process.

Listens on 127.0.0.1 only. The model is scikit-learn's LogisticRegression on every second row of the breast cancer data
(30 named columns, two classes), saved in MLflow's format and served by the application that `mlflow models serve` runs.
`--answers` chooses what `predictions` holds: `probabilities` (a list of two a row), `labels` (a number a row), or
`records` (an object a row, as models that return a data frame do).

The scoring server itself knows `/invocations` only, while MLflow's deployments client posts to
`/endpoints/NAME/invocations`. `--endpoint NAME` serves that path too, as a gateway in front of the server would.

Ends on SIGTERM, on Ctrl-C, and when the process that started it ends; nothing is left behind.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # no call home from a test, and none from its import

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import pandas as pd
import uvicorn
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Records(mlflow.pyfunc.PythonModel):
    """Answers a data frame: a label and two probabilities a row."""

    def __init__(self, model: LogisticRegression) -> None:
        self.model = model

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Score the rows."""
        scores = self.model.predict_proba(model_input)
        return pd.DataFrame({"label": scores.argmax(axis=1), "malignant": scores[:, 0], "benign": scores[:, 1]})


def train(path: Path, answers: str) -> None:
    """Fit the classifier and save it in MLflow's format; the same data give the same model on every run."""
    rows, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=5000).fit(rows[::2], labels[::2])
    if answers == "records":
        records = Records(model)
        signature = infer_signature(rows[:3], records.predict(None, rows[:3]))
        mlflow.pyfunc.save_model(path, python_model=records, signature=signature, pip_requirements=[])
        return
    function = "predict" if answers == "labels" else "predict_proba"
    signature = infer_signature(rows[:3], getattr(model, function)(rows[:3]))
    mlflow.sklearn.save_model(
        model,
        path,
        signature=signature,
        pyfunc_predict_fn=function,
        serialization_format="cloudpickle",
        pip_requirements=[],  # served here and now: do not ask a registry what to install elsewhere
    )


def under_endpoint(app: App, name: str) -> App:
    """Answer `/endpoints/NAME/invocations` as `/invocations`."""

    async def rewritten(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == f"/endpoints/{name}/invocations":
            scope = {**scope, "path": "/invocations", "raw_path": b"/invocations"}
        await app(scope, receive, send)

    return rewritten


def end_with_parent() -> None:
    """Send this process SIGTERM once the process that started it is gone (a test run that was killed)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read the port, save the model in a temporary folder, serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answers", choices=("probabilities", "labels", "records"), default="probabilities")
    parser.add_argument("--endpoint", help="also answer /endpoints/NAME/invocations")
    arguments = parser.parse_args()
    end_with_parent()
    with tempfile.TemporaryDirectory(prefix="mlflow-") as name:
        path = Path(name) / "model"
        train(path, arguments.answers)
        app: App = scoring_server.init(mlflow.pyfunc.load_model(str(path)))
    # The folder is gone by now: uvicorn ends by raising SIGTERM again, which would skip its removal.
    if arguments.endpoint:
        app = under_endpoint(app, arguments.endpoint)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
