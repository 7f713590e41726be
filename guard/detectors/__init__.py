"""All detectors, one line each: the name in the policy's YAML and the spec that implements it."""

from __future__ import annotations

from guard.detectors.base import Registry
from guard.detectors.feature_marginals import FeatureMarginals
from guard.detectors.kernel_mean import KernelMean
from guard.detectors.line_walk import LineWalk
from guard.detectors.low_margin import LowMargin
from guard.detectors.mahalanobis import Mahalanobis
from guard.detectors.near_duplicates import NearDuplicates
from guard.detectors.off_past import OffPast
from guard.detectors.one_feature_varied import OneFeatureVaried
from guard.detectors.repeats import Repeats

# The order of signals: of the null, of counts, of everything that is kept of a client.
DETECTORS: Registry = {
    "repeats": Repeats,
    "one_feature_varied": OneFeatureVaried,
    "near_duplicates": NearDuplicates,
    "line_walk": LineWalk,
    "feature_marginals": FeatureMarginals,
    "mahalanobis": Mahalanobis,
    "off_past": OffPast,
    "kernel_mean": KernelMean,
    "low_margin": LowMargin,
}
