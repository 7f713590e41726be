"""Drive an Open Inference server with `tritonclient.http` in JSON mode and print what it got as one JSON document.

    client.py BASE_URL [--model digits] [--api-key KEY]

Every call's answer, or the error that the client library raised, stands under the call's name. Exit status 0 means that
every call ended in an answer or in the library's own exception; the test judges their content.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from sklearn.datasets import load_digits
from tritonclient.utils import InferenceServerException

PIXELS = (load_digits().data / 16.0).astype(np.float32)


class Calls:
    """The calls that the test looks at, one method each, all through one real client."""

    def __init__(self, url: str, model: str, headers: dict[str, str]) -> None:
        self.client = triton.InferenceServerClient(url.removeprefix("http://").rstrip("/"))
        self.model = model
        self.headers = headers

    def infer(self, rows: np.ndarray, *outputs: str, **options: Any) -> dict[str, Any]:
        """Ask for the named output tensors, JSON both ways, and give them back as lists."""
        tensor = triton.InferInput("predict", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=False)
        wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in outputs] or None
        # a copy: the library writes Content-Encoding into the caller's dictionary
        result = self.client.infer(self.model, [tensor], outputs=wanted, headers=dict(self.headers), **options)
        answer: dict[str, Any] = result.get_response()
        arrays = {output["name"]: result.as_numpy(output["name"]).tolist() for output in answer["outputs"]}
        return {"response": answer, "arrays": arrays}

    def document(self) -> dict[str, Any]:
        """Make every call once."""
        client, model, headers = self.client, self.model, self.headers
        return {
            "server_live": attempt(lambda: client.is_server_live(headers=headers)),
            "server_ready": attempt(lambda: client.is_server_ready(headers=headers)),
            "model_ready": attempt(lambda: client.is_model_ready(model, headers=headers)),
            "unknown_model_ready": attempt(lambda: client.is_model_ready("nobody", headers=headers)),
            "model_metadata": attempt(lambda: client.get_model_metadata(model, headers=headers)),
            "single": attempt(lambda: self.infer(PIXELS[:1], "predict_proba")),
            "both": attempt(lambda: self.infer(PIXELS[:5], "predict_proba", "predict", request_id="both-1")),
            "reversed": attempt(lambda: self.infer(PIXELS[:5], "predict", "predict_proba")),
            "default_outputs": attempt(lambda: self.infer(PIXELS[:2])),
            "version": attempt(lambda: self.infer(PIXELS[:2], "predict_proba", model_version="v1")),
            "gzip_request": attempt(
                lambda: self.infer(PIXELS[:40], "predict_proba", "predict", request_compression_algorithm="gzip")
            ),
            "gzip_both": attempt(
                lambda: self.infer(
                    PIXELS[:40],
                    "predict_proba",
                    "predict",
                    request_compression_algorithm="gzip",
                    response_compression_algorithm="gzip",
                )
            ),
            "unknown_output": attempt(lambda: self.infer(PIXELS[:2], "decision_function")),
            # last: MLServer answers 500 and closes the connection without saying so
            "bad_shape": attempt(lambda: self.infer(PIXELS[:2, :32], "predict_proba")),
        }


def attempt(call: Callable[[], Any]) -> Any:
    """Give the call's answer, or what the library raised with the server's status and message."""
    try:
        return call()
    except InferenceServerException as error:
        return {"error": {"status": error.status(), "message": error.message()}}


def main() -> None:
    """Read the base URL, call, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="http://127.0.0.1:PORT of the server or of the guard before it")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--api-key", help="sent as `X-API-Key`")
    arguments = parser.parse_args()
    headers = {"X-API-Key": arguments.api_key} if arguments.api_key else {}
    print(json.dumps(Calls(arguments.base_url, arguments.model, headers).document(), indent=1))


if __name__ == "__main__":
    main()
