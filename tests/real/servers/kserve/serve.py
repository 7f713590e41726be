"""Serve a digits classifier with the real KServe runtime, in V1 and V2: what `tests/recorded/kserve` came from.

Three models on one server, by what V1 `predictions` holds: `digits` (objects of label and probabilities),
`digits-lists` (a list of ten a row), `digits-labels` (a number a row). In V2 all three answer `probabilities` and
`label`. KServe listens on all interfaces unless told otherwise in code, as here: 127.0.0.1 only.
"""

import argparse
import uuid
from typing import Any

import numpy as np
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def train() -> LogisticRegression:
    """Fit the same classifier as the other servers' on half of the digits."""
    pixels, labels = load_digits(return_X_y=True)
    rows, _, truth, _ = train_test_split(pixels / 16.0, labels, test_size=0.5, random_state=0, stratify=labels)
    return LogisticRegression(max_iter=2000).fit(rows, truth)


class Digits(Model):
    """Answers both protocols from one classifier."""

    def __init__(self, name: str, classifier: LogisticRegression) -> None:
        super().__init__(name)
        self.classifier = classifier
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Score the rows of a V1 document or of a V2 request."""
        if isinstance(payload, InferRequest):
            return self.tensors(payload)
        scores = self.classifier.predict_proba(np.array(payload["instances"]))
        match self.name:
            case "digits-lists":
                return {"predictions": scores.tolist()}
            case "digits-labels":
                return {"predictions": scores.argmax(axis=1).tolist()}
            case _:
                return {"predictions": [{"label": int(row.argmax()), "probabilities": row.tolist()} for row in scores]}

    def tensors(self, request: InferRequest) -> InferResponse:
        """Answer JSON tensors."""
        scores = self.classifier.predict_proba(request.inputs[0].as_numpy())
        probabilities = InferOutput("probabilities", list(scores.shape), "FP64")
        probabilities.set_data_from_numpy(scores, binary_data=False)
        label = InferOutput("label", [len(scores)], "INT64")
        label.set_data_from_numpy(scores.argmax(axis=1), binary_data=False)
        return InferResponse(
            response_id=request.id or str(uuid.uuid4()), model_name=self.name, infer_outputs=[probabilities, label]
        )


class LocalConfig(uvicorn.Config):
    """KServe hard-codes the host 0.0.0.0."""

    def __init__(self, *positions: Any, **options: Any) -> None:
        super().__init__(*positions, **{**options, "host": "127.0.0.1"})


def main() -> None:
    """Read the port, serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_known_args()[0].port
    uvicorn.Config = LocalConfig
    classifier = train()
    models = [Digits(name, classifier) for name in ("digits", "digits-lists", "digits-labels")]
    ModelServer(http_port=port, enable_grpc=False, workers=1).start(models)


if __name__ == "__main__":
    main()
