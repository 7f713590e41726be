"""`privacy` and `ensemble`: what a route claims, and how the answers of several models become one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from guard.privacy.measurement import Adjacency, Unit

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class TrainedPrivately(BaseModel):
    """The guarantee that the model was trained with, for example by DP-SGD.

    Args:
        epsilon: in nats.
        delta: below 1 / n for a training set of n records.
    """

    model_config = _FROZEN
    epsilon: float = Field(gt=0, le=1000, examples=[3.0])
    delta: float = Field(gt=0, lt=1, examples=[1e-6])


class Claim(BaseModel):
    """What a route promises about its model's training data. Without `claim: dp`, noise is output perturbation.

    Args:
        claim: `dp`: differential privacy, in the words that `guard explain` prints; needs unit, adjacency and
            sensitivity.
        unit: whose data is protected: one training record, or all records of one user, who must then be in one shard.
        adjacency: neighbours differ by one unit replaced, or by one added or removed.
        sensitivity: `auto`: what outputs and ensemble imply; or how far one unit can move the scores, on your word.
        records: training records; delta must be below one over it.
        model_version: names the model that answers; remembered releases of another are not given.
        releases: whose a remembered release is. `shared`: everybody's who shares the narrowest privacy budget, so under
            `per: model` anybody can tell whether somebody has asked a query before (it costs nothing, and is answered
            when the budget is spent). `per_client`: each client's own, drawn and charged for each.
        trained_privately: the model's own guarantee; answers are post-processing and nothing is charged.
        accept_lost_writes: why you accept a state that may lose charges; said in the published sentence.
    """

    model_config = _FROZEN
    claim: Literal["dp", "none"] = "none"
    unit: Unit | None = None
    adjacency: Adjacency | None = None
    sensitivity: Literal["auto"] | float | None = None
    records: int | None = Field(default=None, ge=1, le=10**15)
    model_version: str = Field(default="", max_length=128)
    releases: Literal["shared", "per_client"] = "shared"
    trained_privately: TrainedPrivately | None = None
    accept_lost_writes: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def _positive(self) -> Claim:
        if isinstance(self.sensitivity, float) and not 0 < self.sensitivity <= 1e9:
            raise ValueError("sensitivity must be above 0")
        return self


class Ensemble(BaseModel):
    """How the answers of several models, trained on disjoint shards, become one. `--upstream NAME=URL` names them.

    Noise and charge always assume `quorum` models, so one that is late or fails changes nothing that depends on data.
    Fewer than `quorum`: the request fails (502).

    Args:
        aggregate: `mean` of the scores; `vote`: the label that most models give; `noisy_vote`: the label that most
            give after noise (PATE's GNMax), which spends a privacy budget.
        quorum: least number of models that must answer.
        wait_s: how long to wait for the others once `quorum` have answered.
        noise_multiplier: of `noisy_vote`: PATE's sigma, in votes of `quorum` models, divided by sqrt 2.
        threshold: of `noisy_vote`: fewer noisy votes than this, of `quorum`, for the winner: the request is refused
            (422), which costs as much.
        threshold_noise_multiplier: PATE's sigma of the threshold, in votes of `quorum` models.
    """

    model_config = _FROZEN
    aggregate: Literal["mean", "vote", "noisy_vote"]
    quorum: int = Field(ge=1, le=4096, examples=[90])
    wait_s: float = Field(default=1.0, ge=0, le=3600)
    noise_multiplier: float | None = Field(default=None, ge=1e-3, le=1e9)
    threshold: float | None = Field(default=None, gt=0)
    threshold_noise_multiplier: float | None = Field(default=None, ge=1e-3, le=1e9)

    @model_validator(mode="after")
    def _consistent(self) -> Ensemble:
        noisy = self.aggregate == "noisy_vote"
        if noisy and self.noise_multiplier is None:
            raise ValueError("noisy_vote needs a noise_multiplier; guard budget plan finds one")
        given = (self.noise_multiplier, self.threshold, self.threshold_noise_multiplier)
        if not noisy and any(value is not None for value in given):
            raise ValueError(f"{self.aggregate} takes no noise; write aggregate: noisy_vote")
        if (self.threshold is None) != (self.threshold_noise_multiplier is None):
            raise ValueError("threshold and threshold_noise_multiplier come together")
        if self.threshold is not None and self.threshold > self.quorum:
            raise ValueError("threshold is above quorum, so nothing would be answered")
        return self
