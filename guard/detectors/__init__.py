"""All detectors, one line each: the name in the policy's YAML and the spec that implements it."""

from __future__ import annotations

from guard.detectors.base import Registry

DETECTORS: Registry = {}
