"""Serve digits classifiers with NVIDIA Triton (through PyTriton): what `tests/recorded/triton` came from.

Listens on 127.0.0.1 only. `digits`: `input-0` (64 pixels in 0..1) gives `probabilities` (ten classes) and `label`.
`digits_DATATYPE` take and give the same in other datatypes: pixels as FP16, FP64, whole numbers 0..16 as INT64, or the
number of a row of the data as a text; scores as FP16, FP64 or FP32, the label as INT64 or a text.
PyTriton's own Python helpers need an interpreter whose site-packages lie truly inside the venv: make it with
`/usr/bin/python3 -m venv --copies`.
"""

import argparse
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

PIXELS, LABELS = load_digits(return_X_y=True)
Rows = Callable[[np.ndarray], np.ndarray]
"""An input tensor -> pixels in 0..1."""


def _numbered(names: np.ndarray) -> np.ndarray:
    return PIXELS[[int(name) for name in names[:, 0]]] / 16.0


KINDS: dict[str, tuple[Any, Rows, Any, Any]] = {
    "digits": (np.float32, lambda pixels: pixels, np.float32, np.int64),
    "digits_fp16": (np.float16, lambda pixels: pixels, np.float16, bytes),
    "digits_fp64": (np.float64, lambda pixels: pixels, np.float64, np.int64),
    "digits_int64": (np.int64, lambda levels: levels / 16.0, np.float32, bytes),
    "digits_bytes": (bytes, _numbered, np.float32, bytes),
}
"""Model -> datatype of its input, how it reads that, datatypes of its scores and of its label."""


def train() -> LogisticRegression:
    """Fit the same classifier as the other servers' on half of the digits."""
    rows, _, truth, _ = train_test_split(PIXELS / 16.0, LABELS, test_size=0.5, random_state=0, stratify=LABELS)
    return LogisticRegression(max_iter=2000).fit(rows, truth)


def add(server: Triton, name: str, model: LogisticRegression) -> None:
    """Bind one model of `KINDS`."""
    takes, rows, scores, label = KINDS[name]

    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        found = model.predict_proba(rows(inputs["input-0"])).astype(scores)
        labels = found.argmax(axis=1)[:, None]
        return {"probabilities": found, "label": np.char.mod(b"%d", labels) if label is bytes else labels.astype(label)}

    server.bind(
        model_name=name,
        infer_func=infer,
        inputs=[Tensor(name="input-0", dtype=takes, shape=(1 if takes is bytes else 64,))],
        outputs=[
            Tensor(name="probabilities", dtype=scores, shape=(10,)),
            Tensor(name="label", dtype=label, shape=(1,)),
        ],
        config=ModelConfig(max_batch_size=128),
    )


def main() -> None:
    """Read the ports, serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="HTTP")
    parser.add_argument("--grpc-port", type=int, help="the next one unless given")
    parser.add_argument("--metrics-port", type=int, help="the one after that unless given")
    args = parser.parse_args()
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=args.port,
        grpc_address="127.0.0.1",
        grpc_port=args.grpc_port or args.port + 1,
        metrics_address="127.0.0.1",
        metrics_port=args.metrics_port or args.port + 2,
        exit_on_error=True,
    )
    model = train()
    # PyTriton 0.7 closes statistics, shared memory and repository by a token; a plain Triton leaves them open.
    with Triton(config=config, security_config=TritonSecurityConfig(restricted_endpoints=[])) as server:
        for name in KINDS:
            add(server, name, model)
        # PyTriton ends on SIGTERM at once, and leaves the server and its shared memory behind.
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        server.serve()


if __name__ == "__main__":
    main()
