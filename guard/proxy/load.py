"""From the command line's names to an `Active`: the policy, compiled, with its identity sources read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guard.policy.load import load_policy, plan_of
from guard.proxy.identity import Identity
from guard.proxy.plans import Active


def load_active(source: str | Path, *, api: str | None, env: Mapping[str, str]) -> Active:
    """Load a policy and everything that it names.

    Args:
        source: a preset's name or a file.
        api: the API of routes that name none.
        env: environment, for `{env: NAME}`.

    Raises:
        PolicyError: every mistake that was found.
    """
    loaded = load_policy(source, env=env)
    plan = plan_of(loaded, api=api)
    identity = Identity.load(loaded.policy.identity)
    return Active(plan, identity, tuple(dict.fromkeys((*loaded.files, *identity.files))))
