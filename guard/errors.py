"""Every error Guard raises on purpose: a stable code, an HTTP status and a message that is safe to show to a client.

A message never names a threshold, an evidence value, a detector, a secret, a key or a raw input. What operators need
beyond that goes to the log and the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass


class GuardError(Exception):
    """Base of all errors: carries `code`, `status` and a message that may be shown.

    Args:
        message: one sentence, safe to show to a client.
        code: stable identifier, snake case; defaults to the class's own.
        status: HTTP status; defaults to the class's own.
        retry_after_s: seconds for a `Retry-After` header; defaults to the class's own, which is mostly none.
        path: JSON path of the offending member, or None.
    """

    code: str = "internal"
    status: int = 500
    retry_after_s: int | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.path = path


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy: where it is and what to do about it.

    Args:
        message: what is wrong, in one sentence.
        path: path inside the policy, such as `routes[0].defences[1].k`.
        line: line in the file, from 1; 0 when unknown.
        hint: what to write instead; may be empty.
        file: the file that holds the line (a policy may extend another); empty when unknown.
    """

    message: str
    path: str = ""
    line: int = 0
    hint: str = ""
    file: str = ""


class PolicyError(GuardError):
    """A policy that cannot be used: at start-up, on reload, in `guard check`.

    Args:
        problems: every mistake that was found.
        file: the policy's own file, or the one that is wrong.
        depends: other files whose change could mend it.
    """

    code = "bad_policy"
    status = 500

    def __init__(self, problems: list[Problem], file: str = "", depends: tuple[str, ...] = ()) -> None:
        self.problems = problems
        self.file = file
        self.depends = depends
        super().__init__("; ".join(p.message for p in problems) or "bad policy")


class ClientError(GuardError):
    """A request that cannot be read (400), is too large (413) or lies outside the inputs' domain (422)."""

    code = "bad_request"
    status = 400


class Denied(GuardError):
    """A request refused by identity (401), the ladder (403), a closed endpoint (404) or a budget (429)."""

    code = "denied"
    status = 403


class UpstreamError(GuardError):
    """The model could not be asked or its answer cannot be let out: 502, 504.

    Args:
        reached: False only when upstream certainly never saw the request; then charges are refunded.
    """

    code = "upstream_error"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        reached: bool = True,
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after_s=retry_after_s)
        self.reached = reached


class StateError(GuardError):
    """Budgets cannot be charged: the state is out of reach, slow or damaged (503); it may be back in a second."""

    code = "state_unavailable"
    status = 503
    retry_after_s = 1


class InvariantError(GuardError):
    """A bug in Guard: something that cannot happen did (500)."""

    code = "internal"
    status = 500
