"""From the command line's names to an `Active`: the policy, compiled, with its identity sources read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from guard.policy.compile import NO_SALT
from guard.policy.load import load_policy, plan_of, problem_lines, unnamed_apis
from guard.proxy.identity import Identity
from guard.proxy.plans import Active


def load_active(source: str | Path, *, api: str | None, env: Mapping[str, str], salt: bytes = NO_SALT) -> Active:
    """Load a policy and everything that it names.

    Args:
        source: a preset's name or a file.
        api: the API of routes that name none; None takes them for what `assumed_api` says, with a warning.
        env: environment, for `{env: NAME}`.
        salt: secret of the deployment, for detectors.

    Raises:
        PolicyError: every mistake that was found.
    """
    loaded = load_policy(source, env=env)
    plan = plan_of(loaded, api=api, salt=salt, today=datetime.now(UTC).date())
    if api is None:
        unnamed = unnamed_apis(loaded.policy)
        plan = replace(plan, warnings=(*problem_lines(unnamed, loaded.root), *plan.warnings))
    identity = Identity.load(loaded.policy.identity)
    return Active(plan, identity, tuple(dict.fromkeys((*loaded.files, *identity.files))))
