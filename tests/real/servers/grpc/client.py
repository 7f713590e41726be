"""Drive an Open Inference server with `tritonclient.grpc` and print what it got as one JSON document.

    client.py HOST:PORT [--model digits] [--input predict] [--outputs predict_proba,predict] [--ca FILE --pair FILE]

Every call's answer, or the error that the client library raised, stands under the call's name. Exit status 0 means that
every call ended in an answer or in the library's own exception; the test judges their content.
"""

import argparse
import json
import queue
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from sklearn.datasets import load_digits
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

PIXELS = (load_digits().data / 16.0).astype(np.float32)
STREAMED = 6


class Calls:
    """The calls that the test looks at."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        ca = pair = None
        if arguments.ca:
            ca = arguments.ca
            pair = arguments.pair
        self.client = triton.InferenceServerClient(
            arguments.address, ssl=bool(ca), root_certificates=ca, private_key=pair, certificate_chain=pair
        )
        self.address, self.ca, self.unary = arguments.address, ca, arguments.unary
        self.model, self.input = arguments.model, arguments.input
        self.scores, self.label = arguments.outputs.split(",")

    def tensor(self, rows: np.ndarray) -> triton.InferInput:
        """Return the input, raw."""
        made = triton.InferInput(self.input, list(rows.shape), "FP32")
        return made.set_data_from_numpy(rows)

    def outputs(self, *names: str, classes: int = 0) -> list[triton.InferRequestedOutput]:
        return [triton.InferRequestedOutput(name, class_count=classes) for name in names]

    def infer(self, rows: np.ndarray, *names: str, classes: int = 0, **options: Any) -> dict[str, Any]:
        """Ask once."""
        outputs = self.outputs(*names, classes=classes) if names else None
        return shown(self.client.infer(self.model, [self.tensor(rows)], outputs=outputs, **options))

    def typed(self) -> dict[str, Any]:
        """Ask with the members typed, one by one, over the bare stubs."""
        request = service_pb2.ModelInferRequest(model_name=self.model, id="typed-1")
        tensor = request.inputs.add(name=self.input, datatype="FP32", shape=[3, 64])
        tensor.contents.fp32_contents.extend(PIXELS[:3].ravel().tolist())
        for name in (self.scores, self.label):
            request.outputs.add(name=name)
        with grpc.insecure_channel(self.address) as channel:
            return shown(
                triton.InferResult(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20))
            )

    def shared_memory(self) -> dict[str, Any]:
        """Ask for an answer in shared memory."""
        output = triton.InferRequestedOutput(self.scores)
        output.set_shared_memory("region", 1024)
        return shown(self.client.infer(self.model, [self.tensor(PIXELS[:1])], outputs=[output]))

    def stream(self, **options: Any) -> list[Any]:
        """Ask several times over one stream, the last time for a model that there is not."""
        came: queue.Queue[Any] = queue.Queue()
        self.client.start_stream(lambda result, error: came.put((result, error)), **options)
        for i in range(STREAMED):
            outputs = self.outputs(self.scores)
            self.client.async_stream_infer(
                self.model,
                [self.tensor(PIXELS[i : i + 1])],
                outputs=outputs,
                request_id=f"s{i}",
                enable_empty_final_response=i == 0,
            )
        self.client.async_stream_infer("nobody", [self.tensor(PIXELS[:1])], request_id="gone")
        found = [came.get(timeout=20) for _ in range(STREAMED + 1)]
        self.client.stop_stream()
        return [shown(result) if error is None else {"error": {"message": error.message()}} for result, error in found]

    def document(self) -> dict[str, Any]:
        """Make every call once."""
        client, model = self.client, self.model
        both = (self.scores, self.label)
        calls: dict[str, Callable[[], Any]] = {
            "server_live": client.is_server_live,
            "server_ready": client.is_server_ready,
            "model_ready": lambda: client.is_model_ready(model),
            "unknown_model_ready": lambda: client.is_model_ready("nobody"),
            "server_metadata": lambda: str(client.get_server_metadata()),
            "model_metadata": lambda: str(client.get_model_metadata(model)),
            "model_config": lambda: str(client.get_model_config(model)),
            "statistics": lambda: str(client.get_inference_statistics()),
            "repository": lambda: str(client.get_model_repository_index()),
            "shared_memory_status": lambda: str(client.get_system_shared_memory_status()),
            "single": lambda: self.infer(PIXELS[:1], self.scores),
            "both": lambda: self.infer(PIXELS[:3], *both, request_id="both-1"),
            "reversed": lambda: self.infer(PIXELS[:3], *both[::-1]),
            "default_outputs": lambda: self.infer(PIXELS[:2]),
            "gzip": lambda: self.infer(PIXELS[:40], *both, compression_algorithm="gzip"),
            "deadline": lambda: self.infer(PIXELS[:2], *both, client_timeout=10),
            "shared_memory": self.shared_memory,
            "classification": lambda: self.infer(PIXELS[:3], self.scores, classes=5),
            "unknown_model": lambda: str(client.infer("nobody", [self.tensor(PIXELS[:1])])),
            "unknown_output": lambda: self.infer(PIXELS[:2], "decision_function"),
            "bad_shape": lambda: self.infer(PIXELS[:2, :32], self.scores),
            "stream": self.stream,
        }
        if not self.ca:
            calls["typed"] = self.typed
        if self.unary:
            del calls["stream"]
        return {name: attempt(call) for name, call in calls.items()}


def shown(result: triton.InferResult) -> dict[str, Any]:
    """Give a result as lists."""
    response = result.get_response()
    arrays = {output.name: plain(members(result, output)) for output in response.outputs}
    return {
        "id": response.id,
        "model": response.model_name,
        "raw": len(response.raw_output_contents) > 0,
        "parameters": sorted(response.parameters),
        "datatypes": {output.name: output.datatype for output in response.outputs},
        "arrays": arrays,
    }


def members(result: triton.InferResult, output: Any) -> np.ndarray:
    """Give a tensor's members; of typed ones the library reads some kinds only."""
    for _, found in output.contents.ListFields():
        return np.array(list(found)).reshape(output.shape)
    return result.as_numpy(output.name)


def plain(array: np.ndarray) -> Any:
    return np.char.decode(array.astype(bytes)).tolist() if array.dtype == np.object_ else array.tolist()


def attempt(call: Callable[[], Any]) -> Any:
    """Give the call's answer, or what the library raised with the server's status and message."""
    try:
        return call()
    except InferenceServerException as error:
        return {"error": {"status": error.status(), "message": error.message()}}
    except grpc.RpcError as error:
        return {"error": {"status": str(error.code()), "message": error.details()}}


def main() -> None:
    """Read the address, call, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server or of the guard before it")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--input", default="predict")
    parser.add_argument("--outputs", default="predict_proba,predict", help="scores and label")
    parser.add_argument("--ca", help="PEM file: speak TLS with servers of this issuer")
    parser.add_argument("--pair", help="PEM file: the client's key and certificate")
    parser.add_argument("--unary", action="store_true", help="open no stream: MLServer answers none before its end")
    print(json.dumps(Calls(parser.parse_args()).document(), indent=1))


if __name__ == "__main__":
    main()
