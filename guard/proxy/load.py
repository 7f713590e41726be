"""From the command line's names to an `Active`: the policy, compiled, with its identity sources read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from guard.errors import Problem
from guard.policy.compile import NO_SALT
from guard.policy.load import DEFAULT_API, NO_API, load_policy, plan_of, problem_lines
from guard.proxy.identity import Identity
from guard.proxy.plans import Active


def load_active(source: str | Path, *, api: str | None, env: Mapping[str, str], salt: bytes = NO_SALT) -> Active:
    """Load a policy and everything that it names.

    Args:
        source: a preset's name or a file.
        api: the API of routes that name none; None takes them for `DEFAULT_API`, with a warning.
        env: environment, for `{env: NAME}`.
        salt: secret of the deployment, for detectors.

    Raises:
        PolicyError: every mistake that was found.
    """
    loaded = load_policy(source, env=env)
    plan = plan_of(loaded, api=api or DEFAULT_API, salt=salt, today=datetime.now(UTC).date())
    if api is None:
        unnamed = [
            Problem("no API is named for this route", f"routes[{i}].api", hint=NO_API)
            for i, route in enumerate(loaded.policy.routes)
            if route.api is None
        ]
        plan = replace(plan, warnings=(*problem_lines(unnamed, loaded.root), *plan.warnings))
    identity = Identity.load(loaded.policy.identity)
    return Active(plan, identity, tuple(dict.fromkeys((*loaded.files, *identity.files))))
