"""Honest customers of a model, Guard in front of it in process, and what `guard calibrate` would make of them.

Customers are the simulated clients of eight kinds of `guard.calibrate.simulated`; the model is one of the self-test's
lab, which attackers know as well as they do there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from guard.calibrate.findings import Findings, Settings
from guard.calibrate.fit import make_profile
from guard.calibrate.read import ClientLog
from guard.calibrate.simulated import USUAL, Kind, client, domain
from guard.detectors.profile import Profile, encode
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.arrays import Floats
from guard.model.exchange import Reply
from guard.model.queries import Queries
from guard.policy.presets import preset_directory
from guard.selftest.api import HttpApi, OpenInference
from guard.selftest.base import Tally, World
from guard.selftest.lab.judge import LabJudge
from guard.selftest.lab.registry import victim
from guard.selftest.lab.server import answer, read
from guard.selftest.lab.victim import Victim
from tests.support.fakes import Guarded, Seen

MODEL = "digits_mlp"
KEY_HEADER = "x-api-key"
BOUNDS = "{kind: vector, size: 64, low: 0, high: 16}"
_SALT = b"customers of the lab"


def customer(seed: int, number: int, rows: int | None = None, kind: Kind | None = None) -> tuple[Kind, Floats]:
    """Return an honest customer's kind and queries about digits.

    Args:
        seed: of all customers.
        number: whose.
        rows: how many, 2,048 at most; None for 256 to 2,048, log-uniform.
        kind: of customer; None for any, in the usual shares.
    """
    shares: dict[Kind, float] = USUAL if kind is None else {kind: 1.0}
    attempt = 0
    while True:  # how long a client is, is drawn with everything else of it
        drawn, found = client(domain("digits"), np.random.default_rng([seed, number, attempt]), shares)
        if rows is None or len(found) >= rows:
            return drawn, np.asarray(found[:rows], dtype=np.float64)
        attempt += 1


def key_of(name: str) -> str:
    """Return a customer's key."""
    return f"key-of-{name}"


def write_keys(folder: Path, names: Sequence[str]) -> Path:
    """Write the keys of customers, each a group of its own."""
    path = folder / "keys"
    lines = [f"{name}@{name}:{hashlib.sha256(key_of(name).encode()).hexdigest()}" for name in names]
    path.write_text("\n".join(lines) + "\n")
    return path


def guarded_by(
    preset: str, folder: Path, profile: Path | None = None, *, mode: str = "enforce", bounds: str = BOUNDS
) -> str:
    """Return a preset's text with identity by the keys in `folder`, bounds of inputs, and a profile.

    A list replaces another in `extends`, so that a policy of one's own holds the whole route.

    Args:
        preset: its name.
        folder: where the keys are.
        profile: whose path is named; None for none.
        mode: of the policy.
        bounds: of inputs; empty for the preset's own.
    """
    text = (preset_directory() / f"{preset}.yaml").read_text().partition("\nselftest:")[0]
    identity = f"identity: [{{kind: api_key, header: {KEY_HEADER}, keys_file: {folder / 'keys'}}}]"
    text = text.replace("mode: enforce", f"mode: {mode}\n{identity}", 1)
    head, _, rest = text.partition("    inputs:")
    own, _, after = rest.partition("    fields:")
    inputs = f"    inputs: {bounds}\n" if bounds else f"    inputs:{own}"
    named = "" if profile is None else f"    profile: {profile}\n"
    return f"{head}{inputs}{named}    fields:{after}\n"


class Answering:
    """An upstream's script: the lab's server without sockets.

    Args:
        model: what answers.
    """

    def __init__(self, model: Victim) -> None:
        self.model = model

    def __call__(self, seen: Seen) -> Reply:
        outputs = answer(self.model, read(self.model, orjson.loads(seen.body)["inputs"][0]))
        body = orjson.dumps({"model_name": MODEL, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Reply(200, [(b"content-type", b"application/json")], body)


class Shop:
    """Guard in front of a lab model, in process, with customers that are called by name.

    Args:
        policy: YAML.
        folder: where it is written.
        model: the lab model.
        loop: that everything runs on.
    """

    def __init__(self, policy: str, folder: Path, model: Victim, loop: asyncio.AbstractEventLoop) -> None:
        self.guard = Guarded(policy, folder, api="open_inference")
        self.guard.upstream.answer = Answering(model)
        self.guard.upstream.seen = _Forgetful()
        self.guard.handler.watching.adopt(self.guard.plans.current.plan)
        self.model, self.loop = model, loop

    def account(self, name: str, batch: int = 32, tally: Tally | None = None) -> Account:
        """Return a customer's way to ask."""
        return Account(self, name, batch, tally)

    def world(self, seed: int, names: Sequence[str]) -> World:
        """Return what an attack is given that holds the accounts called `names`."""
        tallies = {name: Tally() for name in names}

        def account(number: int) -> Account:
            return self.account(names[number], tally=tallies[names[number]])

        def none(name: str) -> HttpApi:
            raise KeyError(name)

        return World(account(0), self.model.knows, LabJudge(self.model), seed, account, none)


class _Forgetful(list[Seen]):
    """What the upstream saw, of which only the last is kept: there are millions."""

    def append(self, item: Seen) -> None:
        self[:] = [item]


class Account(HttpApi):
    """One customer's way to ask Guard, without sockets.

    Args:
        shop: whom it asks.
        name: whose key it sends.
        batch: most rows a request.
        tally: what its answers are counted in.
    """

    def __init__(self, shop: Shop, name: str, batch: int, tally: Tally | None = None) -> None:
        dialect = OpenInference(shop.model.knows.name)
        super().__init__("http://guard", dialect, shop.model.knows.classes, account=name, batch=batch, tally=tally)
        self._shop = shop
        self._target = dialect.path
        self._sent_headers = [(b"content-type", b"application/json"), (KEY_HEADER.encode(), key_of(name).encode())]

    def body(self, rows: Floats) -> bytes:
        """Return the request for some rows."""
        return self._dialect.encode(rows)

    def exchange(self, body: bytes) -> tuple[int, bytes]:
        """Send one request; return the answer's status and body."""
        return self._exchange(body)

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        found = self._shop.loop.run_until_complete(self._shop.guard.ask("POST", self._target, body, self._sent_headers))
        return found.status, found.body


def log_of(name: str, rows: Floats, scores: Floats, sketcher: Sketcher) -> ClientLog:
    """Return what `guard serve --record` would leave of a customer, as `guard calibrate` reads it."""
    queries = Queries(len(rows), None)
    queries.replace(rows)
    raw = sketcher.raw(queries)
    two = np.partition(scores.astype(np.float32).astype(np.float64), -2, axis=1)
    return ClientLog(
        pseudonym=name,
        times=np.arange(len(rows), dtype=np.float64),
        keys=sketcher.features(queries).keys,
        raw=None if raw is None else raw.astype(np.float32),
        margins=two[:, -1] - two[:, -2],
        top=scores.argmax(axis=1),
        scores=scores[:: max(1, len(rows) // 20)].astype(np.float32),
    )


def profile_of(
    seed: int, number: int, model: Victim, *, image: bool = True, most: int | None = None
) -> tuple[Profile, Findings]:
    """Return what `guard calibrate` makes of the traffic of some customers.

    Args:
        seed: of customers.
        number: how many.
        model: what answered them.
        image: `--image 8x8x1` was said.
        most: queries of a customer; None for 2,048.
    """
    shape = {"kind": "image", "shape": (8, 8, 1)} if image else {"kind": "vector"}
    sketch = Sketch.model_validate({"size": 64, "salt": "5a" * 16, **shape})
    sketcher = Sketcher(sketch, _SALT)
    logs: list[ClientLog] = []
    for i in range(number):
        rows = customer(seed, i)[1][:most]
        logs.append(log_of(f"{i:016x}", rows, model.predict(rows), sketcher))
    return make_profile("default", sketch, logs, Settings(seed=seed, image=image, poisoned="keep"))


def written(profile: Profile, path: Path) -> Path:
    """Write a profile as `guard calibrate` does."""
    path.write_bytes(encode(profile))
    path.chmod(0o600)
    return path


def lab_model(name: str = MODEL, seed: int = 0) -> Victim:
    """Return a lab model."""
    return victim(name, seed)
