"""Serve a digits classifier with NVIDIA Triton (through PyTriton): what `tests/recorded/triton` came from.

Listens on 127.0.0.1 only. Tensors: `input-0` (64 pixels in 0..1) gives `probabilities` (ten classes) and `label`.
PyTriton's own Python helpers need an interpreter whose site-packages lie truly inside the venv: make it with
`/usr/bin/python3 -m venv --copies`.
"""

import argparse

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def train() -> LogisticRegression:
    """Fit the same classifier as the other servers' on half of the digits."""
    pixels, labels = load_digits(return_X_y=True)
    rows, _, truth, _ = train_test_split(pixels / 16.0, labels, test_size=0.5, random_state=0, stratify=labels)
    return LogisticRegression(max_iter=2000).fit(rows, truth)


def main() -> None:
    """Read the ports, serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="HTTP; gRPC and metrics take the next two")
    port = parser.parse_args().port
    model = train()

    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        scores = model.predict_proba(inputs["input-0"]).astype(np.float32)
        return {"probabilities": scores, "label": scores.argmax(axis=1)[:, None].astype(np.int64)}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=port + 1,
        metrics_address="127.0.0.1",
        metrics_port=port + 2,
        exit_on_error=True,
    )
    # PyTriton 0.7 closes statistics, shared memory and repository by a token; a plain Triton leaves them open.
    with Triton(config=config, security_config=TritonSecurityConfig(restricted_endpoints=[])) as server:
        server.bind(
            model_name="digits",
            infer_func=infer,
            inputs=[Tensor(name="input-0", dtype=np.float32, shape=(64,))],
            outputs=[
                Tensor(name="probabilities", dtype=np.float32, shape=(10,)),
                Tensor(name="label", dtype=np.int64, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=128),
        )
        server.serve()


if __name__ == "__main__":
    main()
