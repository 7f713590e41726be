"""What `tests.benchmarks.streams` compares: Guard, and proxies that others use before language models."""

from __future__ import annotations

import contextlib
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.bench import PASS_CONF, Contender, free_port, running
from tests.support.processes import venv_of

ROOT = Path(__file__).resolve().parents[2]
PROXY_CORE, LOAD_CORE = 0, 1
ASK = {
    "model": "bench",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {
            "role": "user",
            "content": "Classify the following review as positive or negative: the film was a delight throughout.",
        },
    ],
    "temperature": 0.2,
    "max_tokens": 64,
}
TEXT = "Positive. The reviewer calls the film a delight from start to finish, which expresses clear approval."
ANSWER = {
    "id": "chatcmpl-abc123",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 34, "completion_tokens": 19, "total_tokens": 53},
    "system_fingerprint": "fp_x",
}
LITELLM = """model_list:
  - {{model_name: bench, litellm_params: {{model: openai/bench, api_base: "{url}/v1", api_key: none}}}}
general_settings: {{disable_spend_logs: true}}
litellm_settings: {{telemetry: false, set_verbose: false, num_retries: 0}}
"""
LITELLM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    # Without it LiteLLM looks up a key for every request, which Guard does not do here either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
ADDON = """import json
class WithoutLogprobs:
    def response(self, flow):
        answer = json.loads(flow.response.content)
        for choice in answer["choices"]:
            choice["logprobs"] = None
        flow.response.content = json.dumps(answer).encode()
addons = [WithoutLogprobs()]
"""


def guard(folder: Path, url: str, *, scans: bool = True) -> Contender:
    """Return Guard under preset `llm`, with budgets that a benchmark cannot spend.

    Args:
        folder: where its policy is written.
        url: the upstream's.
        scans: with defence `secrets`, which holds words back.
    """
    text = (ROOT / "policies" / "llm.yaml").read_text()
    document: Any = yaml.safe_load(re.sub(r"limit: \d+", "limit: 9000000000000000", text))  # Any: YAML
    for route in document["routes"]:
        route["defences"] = [each for each in route["defences"] if scans or each["kind"] != "secrets"]
    path = folder / f"llm{scans}.yaml"
    path.write_text(json.dumps(document))
    port = free_port()
    where = ["--policy", str(path), "--api", "openai", "--state", "memory:", "--upstream", url]
    rest = ["--listen", f"127.0.0.1:{port}", "--admin", "off", "--log-level", "error"]
    name = "Guard, preset `llm`" if scans else "Guard, preset `llm` without `secrets`"
    return Contender(name, [sys.executable, "-m", "guard", "serve", *where, *rest], port)


def nginx(folder: Path, upstream: int, name: str) -> Contender:
    port = free_port()
    path = folder / f"{name}.conf"
    conf = PASS_CONF.replace("proxy_pass ", "proxy_buffering off; proxy_pass ") % {
        "dir": folder,
        "port": port,
        "upstream": upstream,
    }
    path.write_text(conf)
    return Contender("nginx passthrough", ["nginx", "-c", str(path), "-e", str(folder / f"{name}.err")], port)


def litellm(folder: Path, url: str) -> Contender:
    port = free_port()
    (folder / "litellm.yaml").write_text(LITELLM.format(url=url))
    program = str(venv_of("litellm").parent / "litellm")
    command = ["env", *(f"{name}={value}" for name, value in LITELLM_ENV.items()), program]
    command += ["--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    return Contender("LiteLLM proxy", [*command, "--num_workers", "1"], port)


def mitmproxy(folder: Path, url: str) -> Contender:
    port = free_port()
    (folder / "addon.py").write_text(ADDON)
    program = str(venv_of("mitmproxy").parent / "mitmdump")
    command = [program, "--mode", f"reverse:{url}", "--listen-host", "127.0.0.1", "-p", str(port), "-q"]
    return Contender(
        "mitmproxy", [*command, "--set", f"confdir={folder / 'mitm'}", "-s", str(folder / "addon.py")], port
    )


def start(stack: contextlib.ExitStack, contenders: list[Contender], folder: Path) -> None:
    """Run all of them until `stack` ends."""
    for place, each in enumerate(contenders):
        log = folder / f"contender{place}.log"
        # LiteLLM imports for half a minute.
        each.process = stack.enter_context(running(each.command, PROXY_CORE, each.port, log, patience_s=180))


def turned(contenders: list[Contender], number: int) -> list[Contender]:
    """Return them in the order of a round."""
    order = contenders[:]
    random.Random(number).shuffle(order)
    return order


def pid_of(contender: Contender) -> int:
    """Return the process that is measured, with all that it started; 0 for none."""
    return contender.process.pid if contender.process else 0
