"""What a client may ask of a model beside its query: the declaration `parameters:` of a route."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ParameterAction = Literal["allow", "drop", "refuse"]


class Parameter(BaseModel):
    """What happens to one parameter of a request; each API's own spelling of it (`max_new_tokens`) goes by one name.

    Args:
        name: `logit_bias`, `logprobs`, `top_logprobs`, `n`, `best_of`, `echo`, `prompt_logprobs`, `seed`,
            `temperature`, `max_tokens`, `dimensions`, `token_ids` (prompts and answers as token numbers), or any member
            of the request that the API defines and Guard does not know.
        action: `allow` lets it through, `drop` takes it out of the request, `refuse` answers 400.
        min: lesser numbers are raised to it.
        max: greater numbers are lowered to it; a request that has none gets it, where the API's default may be more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")
    action: ParameterAction = "allow"
    min: float | None = Field(default=None, ge=0, le=2**31)
    max: float | None = Field(default=None, ge=0, le=2**31)

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        if self.action != "allow" and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max only follow action: allow, not {self.action}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self
