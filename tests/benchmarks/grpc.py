"""`make bench`: unary gRPC through Guard beside a bare passthrough in the same library, in one run, as ratios.

The passthrough is what the library costs: a grpc.aio server whose handler hands the bytes to a grpc.aio channel and
looks at nothing. The server under test has one core to itself; h2load and the model share the other. Contenders take
turns within every round, and what counts is the median over rounds. The section is put at the end of
docs/benchmarks.md, in the place of an older one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import random
import re
import statistics
import struct
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from guard.wire import open_inference_messages as messages
from tests.benchmarks.bench import ROOT, Contender, cpu_model, cpu_us, free_port, running
from tests.support.debian import program

grpc: Any = import_module("grpc")  # Any: the library has no types
import_module("grpc.aio")
HEADING = "## gRPC: Open Inference, unary"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
PAYLOADS = {"30 -> 10, raw": (1, 30, 10), "64 x 64 -> 64 x 10, raw": (64, 64, 10)}
GOAL = 0.6
"""Least share of the passthrough's requests a second."""
POLICY = """version: 1
name: bench
routes:
  - name: bench
    api: open_inference
    defences:
      - {kind: noise, mechanism: gaussian, scale: 0.02, reuse: query}
      - {kind: top_k, k: 3}
      - {kind: round, decimals: 2}
    budgets:
      - {kind: rows, per: client, limit: 9000000000000000, window: 24h, then: deny}
"""
_FRAME = struct.Struct(">BI")


def request(model: str, rows: int, features: int) -> bytes:
    """Return a serialised request with one raw tensor."""
    made = messages.infer_request(b"")
    assert made is not None
    made.model_name = model
    tensor = made.inputs.add()
    tensor.name, tensor.datatype = "x", "FP32"
    tensor.shape.extend([rows, features])
    made.raw_input_contents.append(np.random.default_rng(0).normal(0, 1, (rows, features)).astype("<f4").tobytes())
    return made.SerializeToString()


def answer(rows: int, classes: int) -> bytes:
    """Return a serialised answer with one raw tensor of probabilities."""
    made = messages.new_response()
    made.model_name = "m"
    tensor = made.outputs.add()
    tensor.name, tensor.datatype = "p", "FP32"
    tensor.shape.extend([rows, classes])
    z = np.exp(np.random.default_rng(1).normal(0, 2, (rows, classes)))
    made.raw_output_contents.append((z / z.sum(axis=1, keepdims=True)).astype("<f4").tobytes())
    return made.SerializeToString()


def serve(handle: Any, port: int) -> None:  # Any: a coroutine function of the library's
    """Serve one method in this process until it is ended."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: object) -> Any:  # Any: the library's
            del handler_call_details
            return grpc.unary_unary_rpc_method_handler(handle)

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Handlers(),))
        assert server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(main())


def model(port: int) -> None:
    """Serve the answers of all payloads: the length of a request says which."""
    answers = {
        len(request(f"m{i}", rows, features)): answer(rows, classes)
        for i, (rows, features, classes) in enumerate(PAYLOADS.values())
    }

    async def handle(body: bytes, context: object) -> bytes:
        del context
        return answers[len(body)]

    serve(handle, port)


def passthrough(port: int, upstream: int) -> None:
    """Hand bytes on."""
    made: list[Any] = []  # Any: the library's

    async def handle(body: bytes, context: object) -> bytes:
        del context
        if not made:
            made.append(grpc.aio.insecure_channel(f"127.0.0.1:{upstream}").unary_unary(METHOD))
        return await made[0](body, timeout=30)

    serve(handle, port)


def load(folder: Path, payload: int, concurrency: int, seconds: int, port: int) -> dict[str, float]:
    """Ask for so many seconds; returns requests a second and how many failed."""
    command = ["taskset", "-c", "1", str(program("h2load", "nghttp2-client")), f"-c{concurrency}", "-m1", "-t1"]
    command += [
        f"-D{seconds}",
        f"--data={folder / f'{payload}.bin'}",
        "-Hcontent-type: application/grpc",
        "-Hte: trailers",
    ]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{METHOD}"], capture_output=True, text=True, check=True)
    found = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", done.stdout)
    took = re.search(r"finished in ([\d.]+)(m?s), ([\d.]+) req/s", done.stdout)
    if found is None or took is None:
        raise RuntimeError(done.stdout + done.stderr)
    return {"n": float(found[2]), "bad": float(found[1]) - float(found[2]), "rps": float(took[3])}


def check(folder: Path, contender: Contender) -> None:
    """Ask once and look at the answer: h2load takes gRPC's errors for success."""
    with grpc.insecure_channel(f"127.0.0.1:{contender.port}") as channel:
        for index, (rows, _, classes) in enumerate(PAYLOADS.values()):
            body = (folder / f"{index}.bin").read_bytes()[_FRAME.size :]
            found = messages.infer_response(channel.unary_unary(METHOD)(body, timeout=10))
            assert found is not None
            assert list(found.outputs[0].shape) == [rows, classes]


def measure(all_: list[Contender], folder: Path, rounds: int, seconds: int) -> None:
    for number in range(rounds):
        for index, payload in enumerate(PAYLOADS):
            for concurrency in (32, 1):
                order = all_[:]
                random.Random(number).shuffle(order)
                for contender in order:
                    pid = contender.process.pid if contender.process else 0
                    before = cpu_us(pid)
                    result = load(folder, index, concurrency, seconds, contender.port)
                    result["cpu_us"] = (cpu_us(pid) - before) / max(1.0, result["n"])
                    contender.results.setdefault((payload, concurrency), []).append(result)
                print(f"gRPC, round {number + 1} of {rounds}: {payload}, {concurrency}", file=sys.stderr, flush=True)


def report(all_: list[Contender], rounds: int, seconds: int) -> str:
    first = all_[0]
    lines = [
        HEADING,
        "",
        f"h2load against grpcio {grpc.__version__}; medians over {rounds} rounds of {seconds} s in which contenders",
        f"take turns. {cpu_model()}, 2 cores, shared; Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}.",
        f"The goal is at least {GOAL} of the passthrough's requests a second.",
        "",
        "| payload | at once | | requests/s ÷ passthrough [least, most] | requests/s | CPU µs a request |",
        "|---|---|---|---|---|---|",
    ]
    for payload in PAYLOADS:
        for concurrency in (32, 1):
            for contender in all_:
                mine, base = contender.results[payload, concurrency], first.results[payload, concurrency]
                ratios = [m["rps"] / b["rps"] for m, b in zip(mine, base, strict=True)]
                reached = statistics.median(ratios)
                failed = sum(int(row["bad"]) for row in mine)
                missed = " (missed)" if contender is all_[-1] and reached < GOAL else ""
                lines.append(
                    f"| {payload} | {concurrency} | {contender.name}{f' ({failed} failed)' if failed else ''} "
                    f"| {reached:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]{missed} "
                    f"| {statistics.median(row['rps'] for row in mine):,.0f} "
                    f"| {statistics.median(row['cpu_us'] for row in mine):,.0f} |"
                )
    return "\n".join([*lines, ""])


def contenders(folder: Path, upstream: int) -> list[Contender]:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "empty.yaml").write_text(POLICY.partition("    defences")[0])
    ports = [free_port() for _ in range(3)]
    me = [sys.executable, "-m", "tests.benchmarks.grpc"]

    def guard(policy: str, port: int) -> list[str]:
        where = ["--grpc-upstream", f"grpc://127.0.0.1:{upstream}", "--grpc-listen", f"127.0.0.1:{port}"]
        where += ["--policy", str(folder / policy), "--state", "memory:", "--admin", "off", "--log-level", "error"]
        return [sys.executable, "-m", "guard", "serve", *where]

    return [
        Contender("passthrough", [*me, "--passthrough", str(ports[0]), str(upstream)], ports[0]),
        Contender("Guard, empty policy", guard("empty.yaml", ports[1]), ports[1]),
        Contender("Guard, noise + top_k + round + rows budget, `memory:`", guard("policy.yaml", ports[2]), ports[2]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--passthrough", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model is not None:
        model(options.model)
    if options.passthrough is not None:
        passthrough(*options.passthrough)
    folder = ROOT / ".bench" / "grpc"
    folder.mkdir(parents=True, exist_ok=True)
    for index, (rows, features, _) in enumerate(PAYLOADS.values()):
        body = request(f"m{index}", rows, features)
        (folder / f"{index}.bin").write_bytes(_FRAME.pack(0, len(body)) + body)
    upstream = free_port()
    all_ = contenders(folder, upstream)
    with contextlib.ExitStack() as stack:
        me = [sys.executable, "-m", "tests.benchmarks.grpc", "--model", str(upstream)]
        stack.enter_context(running(me, 1, upstream, folder / "model.log"))
        for i, contender in enumerate(all_):
            contender.process = stack.enter_context(running(contender.command, 0, contender.port, folder / f"{i}.log"))
        for contender in all_:
            check(folder, contender)
            load(folder, 0, 8, 1, contender.port)
        measure(all_, folder, options.rounds, options.seconds)
    text = report(all_, options.rounds, options.seconds)
    print(text)
    before = options.out.read_text().partition(HEADING)[0] if options.out.exists() else ""
    options.out.write_text(f"{before.rstrip()}\n\n{text}" if before.strip() else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
