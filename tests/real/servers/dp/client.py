"""Privacy losses by opacus and dp-accounting: reads cases as JSON from a file, prints as many answers as JSON.

A case: {"mix": [[kind, parameter, count], ..], "epsilon": nats, "delta": probability, "ask": [..]}; kinds: gaussian and
laplace (noise multiplier), discrete_gaussian (steps a sigma, for a shift of one step), pure (epsilon of a randomised
response of two). It asks for:

* rdp: rdp_epsilon and rdp_answers: opacus' Renyi accountant, and how many it would admit of the case's one Gaussian.
* prv: prv_low and prv_high: opacus' numerical accountant, with the errors that it states; Gaussian only.
* pld: pld_low and pld_high: dp-accounting's privacy loss distributions, optimistic and pessimistic; delta_low: the
  optimistic delta at the case's epsilon; "interval": of their discretisation.
"""

from __future__ import annotations

import json
import sys
import warnings
from math import exp
from pathlib import Path
from typing import Any

from dp_accounting.pld import privacy_loss_distribution as pld
from opacus.accountants import PRVAccountant, RDPAccountant

PRV_ERROR = 0.01
MOST_ANSWERS = 2**40


def opacus_rdp(mix: list[tuple[str, float, int]], delta: float) -> float:
    """Return the epsilon of opacus' Renyi accountant."""
    accountant = RDPAccountant()
    accountant.history = [(noise, 1.0, count) for _, noise, count in mix]
    return float(accountant.get_epsilon(delta))


def opacus_answers(noise: float, epsilon: float, delta: float) -> int:
    """Return how many Gaussian answers opacus' Renyi accountant would admit."""

    def fits(count: int) -> bool:
        return opacus_rdp([("gaussian", noise, count)], delta) <= epsilon

    low, high = 0, 1
    while high < MOST_ANSWERS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def opacus_prv(mix: list[tuple[str, float, int]], delta: float) -> tuple[float, float]:
    """Return lower and upper bound of opacus' numerical accountant."""
    accountant = PRVAccountant()
    accountant.history = [(noise, 1.0, count) for _, noise, count in mix]
    loss = accountant._get_dprv(eps_error=PRV_ERROR, delta_error=delta / 1000)
    low, _, high = loss.compute_epsilon(delta, delta / 1000, PRV_ERROR)
    return float(low), float(high)


def distribution(mix: list[tuple[str, float, int]], interval: float, *, pessimistic: bool) -> Any:
    """Return dp-accounting's privacy loss distribution of a mix."""
    options = {"pessimistic_estimate": pessimistic, "value_discretization_interval": interval}
    makers = {
        "gaussian": pld.from_gaussian_mechanism,
        "laplace": pld.from_laplace_mechanism,
        "discrete_gaussian": pld.from_discrete_gaussian_mechanism,
    }
    whole = None
    for kind, parameter, count in mix:
        if kind == "pure":
            # It keeps the truth with probability 1 - p and takes one of two at random otherwise.
            one = pld.from_randomized_response(2.0 / (1.0 + exp(parameter)), 2, **options)
        else:
            one = makers[kind](parameter, use_connect_dots=pessimistic, **options)
        part = one.self_compose(count)
        whole = part if whole is None else whole.compose(part)
    return whole


def answer(case: dict[str, Any]) -> dict[str, float]:
    """Return what a case asks for."""
    mix, epsilon, delta = case["mix"], case["epsilon"], case["delta"]
    said: dict[str, float] = {}
    if "rdp" in case["ask"]:
        said["rdp_epsilon"], said["rdp_answers"] = opacus_rdp(mix, delta), opacus_answers(mix[0][1], epsilon, delta)
    if "prv" in case["ask"]:
        said["prv_low"], said["prv_high"] = opacus_prv(mix, delta)
    if "pld" in case["ask"]:
        high = distribution(mix, case["interval"], pessimistic=True)
        low = distribution(mix, case["interval"], pessimistic=False)
        said["pld_high"], said["pld_low"] = high.get_epsilon_for_delta(delta), low.get_epsilon_for_delta(delta)
        said["delta_low"] = low.get_delta_for_epsilon(epsilon)
    return said


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([answer(case) for case in json.loads(Path(sys.argv[1]).read_text())]))
