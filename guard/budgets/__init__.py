"""Budgets: one file each, one line of registration."""

from __future__ import annotations

from guard.budgets.base import Budget
from guard.budgets.information import Information
from guard.budgets.logprobs import Logprobs
from guard.budgets.privacy import Privacy
from guard.budgets.rows import Rows
from guard.budgets.tokens import Tokens

BUDGETS: dict[str, type[Budget]] = {
    "rows": Rows,
    "information": Information,
    "privacy": Privacy,
    "tokens": Tokens,
    "logprobs": Logprobs,
}
