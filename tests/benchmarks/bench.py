"""`make bench`: Guard beside an nginx and an aiohttp passthrough, in one run, as ratios.

One worker pinned to one core; the load generator (wrk) and the upstream (nginx serving files) share the other.
Machines are shared and noisy, so contenders take turns within every round and what counts is the median over rounds
of a contender's figure divided by nginx's in the same round. Writes docs/benchmarks.md.
"""

# ruff: noqa: E501 -- configurations and table rows are one line each

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guard.detectors.profile import encode
from tests.support.simulated_profile import profile

ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = {"30 -> 10": (1, 30, 10), "30 -> 1,000": (1, 30, 1000), "64 x 64 -> 64 x 10": (64, 64, 10)}
GOALS = {"30 -> 10": 0.20, "30 -> 1,000": 0.10, "64 x 64 -> 64 x 10": 0.07}
"""Least share of nginx's requests a second at 32 connections that the policy with `memory:` state is to reach."""
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
WATCHED = """version: 1
name: watched
routes:
""" + "".join(
    f"""  - name: m{number}
    api: open_inference
    match: {{path: /v2/models/m{number}/infer}}
    profile: {features}.profile.json
    ladder: [{{false_alarm: 1.0e-2, action: alert}}, {{tier: structure, false_alarm: 1.0e-3, action: alert}}]
    defences:
      - {{kind: noise, mechanism: gaussian, scale: 0.02, reuse: query}}
      - {{kind: top_k, k: 3}}
      - {{kind: round, decimals: 2}}
    budgets:
      - {{kind: rows, per: client, limit: 9000000000000000, window: 24h, then: deny}}
"""
    for number, (_, features, _) in enumerate(PAYLOADS.values())
)
EMPTY = """version: 1
name: empty
routes: [{name: bench, api: open_inference}]
"""
UPSTREAM_CONF = """daemon off; worker_processes 1; pid %(dir)s/up.pid; error_log %(dir)s/up.err warn;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; client_body_buffer_size 256k; client_body_temp_path %(dir)s/a; proxy_temp_path %(dir)s/b;
 fastcgi_temp_path %(dir)s/c; uwsgi_temp_path %(dir)s/d; scgi_temp_path %(dir)s/e; open_file_cache max=16;
 server { listen 127.0.0.1:%(port)d backlog=1024; root %(dir)s/www; default_type application/json;
  location / { error_page 405 =200 $uri; try_files $uri =404; } } }
"""
PASS_CONF = """daemon off; worker_processes 1; pid %(dir)s/pass.pid; error_log %(dir)s/pass.err warn;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; client_body_buffer_size 256k; client_body_temp_path %(dir)s/f; proxy_temp_path %(dir)s/g;
 fastcgi_temp_path %(dir)s/h; uwsgi_temp_path %(dir)s/i; scgi_temp_path %(dir)s/j; proxy_buffers 16 16k; proxy_buffer_size 16k;
 upstream u { server 127.0.0.1:%(upstream)d; keepalive 128; keepalive_requests 100000000; }
 server { listen 127.0.0.1:%(port)d backlog=1024; location / { proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://u; } } }
"""
AIOHTTP = """import sys
from aiohttp import ClientSession, TCPConnector, web
URL, PORT = sys.argv[1], int(sys.argv[2])
async def forward(request):
    async with request.app["client"].post(URL + request.path, data=await request.read()) as reply:
        return web.Response(status=reply.status, body=await reply.read(), content_type="application/json")
async def client(app):
    app["client"] = ClientSession(connector=TCPConnector(limit=256), auto_decompress=False)
    yield
    await app["client"].close()
app = web.Application(client_max_size=2**24)
app.cleanup_ctx.append(client)
app.router.add_post("/{path:.*}", forward)
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)
"""
LUA = """wrk.method = "POST"
local f = io.open("%s", "rb"); wrk.body = f:read("*all"); f:close()
wrk.path = "%s"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["User-Agent"] = "bench"
done = function(s, l, r)
  io.write(string.format("RES {\\"n\\":%%d,\\"us\\":%%d,\\"p50\\":%%g,\\"p99\\":%%g,\\"bad\\":%%d}\\n", s.requests, s.duration,
    l:percentile(50), l:percentile(99), s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout))
end
"""


@dataclass
class Contender:
    """A server under test.

    Args:
        name: in the report.
        command: how it starts.
        port: where it listens.
    """

    name: str
    command: list[str]
    port: int
    process: subprocess.Popen[bytes] | None = None
    results: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def write_payloads(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for index, (rows, features, classes) in enumerate(PAYLOADS.values()):
        x = np.round(rng.normal(0, 1, (rows, features)), 6)
        z = np.exp(rng.normal(0, 2, (rows, classes)))
        p = z / z.sum(axis=1, keepdims=True)
        ask = {"inputs": [{"name": "x", "shape": [rows, features], "datatype": "FP64", "data": x.ravel().tolist()}]}
        scores = {"name": "p", "shape": [rows, classes], "datatype": "FP64", "data": p.ravel().tolist()}
        path = f"v2/models/m{index}/infer"
        answer = folder / "www" / path
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_text(json.dumps({"model_name": f"m{index}", "outputs": [scores]}))
        (folder / f"m{index}.json").write_text(json.dumps(ask))
        (folder / f"m{index}.lua").write_text(LUA % (folder / f"m{index}.json", "/" + path))


def contenders(folder: Path, upstream: int, only: str | None) -> list[Contender]:
    url = f"http://127.0.0.1:{upstream}"
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "empty.yaml").write_text(EMPTY)
    (folder / "watched.yaml").write_text(WATCHED)
    for features in {features for _, features, _ in PAYLOADS.values()}:
        (folder / f"{features}.profile.json").write_bytes(encode(profile(features, 10)))
    (folder / "aio.py").write_text(AIOHTTP)
    ports = [free_port() for _ in range(6)]
    (folder / "pass.conf").write_text(PASS_CONF % {"dir": folder, "port": ports[0], "upstream": upstream})

    def guard(policy: str, state: str, port: int) -> list[str]:
        where = ["--policy", str(folder / policy), "--state", state, "--upstream", url, "--listen", f"127.0.0.1:{port}"]
        return [sys.executable, "-m", "guard", "serve", *where, "--admin", "off", "--log-level", "error"]

    made = [
        Contender(
            "nginx passthrough", ["nginx", "-c", str(folder / "pass.conf"), "-e", str(folder / "pass.err")], ports[0]
        ),
        Contender("Guard, empty policy", guard("empty.yaml", "memory:", ports[1]), ports[1]),
        Contender(
            "Guard, noise + top_k + round + rows budget, `memory:`", guard("policy.yaml", "memory:", ports[2]), ports[2]
        ),
        Contender("the same, `sqlite:`", guard("policy.yaml", f"sqlite:{folder / 'g.db'}", ports[3]), ports[3]),
        Contender(
            "the same, `memory:`, all detectors with a profile", guard("watched.yaml", "memory:", ports[5]), ports[5]
        ),
        Contender("aiohttp passthrough", [sys.executable, str(folder / "aio.py"), url, str(ports[4])], ports[4]),
    ]
    return [c for c in made if only is None or c.name.startswith("nginx") or re.search(only, c.name)]


@contextlib.contextmanager
def running(
    command: list[str], core: int, port: int, log: Path, patience_s: float = 20
) -> Generator[subprocess.Popen[bytes]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tree(pid: int) -> list[int]:
    pids = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                pids += tree(int(child))
    return pids


def cpu_us(pid: int) -> float:
    total = 0
    for each in tree(pid):
        for path in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(path.read_text().split()[0])
    return total / 1e3


def rss_mb(pid: int) -> float:
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{each}/status").read_text())
            total += int(found[1]) if found else 0
    return total / 1024


def load(folder: Path, payload: int, connections: int, seconds: int, port: int) -> dict[str, float]:
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    done = subprocess.run(
        [*command, "-s", str(folder / f"m{payload}.lua"), f"http://127.0.0.1:{port}/"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"RES (\{.*\})", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(found[1])


def measure(all_: list[Contender], folder: Path, rounds: int, seconds: int) -> None:
    for number in range(rounds):
        for index, payload in enumerate(PAYLOADS):
            for connections in (1, 32):
                order = all_[:]
                random.Random(number).shuffle(order)
                for contender in order:
                    pid = contender.process.pid if contender.process else 0
                    before = cpu_us(pid)
                    result = load(folder, index, connections, seconds, contender.port)
                    result["cpu_us"] = (cpu_us(pid) - before) / max(1, result["n"])
                    result["rps"] = result["n"] / result["us"] * 1e6
                    result["rss"] = rss_mb(pid)
                    contender.results.setdefault((payload, connections), []).append(result)
                print(
                    f"round {number + 1} of {rounds}: {payload}, {connections} connection(s)",
                    file=sys.stderr,
                    flush=True,
                )


def report(all_: list[Contender], rounds: int, seconds: int) -> str:
    first = all_[0]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. One worker on one core; wrk and the upstream (nginx serving files) on the other. Medians over",
        f"{rounds} rounds of {seconds} s in which the contenders take turns; ratios are taken within a round.",
        "",
        f"{cpu_model()}, 2 cores, shared; Linux {platform.release()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
    ]
    guarded = next((c for c in all_ if c.name.endswith("budget, `memory:`")), None)
    if guarded is not None:
        lines += ["| goal at 32 connections, requests/s ÷ nginx | least | reached |", "|---|---|---|"]
        for payload, goal in GOALS.items():
            mine, base = guarded.results[payload, 32], first.results[payload, 32]
            reached = statistics.median(m["rps"] / b["rps"] for m, b in zip(mine, base, strict=True))
            lines.append(f"| {payload} | {goal:.2f} | {reached:.3f}{'' if reached >= goal else ' (missed)'} |")
        lines.append("")
    for payload in PAYLOADS:
        for connections in (32, 1):
            lines += [f"## {payload}, {connections} connection{'s' if connections > 1 else ''}", ""]
            lines += [
                "| | requests/s ÷ nginx [least, most] | requests/s | CPU µs a request | p50 ms | p99 ms | added p50 µs | RSS MB |"
            ]
            lines += ["|---|---|---|---|---|---|---|---|"]
            for contender in all_:
                mine, base = contender.results[payload, connections], first.results[payload, connections]
                ratios = [m["rps"] / b["rps"] for m, b in zip(mine, base, strict=True)]
                added = [m["p50"] - b["p50"] for m, b in zip(mine, base, strict=True)]

                def mid(key: str, rows: list[dict[str, float]] = mine) -> float:
                    return statistics.median(row[key] for row in rows)

                failed = sum(int(row["bad"]) for row in mine)
                name = contender.name + (f" ({failed} failed)" if failed else "")
                lines.append(
                    f"| {name} | {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] | {mid('rps'):,.0f} "
                    f"| {mid('cpu_us'):.0f} | {mid('p50') / 1e3:.2f} | {mid('p99') / 1e3:.2f} "
                    f"| {statistics.median(added):.0f} | {mid('rss'):.0f} |"
                )
            lines.append("")
    return "\n".join(lines)


def cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", help="regular expression: contenders beside nginx")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    missing = [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"make bench needs {', '.join(missing)}: apt-get install nginx-light wrk util-linux", file=sys.stderr)
        return 3
    folder = ROOT / ".bench" / "proxy"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "www").mkdir(parents=True)
    write_payloads(folder)
    upstream = free_port()
    (folder / "up.conf").write_text(UPSTREAM_CONF % {"dir": folder, "port": upstream})
    all_ = contenders(folder, upstream, options.only)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            running(
                ["nginx", "-c", str(folder / "up.conf"), "-e", str(folder / "up.err")], 1, upstream, folder / "up.log"
            )
        )
        for i, contender in enumerate(all_):
            contender.process = stack.enter_context(running(contender.command, 0, contender.port, folder / f"{i}.log"))
        for index in range(len(PAYLOADS)):
            for contender in all_:
                load(folder, index, 8, 1, contender.port)
        measure(all_, folder, options.rounds, options.seconds)
    text = report(all_, options.rounds, options.seconds)
    print(text)
    if options.only is None:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
