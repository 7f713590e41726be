"""What the attack self-test must find: the policy's `selftest` block, and the words that its gates are made of.

The words stand here, below the self-test, so that `guard check` finds a gate that nothing measures. The self-test's
own tables are held to them by a test.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FROZEN = ConfigDict(frozen=True, extra="forbid")

AttackName = Literal[
    "equation_solving_binary",
    "equation_solving_softmax",
    "equation_solving_mlp",
    "equation_solving_value",
    "retrain_uniform",
    "retrain_in_distribution",
    "knockoff",
    "jbda",
    "gibberish_text",
    "mimic",
    "attribute_map",
    "attribute_map_sex",
    "attribute_map_value",
    "attribute_leaked_answer",
    "attribute_leaked_answer_sex",
    "attribute_leaked_answer_rating",
    "attribute_leaked_answer_value",
    "tree_path_finding",
    "tree_partial_inputs",
    "lowd_meek",
    "active_labels",
    "averaging",
    "prototype_inversion",
    "extract_then_invert",
    "membership_threshold",
    "membership_shadow",
    "membership_lira",
    "membership_lira_mlp",
    "membership_label_only",
    "covert_channel",
    "hopskipjump",
    "surfree",
    "oars",
    "square",
    "nes",
    "anomaly_evasion",
    "good_words",
    "last_layer",
    "canary_extraction",
    "canary_extraction_unlisted",
    "canary_inference",
]
MetricName = Literal[
    "surrogate_l1",
    "surrogate_l1_uniform",
    "agreement",
    "agreement_uniform",
    "cosine",
    "value_error",
    "score_advantage",
    "correlation",
    "accuracy",
    "accuracy_non_members",
    "advantage",
    "auc",
    "tpr_at_1_fpr",
    "success",
    "passed",
    "bits",
    "residual_l1",
    "residual_repeats",
    "residual_ratio",
    "fresh_repeats",
    "distinct_answers",
    "partial_answers",
    "graded_answers",
    "dimension_error",
    "layer_error",
    "canary_returned",
    "canary_digits",
    "exposure",
]
UtilityName = Literal[
    "top1_changed", "mean_l1", "accuracy_lost", "calibration_error", "added_p50_ms", "added_p99_ms", "refused"
]


class Gate(BaseModel):
    """A bound that the self-test's figure must keep: the strongest attacker's, or what honest users pay.

    Args:
        attack: which attack; `guard selftest --list` names them.
        metric: which of its figures.
        utility: what honest users pay, instead of an attack: the worst of the lab's models.
        min: the figure must be at least this.
        max: the figure must be at most this.
    """

    model_config = _FROZEN
    attack: AttackName | None = None
    metric: MetricName | None = None
    utility: UtilityName | None = None
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_figure_one_bound(self) -> Gate:
        if (self.attack is None) == (self.utility is None):
            raise ValueError("a gate is about an attack or about utility")
        if (self.attack is None) != (self.metric is None):
            raise ValueError("an attack's gate needs its metric, and only an attack's does")
        if (self.min is None) == (self.max is None):
            raise ValueError("a gate has one bound: min or max")
        return self


class Selftest(BaseModel):
    """What must hold; `guard selftest` fails when it does not.

    Args:
        gates: bounds on the self-test's figures.
    """

    model_config = _FROZEN
    gates: tuple[Gate, ...] = ()
