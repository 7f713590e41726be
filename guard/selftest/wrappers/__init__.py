"""What an attacker does who has read Guard's source: wrappers that turn a world into a harder one for the defence.

A wrapper changes how the API is asked or how its answers are read, so that it goes with every attack. Each is made to
break at least one naive policy (`docs/selftest.md` says which), and the tests hold it to that.
"""

from __future__ import annotations

from guard.selftest.wrappers.accounts import slow_pacing, split_accounts, split_keys
from guard.selftest.wrappers.averages import averaging, jitter_across, jitter_inside
from guard.selftest.wrappers.crowd import hide_5, hide_10, hide_25
from guard.selftest.wrappers.readings import clip_logits, labels
from guard.selftest.wrappers.shadows import ddae
from guard.selftest.wrappers.wrapped import Wrapped, Wrapper

__all__ = ["WRAPPERS", "Wrapped", "Wrapper"]

WRAPPERS: dict[str, Wrapper] = {
    "labels": labels,
    "averaging": averaging,
    "jitter_inside": jitter_inside,
    "jitter_across": jitter_across,
    "split_accounts": split_accounts,
    "split_keys": split_keys,
    "slow_pacing": slow_pacing,
    "hide_5": hide_5,
    "hide_10": hide_10,
    "hide_25": hide_25,
    "clip_logits": clip_logits,
    "ddae": ddae,
}
"""By the name that reports and `docs/selftest.md` use."""
