"""What a level of false alarms says, where that ends, and what no detector sees.

One wording for `guard explain`, the admin listener and the docs.
"""

from __future__ import annotations

MEANING = (
    "calibrated(a, n, h): of honest clients like the n that were held out at calibration, at most a share a ever"
    " reaches the step within h queries; on average over calibrations, whatever the model behind the evidence."
    " nominal(a): the same, only as far as honest clients are what that model takes them for."
)

WHERE_IT_ENDS: tuple[str, ...] = (
    "new clients unlike those of the calibration: another application, another country, another season",
    "clients whose own queries drift, and clients that ask for longer than the horizon",
    "an index of past queries that still fills up: the share of repeats grows until a client has asked 512 queries",
    "a change upstream of how features are made, named or ordered",
    "retries, caches and test suites whose queries reach Guard under several clients' names",
    "calibration logs that held an attack",
    "fewer than 1/a held-out clients: then the level is nominal, and shifted copies of clients, which calibration makes"
    " of half of them, do not count",
    "pools over a group or over everybody: their levels are nominal, for one pool and one day",
)
"""A level does not hold for, or beyond, these."""

UNSEEN = (
    "No detector sees a copy being trained on queries such as honest clients ask, nor a question about membership that"
    " is asked once: only an information budget limits these."
)
