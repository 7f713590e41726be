"""A Guard under mixed load with a real Prometheus that scrapes it: customers, thieves, broken models, a slow state.

Routes of the policy: `digits` has a profile, a ladder and budgets; `shadow` the same, only counted; `noisy` costs
labels; `shared` has a budget for everybody that soon is spent; `odd` and `busy` are models that answer garbage, or 503.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import resource
import signal
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import trustme

from guard.detectors.profile import encode
from tests.support.debian import program
from tests.support.model import model
from tests.support.processes import ROOT, Guard, free_port, guard, process, wait_for_port
from tests.support.simulated_profile import client, profile
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from guard.model.arrays import Floats

WIDTH, CLASSES = 16, 5
CUSTOMERS, STRANGERS, THIEVES = 24, 30, 6
SCRAPE_S = 1
SEED = 20261126

Json = Any  # Any: JSON

# Not the one that looks at margins: the profile is of another model's.
_DETECTORS = (
    "[{{kind: feature_marginals}}, {{kind: kernel_mean}}, {{kind: mahalanobis}}, {{kind: near_duplicates}}, "
    "{{kind: one_feature_varied}}, {{kind: repeats}}]"
)
POLICY = """version: 1
name: {name}
audit: {{when_full: drop}}
limits: {{upstream_timeout_s: 5, concurrency: 64}}
identity: [{{kind: api_key, header: x-api-key, keys_file: keys}}]
routes:
  - name: digits
    api: open_inference
    match: {{path: /v2/models/digits/infer}}
    inputs: {{kind: vector, size: 16}}
    profile: digits.profile.json
    detectors: DETECTORS
    outputs: {{kind: probabilities}}
    ladder:
      - {{tier: any, false_alarm: 1.0e-2, action: alert}}
      - {{tier: any, false_alarm: 1.0e-3, action: degrade, hold: 1h, defences: [{{kind: label_only}}]}}
      - {{tier: structure, false_alarm: 1.0e-4, action: deny, hold: 1h}}
      - {{tier: protocol, count: 20, action: throttle, rows_per_minute: 60, hold: 1h}}
    defences: [{{kind: grid, step: 0.05}}]
    budgets:
      - {{kind: rows, per: client, limit: 4000, window: 24h, then: deny}}
      - {{kind: information, per: client, graded_answers: 5000, meter: 0.95, then: label_only}}
  - name: shadow
    mode: shadow
    api: open_inference
    match: {{path: /v2/models/shadow/infer}}
    inputs: {{kind: vector, size: 16}}
    profile: digits.profile.json
    detectors: DETECTORS
    outputs: {{kind: probabilities}}
    ladder:
      - {{tier: structure, false_alarm: 1.0e-3, action: deny}}
    defences: [{{kind: grid, step: 0.05}}]
    budgets: [{{kind: rows, per: client, limit: 100, window: 24h}}]
  - name: noisy
    api: open_inference
    match: {{path: /v2/models/noisy/infer}}
    outputs: {{kind: probabilities, classes: [a, b, c, d, e]}}
    defences: [{{kind: noise, scale: 2.0, keep_argmax: false}}]
  - name: shared
    api: open_inference
    match: {{path: /v2/models/shared/infer}}
    budgets: [{{kind: rows, per: model, limit: 400, then: deny}}]
  - name: odd
    api: open_inference
    match: {{path: /v2/models/garbage/infer}}
  - name: busy
    api: open_inference
    match: {{path: /v2/models/busy/infer}}
""".replace("DETECTORS", _DETECTORS)


def honest(rng: np.random.Generator, rows: int = 16) -> Iterator[Floats]:
    """A customer's batches, for ever."""
    while True:
        yield from np.array_split(client(rng, WIDTH, 300 * rows), 300)


def few(rng: np.random.Generator) -> Iterator[Floats]:
    """Smaller ones."""
    return honest(rng, 4)


def strange(rng: np.random.Generator) -> Iterator[Floats]:
    """Batches of somebody who has never seen a customer's: what an extraction asks."""
    while True:
        yield rng.uniform(-12, 12, size=(16, WIDTH))


def probing(rng: np.random.Generator) -> Iterator[Floats]:
    """A point, and steps along one feature after the other from it: what an inversion asks."""
    while True:
        rows = np.repeat(client(rng, WIDTH, 1), WIDTH, axis=0)
        rows[np.arange(WIDTH), np.arange(WIDTH)] += 0.01
        yield rows


def partial(rng: np.random.Generator) -> Iterator[Floats]:
    """Rows that lack a feature, which the policy refuses."""
    while True:
        yield rng.normal(size=(1, WIDTH - 1))


class Crowd:
    """Accounts of one kind that ask one after the other, in a thread of their own, until they are told to stop.

    Args:
        url: the Guard.
        route: the model's name in the path.
        keys: of the accounts.
        rows: what an account asks, given randomness.
        rest_s: pause between two requests.
        calm_s: how long they wait before they begin.
    """

    def __init__(
        self,
        url: str,
        route: str,
        keys: list[str],
        rows: Callable[[np.random.Generator], Iterator[Floats]],
        rest_s: float,
        calm_s: float = 0,
    ) -> None:
        self._at = urllib.parse.urlsplit(url)
        self._route, self._rest_s, self._calm_s = route, rest_s, calm_s
        self._asked = {key: rows(np.random.default_rng([SEED, number])) for number, key in enumerate(keys)}
        self.stop = threading.Event()
        self.statuses: set[int] = set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.stop.wait(self._calm_s)
        for key in itertools.cycle(self._asked):
            if self.stop.wait(self._rest_s):
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.statuses.add(self._ask(key, next(self._asked[key])))

    def _ask(self, key: str, rows: Floats) -> int:
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        connection = http.client.HTTPConnection(self._at.hostname or "", self._at.port, timeout=10)
        with contextlib.closing(connection):
            headers = {"x-api-key": key, "content-type": "application/json"}
            body = json.dumps({"inputs": [tensor]})
            connection.request("POST", f"/v2/models/{self._route}/infer", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status


def crowds(url: str, calm_s: float = 0) -> list[Crowd]:
    """Let everybody ask; customers at once, who is up to something after `calm_s`."""
    customers = [f"customer{n}" for n in range(CUSTOMERS)]
    strangers = [f"stranger{n}" for n in range(STRANGERS)]
    thieves = [f"thief{n}" for n in range(THIEVES)]
    return [
        Crowd(url, "digits", customers, honest, 0.02),
        Crowd(url, "digits", strangers, strange, 0.04, calm_s),
        Crowd(url, "digits", thieves, probing, 0.1, calm_s),
        Crowd(url, "digits", ["clumsy"], partial, 0.2),
        Crowd(url, "shadow", [*thieves, *customers[:4]], probing, 0.05, calm_s),
        Crowd(url, "noisy", customers, honest, 0.1),
        Crowd(url, "shared", customers, few, 0.1),
        Crowd(url, "garbage", customers, few, 0.2),
        Crowd(url, "busy", customers, few, 0.2),
        Crowd(url, "digits", ["a-key-that-nobody-has"], few, 0.5),
        Crowd(url, "elsewhere", customers, few, 0.5),
    ]


@dataclass
class Prometheus:
    """A running Prometheus.

    Args:
        url: where it answers.
        began_s: before it scraped for the first time.
    """

    url: str
    began_s: float = field(default_factory=time.time)

    def ask(self, path: str, **parameters: object) -> Json:
        """Ask the HTTP API, and return `data`."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def instant(self, query: str, at_s: float | None = None) -> list[Json]:
        """Return a query's samples now, or at a time."""
        return self.ask("query", query=query, time=time.time() if at_s is None else at_s)["result"]

    def range(self, query: str, step_s: float = SCRAPE_S, end_s: float | None = None) -> list[Json]:
        """Return a query's series from the beginning until now, or until a time."""
        end_s = time.time() if end_s is None else end_s
        return self.ask("query_range", query=query, start=self.began_s, end=end_s, step=step_s)["result"]

    def until(self, query: str, patience_s: float = 90) -> None:
        """Return once a query has an answer."""
        deadline = time.monotonic() + patience_s
        while not self.instant(query):
            assert time.monotonic() < deadline, f"no answer to {query}"
            time.sleep(0.2)


@contextlib.contextmanager
def prometheus(folder: Path, targets: list[str], rules: str) -> Generator[Prometheus]:
    """Run a Prometheus that scrapes every second, with the deployment's configuration in everything else.

    Args:
        folder: for its files.
        targets: HOST:PORT of each admin listener.
        rules: the rules' text.
    """
    folder.mkdir(parents=True)
    (folder / "rules.yml").write_text(rules)
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    for before, after in (
        ("scrape_interval: 15s", f"scrape_interval: {SCRAPE_S}s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("scrape_timeout: 5s", "scrape_timeout: 1s"),
        ("authorization: {credentials_file: guard-admin-token}", ""),  # on loopback there is no token
        ('["guard:9001"]', json.dumps(targets)),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (folder / "prometheus.yml").write_text(text)
    port, log = free_port(), folder / "log"
    command = [str(program("prometheus", "prometheus")), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    began_s = time.time()
    with process(command, log) as running:
        wait_for_port(port, running, log)
        _wait_until_ready(f"http://127.0.0.1:{port}/-/ready", log)
        yield Prometheus(f"http://127.0.0.1:{port}", began_s)


def _wait_until_ready(url: str, log: Path) -> None:
    """Return once a Prometheus answers queries: a moment after it listens."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


@dataclass
class Scene:
    """All that runs.

    Args:
        guard: the Guard under load.
        spare: a second one, in shadow, without traffic, whose certificate expires tomorrow.
        prometheus: what scrapes both.
        state: the Guard's Valkey.
        folder: the Guard's files.
        crowds: who asks.
    """

    guard: Guard
    spare: Guard
    prometheus: Prometheus
    state: Valkey
    folder: Path
    crowds: list[Crowd]

    def edit(self, name: str) -> None:
        """Rename the policy, which Guard takes up by itself; without a name it is no policy any more."""
        (self.folder / "policy.yaml").write_text(POLICY.format(name=name) if name else "version: 1\nroutes: nonsense\n")

    @contextlib.contextmanager
    def full_disk(self) -> Generator[None]:
        """Let no file of Guard's grow while this lasts."""
        size = (self.folder / "audit.jsonl").stat().st_size
        before = resource.prlimit(self.guard.running.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.prlimit(self.guard.running.pid, resource.RLIMIT_FSIZE, before)

    def slow_state(self, seconds: float) -> None:
        """Let the state hang again and again: 150 ms of 200."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.state.signal(signal.SIGSTOP)
            time.sleep(0.15)
            self.state.signal(signal.SIGCONT)
            time.sleep(0.05)


def _short_lived(folder: Path) -> tuple[str, ...]:
    """Return the options that serve HTTPS with a certificate of one day."""
    folder.mkdir(parents=True)
    made = trustme.CA().issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=1))
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    key.chmod(0o600)
    return "--tls-cert", str(cert), "--tls-key", str(key)


@contextlib.contextmanager
def scene(folder: Path, rules: str, calm_s: float = 0) -> Generator[Scene]:
    """Run everything.

    Args:
        folder: for all files.
        rules: the Prometheus's.
        calm_s: how long there are customers only.
    """
    at = folder / "guard"
    at.mkdir(parents=True)
    (at / "digits.profile.json").write_bytes(encode(profile(WIDTH, CLASSES)))
    known = (("customer", CUSTOMERS), ("stranger", STRANGERS), ("thief", THIEVES))
    keys = ["clumsy", *(f"{kind}{n}" for kind, count in known for n in range(count))]
    (at / "keys").write_text("".join(f"{key}:{hashlib.sha256(key.encode()).hexdigest()}\n" for key in keys))
    policy = at / "policy.yaml"
    policy.write_text(POLICY.format(name="first"))
    secret = {"GUARD_SECRET": "00" * 32}
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(model(folder / "model"))
        state = stack.enter_context(Valkey(folder / "valkey"))
        options = ("--state", state.url, "--audit", f"file:{at / 'audit.jsonl'}")
        guarded = stack.enter_context(guard(policy, served.url, at, *options, env=secret))
        secure = ("--state", "memory:", *_short_lived(folder / "spare"))
        spare = stack.enter_context(guard("observe", served.url, folder / "spare", *secure))
        targets = [urllib.parse.urlsplit(found.admin).netloc for found in (guarded, spare)]
        seen = stack.enter_context(prometheus(folder / "prometheus", targets, rules))
        seen.until("count(guard_build_info) == 2")  # what happens before the first scrape is not seen to grow
        asking = crowds(guarded.url, calm_s)
        try:
            yield Scene(guarded, spare, seen, state, at, asking)
        finally:
            for crowd in asking:
                crowd.stop.set()
            for crowd in asking:
                crowd.thread.join(15)
