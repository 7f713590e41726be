"""The policy language: what a YAML file may say.

Every key is documented by its docstring, which `guard schema` carries.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from guard.defences.base import Mode
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.parameters import Parameter
from guard.model.secret import Secret
from guard.policy.detection import Exempt, Rung
from guard.policy.gates import Selftest
from guard.policy.privacy import Claim, Ensemble
from guard.policy.unions import AnyBudget, AnyDefence, AnyDetector, ApiName
from guard.wire.base import Fields

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
_PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"


class ApiKeyIdentity(BaseModel):
    """A key in a header names the client.

    Args:
        header: header that carries the key; a leading `Bearer ` is taken off.
        keys_file: lines of `name[@group]:sha256-of-key`, `#` starts a comment. An unknown key is refused (401).
        forward: let the header through to the model.
    """

    model_config = _FROZEN
    kind: Literal["api_key"]
    header: str = Field(default="x-api-key", pattern=_HEADER_NAME)
    keys_file: str
    forward: bool = False


class JwtIdentity(BaseModel):
    """A signed token names the client.

    Args:
        jwks_file: public keys (JSON Web Key Set); only asymmetric keys are accepted.
        audience: the token's `aud` must hold it.
        issuer: the token's `iss` must equal it, when given.
        claim: names the client.
        group_claim: names the group, when the token has it.
        header: header that carries `Bearer TOKEN`.
        algorithms: accepted signature algorithms.
        leeway_s: tolerated clock skew.
        forward: let the header through to the model.
    """

    model_config = _FROZEN
    kind: Literal["jwt"]
    jwks_file: str
    audience: str
    issuer: str | None = None
    claim: str = "sub"
    group_claim: str | None = None
    header: str = Field(default="authorization", pattern=_HEADER_NAME)
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"],
        ...,
    ] = (
        "RS256",
        "PS256",
        "ES256",
        "EdDSA",
    )
    leeway_s: int = Field(default=30, ge=0, le=300)
    forward: bool = False


class ClientCertificateIdentity(BaseModel):
    """The client's TLS certificate names it; needs `serve --tls-client-ca`.

    A certificate that has no such name, or several, is refused (401). Without one the next source is asked.

    Args:
        name: where the name stands: the subject's common name, or a subject alternative name (`uri` for SPIFFE ids).
        group: `organization` takes the subject's O for the group.
        allow: patterns, of which a name must match one; `*` stands for anything, such as `spiffe://example.org/ns/ml/*`.
            Left out, every name counts that the issuers have signed.
    """

    model_config = _FROZEN
    kind: Literal["client_certificate"]
    name: Literal["common_name", "uri", "dns", "email"] = "common_name"
    group: Literal["organization", "none"] = "none"
    allow: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(default=(), max_length=256)


class AddressIdentity(BaseModel):
    """The peer's address names the client: an IPv4 address or an IPv6 /64.

    Args:
        trusted_proxies: networks whose X-Forwarded-For counts; it is walked from the right through these only.
    """

    model_config = _FROZEN
    kind: Literal["address"]
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from ipaddress import ip_network  # noqa: PLC0415 -- only policies that use it pay for it

        for network in value:
            ip_network(network, strict=False)
        return value


AnyIdentity = Annotated[
    ApiKeyIdentity | JwtIdentity | ClientCertificateIdentity | AddressIdentity, Field(discriminator="kind")
]


class UpstreamHeader(BaseModel):
    """A header that Guard adds to every request to the model.

    Args:
        name: header name.
        value: a secret: write `{env: NAME}` or `{file: PATH}`; no output prints it.
    """

    model_config = _FROZEN
    name: str = Field(pattern=_HEADER_NAME)
    value: Secret

    @field_validator("value")
    @classmethod
    def _one_line(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(
            r"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?", value.get_secret_value()
        ):
            raise ValueError("must be one line of printable characters")
        return value


class Limits(BaseModel):
    """Bounds that hold in every mode, so that no client and no model can exhaust Guard.

    Args:
        body_bytes: largest request body, content encoding undone; larger is 413. A MB of plain numbers takes some 3 ms,
            a MB of named features or of many small tensors up to a second, in which nobody else is served.
        answer_bytes: largest answer from the model; larger is 502.
        header_bytes: all request headers together; more is 431.
        rows: most rows in one request; more is 413.
        concurrency: requests in flight; more are shed with 503 and Retry-After.
        read_timeout_s: how long a client may take to send a request.
        upstream_timeout_s: how long the model may take to answer, or to say the next thing in a stream; longer is 504.
        stream_s: how long a stream may last.
        event_bytes: longest event of a stream; a longer one ends it.
        drain_s: how long requests in flight may finish after SIGTERM.
        watched_clients: clients that detection keeps in memory at once, up to 60 KB each; twice as many information
            meters. Enough for those that ask within the time of 16 queries of one of them: whoever is not seen for
            longest leaves, and with it the 16 queries that it was at.
    """

    model_config = _FROZEN
    body_bytes: int = Field(default=2 * 2**20, ge=1024, le=2**30)
    answer_bytes: int = Field(default=16 * 2**20, ge=1024, le=2**30)
    header_bytes: int = Field(default=32 * 2**10, ge=1024, le=2**20)
    rows: int = Field(default=4096, ge=1, le=10**6)
    concurrency: int = Field(default=256, ge=1, le=10**5)
    read_timeout_s: float = Field(default=15.0, gt=0, le=3600)
    upstream_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    stream_s: float = Field(default=600.0, gt=0, le=86400)
    event_bytes: int = Field(default=2**20, ge=1024, le=2**26)
    drain_s: float = Field(default=20.0, ge=0, le=3600)
    watched_clients: int = Field(default=2048, ge=64, le=2**16)


class Match(BaseModel):
    """Which requests a route takes, of those that its API's endpoints allow; for `api: json` it opens the endpoint.

    Args:
        methods: HTTP methods.
        path: raw path, percent-encoded; `{name}` stands for one segment.
    """

    model_config = _FROZEN
    methods: tuple[Literal["GET", "POST", "PUT", "PATCH"], ...] = Field(default=("POST",), min_length=1)
    path: str = Field(pattern=r"^/[!$%&'()*+,./0-9:;=@A-Z_a-z{}~-]*$", max_length=512)

    @field_validator("path")
    @classmethod
    def _template(cls, value: str) -> str:
        names = re.findall(r"\{([A-Za-z_]\w*)\}", value)
        if len(set(names)) < len(names):
            raise ValueError("two segments have the same name")
        rest = re.sub(r"\{[A-Za-z_]\w*\}", "", value)
        if "{" in rest or "}" in rest:
            raise ValueError("braces hold a name, such as {model}")
        if re.search(r"%(?![0-9A-Fa-f]{2})|(^|/)(\.|%2[eE]){1,2}(/|$)", value):
            raise ValueError("holds a dot segment or a broken percent sign, which no request can match")
        return value


class Select(BaseModel):
    """Where queries and scores are, for `api: json`: RFC 9535 paths.

    Args:
        queries: one match a row, in the request.
        scores: in the answer: one match a row, or one match for the list of all rows.
        labels: labels in the answer, one a row.
    """

    model_config = _FROZEN
    queries: str | None = None
    scores: str | None = None
    labels: str | None = None


class Route(BaseModel):
    """A guarded API. The first route that matches a request takes it; what no route opens is 404.

    Args:
        name: unique; names metrics and, unless `ledger` says otherwise, the ledger.
        api: which API; left out, `serve --api` names it.
        match: narrows the API's endpoints, or opens one for `api: json`.
        select: where queries and scores are, for `api: json`.
        mode: `shadow` or `enforce`; never stricter than the policy's.
        ledger: name under which budgets are kept; routes with the same name share them.
        inputs: what a query may be; others are refused (422).
        parameters: what a client may ask of a language model beside its query; those that are left out follow the API's
            safe defaults: see docs/llm.md.
        fields: `known` lets out only what the API defines and the declared scores; `all` keeps unknown members.
        outputs: what the answer's scores are.
        ensemble: how the answers of several models become one.
        privacy: what is claimed about the training data.
        defences: applied in order to every answer.
        budgets: charged before the model is asked.
        profile: what `guard calibrate` learnt of honest traffic; a path, relative to this file's folder.
        detectors: what is measured of each client's queries and answers: `default` for all that can be, or a list.
            Detection is on when a profile, detectors or a ladder is given.
        ladder: what evidence against a client leads to; left out, an alert at a false-alarm level of 1e-2.
        exceptions: clients whose evidence leaves detectors out for a while.
    """

    model_config = _FROZEN
    name: str = Field(default="default", pattern=_PLAIN_NAME)
    api: ApiName | None = None
    match: Match | None = None
    select: Select | None = None
    mode: Mode | None = None
    ledger: str | None = Field(default=None, pattern=_PLAIN_NAME)
    inputs: Inputs | None = None
    parameters: tuple[Parameter, ...] = Field(default=(), max_length=64)
    fields: Fields = "known"
    outputs: Outputs = Outputs()
    ensemble: Ensemble | None = None
    privacy: Claim | None = None
    defences: tuple[AnyDefence, ...] = ()
    budgets: tuple[AnyBudget, ...] = ()
    profile: str | None = Field(default=None, min_length=1)
    detectors: Literal["default"] | Annotated[tuple[AnyDetector, ...], Field(min_length=1)] | None = None
    ladder: tuple[Rung, ...] = Field(default=(), max_length=32)
    exceptions: tuple[Exempt, ...] = Field(default=(), max_length=4096)

    @property
    def detects(self) -> bool:
        """Whether detection is on."""
        return self.profile is not None or self.detectors is not None or bool(self.ladder)


class Audit(BaseModel):
    """What happens when the audit log (`serve --audit`) cannot take another line.

    Args:
        when_full: `refuse` fails closed: enforcing routes answer 503 until there is room; `drop` serves on, and counts
            what was lost in `guard_audit_dropped_total`.
    """

    model_config = _FROZEN
    when_full: Literal["refuse", "drop"] = "refuse"


class Policy(BaseModel):
    """A policy: who is known, what is guarded, and how much each client may learn.

    Args:
        version: 1.
        name: shown in metrics and logs.
        extends: a preset's name or a file to start from; maps merge, lists replace.
        mode: `enforce`, or `shadow`: decide, count and log everything, answer what the model said.
        identity: the first source that names a client wins; when none does, the peer's address.
        limits: bounds that hold in every mode.
        audit: what happens when the audit log cannot take another line.
        upstream_headers: headers that Guard adds to requests to the model.
        forward_headers: request headers that go to the model beside Content-Type, trace context and request id.
        routes: the guarded APIs.
        selftest: what `guard selftest` must find.
    """

    model_config = _FROZEN
    version: Literal[1]
    name: str = Field(default="unnamed", pattern=_PLAIN_NAME)
    extends: str | None = None
    mode: Mode = "enforce"
    identity: tuple[AnyIdentity, ...] = ()
    limits: Limits = Limits()
    audit: Audit = Audit()
    upstream_headers: tuple[UpstreamHeader, ...] = ()
    forward_headers: tuple[Annotated[str, Field(pattern=_HEADER_NAME)], ...] = ()
    routes: tuple[Route, ...] = Field(min_length=1, max_length=64)
    selftest: Selftest = Selftest()
