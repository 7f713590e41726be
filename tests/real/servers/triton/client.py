"""Drive Triton with `tritonclient.http` in every form that it knows and print what it got as one JSON document.

    client.py BASE_URL

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
from tritonclient.utils import InferenceServerException, shared_memory

LEVELS = load_digits().data[:40]
PIXELS = (LEVELS / 16.0).astype(np.float32)
INPUTS: dict[str, tuple[str, np.ndarray]] = {
    "digits": ("FP32", PIXELS),
    "digits_fp16": ("FP16", PIXELS.astype(np.float16)),
    "digits_fp64": ("FP64", PIXELS.astype(np.float64)),
    "digits_int64": ("INT64", LEVELS.astype(np.int64)),
    "digits_bytes": ("BYTES", np.array([[str(i).encode()] for i in range(len(LEVELS))], dtype=object)),
}


class Calls:
    """The calls that the test looks at, all through one real client."""

    def __init__(self, url: str) -> None:
        self.client = triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=30)

    def infer(
        self,
        model: str = "digits",
        *,
        sends: bool = True,
        gets: bool | None = True,
        rows: np.ndarray | None = None,
        names: tuple[str, ...] = ("probabilities", "label"),
        **options: Any,
    ) -> dict[str, Any]:
        """Ask for the named tensors; `sends` and `gets` say whether binary, `gets=None` names no outputs."""
        datatype, data = INPUTS[model]
        data = data[:5] if rows is None else rows
        tensor = triton.InferInput("input-0", list(data.shape), datatype)
        tensor.set_data_from_numpy(data, binary_data=sends)
        wanted = None if gets is None else [triton.InferRequestedOutput(name, binary_data=gets) for name in names]
        result = self.client.infer(model, [tensor], outputs=wanted, request_id="one", **options)
        return answer_of(result)

    def mixed(self) -> dict[str, Any]:
        """Ask for scores as bytes and labels as JSON."""
        tensor = triton.InferInput("input-0", [5, 64], "FP32")
        tensor.set_data_from_numpy(PIXELS[:5])
        wanted = [triton.InferRequestedOutput(name, binary_data=name != "label") for name in ("probabilities", "label")]
        return answer_of(self.client.infer("digits", [tensor], outputs=wanted))

    def classified(self, *, binary: bool, count: int = 3, model: str = "digits") -> dict[str, Any]:
        """Ask for the scores in strings."""
        datatype, data = INPUTS[model]
        tensor = triton.InferInput("input-0", list(data[:2].shape), datatype)
        tensor.set_data_from_numpy(data[:2])
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=count)]
        return answer_of(self.client.infer(model, [tensor], outputs=wanted))

    def later(self) -> dict[str, Any]:
        """Ask by the library's asynchronous call."""
        tensor = triton.InferInput("input-0", [5, 64], "FP32")
        tensor.set_data_from_numpy(PIXELS[:5])
        return answer_of(self.client.async_infer("digits", [tensor]).get_result(timeout=30))

    def in_shared_memory(self, *, sends: bool) -> dict[str, Any]:
        """Leave the input, or have the scores left, in shared memory, which is registered first."""
        size = PIXELS[:5].nbytes
        region = shared_memory.create_shared_memory_region("region", "/guard-test-region", size)
        try:
            shared_memory.set_shared_memory_region(region, [PIXELS[:5]])
            registered = attempt(
                lambda: self.client.register_system_shared_memory("region", "/guard-test-region", size)
            )
            tensor = triton.InferInput("input-0", [5, 64], "FP32")
            wanted = triton.InferRequestedOutput("probabilities")
            if sends:
                tensor.set_shared_memory("region", size)
            else:
                tensor.set_data_from_numpy(PIXELS[:5])
                wanted.set_shared_memory("region", size)
            answer = attempt(lambda: self.client.infer("digits", [tensor], outputs=[wanted]).get_response())
            left = shared_memory.get_contents_as_numpy(region, np.float32, [5, 10]).tolist()
            attempt(lambda: self.client.unregister_system_shared_memory("region"))
            return {"registered": registered, "answer": answer, "left": left}
        finally:
            shared_memory.destroy_shared_memory_region(region)

    def document(self) -> dict[str, Any]:
        """Make every call once."""
        calls: dict[str, Callable[[], Any]] = {
            "json": lambda: self.infer(sends=False, gets=False),
            "binary": self.infer,
            "binary_in": lambda: self.infer(gets=False),
            "binary_out": lambda: self.infer(sends=False),
            "mixed": self.mixed,
            "default_outputs": lambda: self.infer(gets=None),
            "later": self.later,
            "reversed": lambda: self.infer(names=("label", "probabilities")),
            "single": lambda: self.infer(rows=PIXELS[:1]),
            "moved": lambda: self.infer("digits_fp64", rows=INPUTS["digits_fp64"][1][:5] + 0.01),
            "unknown_output": lambda: self.infer(names=("logits",)),
            "beyond": lambda: self.infer(rows=PIXELS[:1] + 2),
            "bad_shape": lambda: self.infer(rows=PIXELS[:2, :32]),
            "shared_input": lambda: self.in_shared_memory(sends=True),
            "shared_output": lambda: self.in_shared_memory(sends=False),
            "classified_json": lambda: self.classified(binary=False),
            "classified_binary": lambda: self.classified(binary=True),
            "classified_all": lambda: self.classified(binary=True, count=10),
            "classified_fp16": lambda: self.classified(binary=True, model="digits_fp16"),
        }
        for coding in ("gzip", "deflate"):
            calls[f"{coding}_request"] = lambda coding=coding: self.infer(request_compression_algorithm=coding)
            calls[f"{coding}_both"] = lambda coding=coding: self.infer(
                request_compression_algorithm=coding, response_compression_algorithm=coding
            )
        for model in INPUTS:
            calls[f"{model}_binary"] = lambda model=model: self.infer(model)
            if model != "digits_fp16":  # the library knows no JSON of FP16
                calls[f"{model}_json"] = lambda model=model: self.infer(model, sends=False, gets=False)
        return {name: attempt(call) for name, call in calls.items()}


def answer_of(result: triton.InferResult) -> dict[str, Any]:
    """Give an answer back as the library shows it: its tensors as lists, and which came as bytes."""
    response: dict[str, Any] = result.get_response()
    outputs = response["outputs"]
    return {
        "id": response.get("id"),
        "model": response["model_name"],
        "arrays": {output["name"]: plain(result.as_numpy(output["name"])) for output in outputs},
        "datatypes": {output["name"]: output["datatype"] for output in outputs},
        "binary": [output["name"] for output in outputs if "data" not in output],
    }


def plain(array: np.ndarray) -> Any:
    """Return a tensor as lists, texts decoded."""
    return (np.char.decode(array.astype(bytes)) if array.dtype == object else array).tolist()


def attempt(call: Callable[[], Any]) -> Any:
    """Give the call's answer, or what the library raised with the server's status and message."""
    try:
        return call()
    except InferenceServerException as error:
        return {"error": {"status": error.status(), "message": error.message()}}


def main() -> None:
    """Read the server's address and print the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    print(json.dumps(Calls(parser.parse_args().url).document()))


if __name__ == "__main__":
    main()
