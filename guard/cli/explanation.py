"""What a policy does to one request and its answer, phase by phase, without a server. `guard explain` prints it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan

import orjson

from guard.budgets.privacy import Privacy
from guard.cli.check import describe
from guard.engine.admit import charges, digests, dimension_of
from guard.engine.aggregate import combine
from guard.engine.generation import Generation
from guard.engine.memo import memo_of, no_consensus
from guard.engine.randomness import QueryNoise
from guard.engine.release import PrivateRun, Report, release
from guard.errors import ClientError, GuardError
from guard.model.client import Client
from guard.model.exchange import Call, Reply
from guard.model.parameters import Parameter
from guard.model.prediction import Answer
from guard.model.text import Most
from guard.policy.detection_words import Words, in_words
from guard.policy.plan import Plan, RoutePlan
from guard.policy.privacy import Ensemble
from guard.policy.reference import details
from guard.wire.base import Reading, Streams
from guard.wire.events import splitter


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Args:
        phase: as in the handler.
        what: the step with its parameters.
        does: one line on what it does.
        costs: one line on what it costs; empty when it costs nothing worth a line.
        shift_l1: mean L1 distance between the scores before and after it, over rows; None where no scores change hands.
        result: what it did to this request, in words.
    """

    phase: str
    what: str
    does: str = ""
    costs: str = ""
    shift_l1: float | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class Charged:
    """What a budget would take for this request.

    Args:
        budget: its name.
        scope: whom it charges.
        amount: how much, at most: repeats of a graded answer are free.
        limit: how much there is in a window.
        then: what happens beyond.
        hard_limit: rows in all, or None.
        mode: `shadow` or `enforce`.
    """

    budget: str
    scope: str
    amount: int
    limit: int
    then: str
    hard_limit: int | None
    mode: str


@dataclass(slots=True)
class Explanation:
    """All of it.

    Args:
        method: of the request.
        path: of the request.
        routes: each route's name and why it takes the request or does not.
        route: the one that takes it, or None.
        access: `scoring` or `status`; empty when nothing takes it.
        rows: rows in the request.
        steps: in order.
        charged: budgets.
        before: what the model said.
        after: what the client gets.
        refused: the error the client gets instead, or None.
        notes: what else to know.
        statement: what may be said of the training data's privacy, sentence by sentence.
        detection: what the client is watched for, or None.
    """

    method: str
    path: str
    routes: list[tuple[str, str]]
    route: str | None = None
    access: str = ""
    rows: int = 0
    steps: list[Step] = field(default_factory=list[Step])
    charged: list[Charged] = field(default_factory=list[Charged])
    before: bytes = b""
    after: bytes = b""
    refused: GuardError | None = None
    notes: list[str] = field(default_factory=list[str])
    statement: tuple[str, ...] = ()
    detection: Words | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to explain.

    Args:
        method: upper case.
        path: raw path.
        request: the request's body.
        content_type: of the request.
        answer: what the model said.
        client: who asks.
        secret: keys the noise.
    """

    method: str
    path: str
    request: bytes
    content_type: str
    answer: bytes
    client: Client
    secret: bytes


def explain(plan: Plan, traffic: Traffic) -> Explanation:
    """Follow one request through `plan`."""
    found = plan.match(traffic.method, traffic.path)
    taken = None if found is None else found.route.name
    routes = reasons(plan, traffic.method, traffic.path, taken)
    result = Explanation(traffic.method, traffic.path, routes, before=traffic.answer)
    if found is None:
        result.notes.append(
            "no route opens it: the client gets 404"
            if plan.mode == "enforce"
            else "no route opens it: in shadow it goes through"
        )
        return result
    result.route, result.access, result.statement = found.route.name, found.endpoint.access, found.route.statement
    if found.endpoint.access != "scoring":
        result.notes.append("a status endpoint: answered by the model, no budget, no defence")
        return result
    if found.route.mode == "shadow":
        result.notes.append(
            "the route is in shadow: everything below is decided and counted, and the client gets what the model said"
        )
    if found.route.detection is not None:
        result.detection = in_words(found.route.detection)
    call = Call(traffic.path, found.params, traffic.content_type, traffic.request)
    try:
        reading = _read(found.route, call, result)
        _admit(found.route, reading, traffic, result)
        _answer(found.route, reading, traffic, result)
    except GuardError as error:
        result.refused = error
        result.after = found.route.codec.error(error)[1]
    return result


def reasons(plan: Plan, method: str, path: str, taken: str | None) -> list[tuple[str, str]]:
    """Return each route's name and why it takes the request or does not."""
    told: list[tuple[str, str]] = []
    passed = False
    for route in plan.routes:
        if route.name == taken:
            passed = True
            told.append((route.name, "takes it"))
        else:
            reason = _reason(route, method, path)
            told.append(
                (route.name, reason or (f"comes after {taken}" if passed else "refuses paths with dot segments"))
            )
    return told


def _reason(route: RoutePlan, method: str, path: str) -> str:
    """Return why the route does not take the request; empty when only the order of routes keeps it from it."""
    at_path = [open_ for open_ in route.endpoints if open_.pattern.fullmatch(path)]
    if not at_path:
        return f"{route.api} opens nothing at this path here"
    same = [open_ for open_ in at_path if open_.endpoint.method == method]
    if not same:
        return f"takes {', '.join(sorted({open_.endpoint.method for open_ in at_path}))} here, not {method}"
    if all(open_.narrow is not None and not open_.narrow.fullmatch(path) for open_ in same):
        return "its match names another path"
    return ""


def _read(route: RoutePlan, call: Call, result: Explanation) -> Reading:
    reading = route.codec.read(call)
    result.rows = reading.queries.rows
    rows = f"{result.rows} row{'s' if result.rows > 1 else ''}"
    result.steps.append(
        Step("read", route.api, "decodes the queries; a body that cannot be read is refused", result=rows)
    )
    if route.parameters:
        does = "lets a request's parameters through, moves them to their bounds, takes them out or refuses them"
        what = f"parameters: {', '.join(map(_parameter, route.parameters))}"
        same = orjson.loads(reading.body) == orjson.loads(call.body)
        changed = "as they came" if same else "the request was changed"
        result.steps.append(Step("read", what, does, result=changed))
    if route.inputs is None:
        return reading
    does = (
        "refuses queries outside the domain (422) and snaps them to step"
        if route.inputs.step
        else "refuses queries outside the domain (422)"
    )
    try:
        snapped = route.inputs.admit(reading.queries)
    except ClientError as error:
        result.steps.append(Step("inspect", f"inputs: {describe(route.inputs)}", does, result=error.message))
        raise
    said = "fits" if snapped is None else "fits after snapping"
    result.steps.append(Step("inspect", f"inputs: {describe(route.inputs)}", does, result=said))
    return reading


def _parameter(parameter: Parameter) -> str:
    """Return what happens to a parameter, in few words.

    >>> _parameter(Parameter(name="n", max=2)), _parameter(Parameter(name="seed", action="drop"))
    ('n at most 2', 'seed drop')
    """
    bounds = [f"at least {parameter.min:g}"] if parameter.min is not None else []
    bounds += [f"at most {parameter.max:g}"] if parameter.max is not None else []
    return f"{parameter.name} {', '.join(bounds) or parameter.action}"


def _admit(route: RoutePlan, reading: Reading, traffic: Traffic, result: Explanation) -> None:
    queries = reading.queries
    distinct = any(budget.distinct for budget in route.budgets)
    seen = digests(traffic.secret, queries) if distinct else None
    dimension = dimension_of(queries)
    if route.inputs is not None and route.inputs.size is not None:
        dimension = route.inputs.size
    for budget in route.budgets:
        made = charges((budget,), traffic.client, queries.rows, dimension, seen, most=reading.most)
        if not made:
            continue  # nothing of what it counts can be answered
        charge = made[0]
        amount = charge.amount if charge.digests is None else len(set(charge.digests))
        limit = charge.limit
        if isinstance(budget, Privacy):
            # In answers, which say more than the filter's units.
            amount, limit = charge.rows, budget.answers
        mode = "shadow" if route.mode == "shadow" else budget.mode
        result.charged.append(Charged(charge.budget, charge.scope, amount, limit, charge.then, charge.hard_limit, mode))
        result.steps.append(
            Step(
                "admit",
                describe(budget),
                first_sentence(details(type(budget))),
                "",
                None,
                f"{amount} of {limit:,} for {charge.scope}",
            )
        )


def _answer(route: RoutePlan, reading: Reading, traffic: Traffic, result: Explanation) -> None:
    if reading.most is not None:
        _generated(route, reading, reading.most, traffic, result)
        return
    reply = Reply(200, [(b"content-type", b"application/json")], traffic.answer)
    answer = route.codec.answer(reply, reading)
    if route.ensemble is not None:
        answer = _combined(route, route.ensemble, reply, reading)
        does = f"asks all models, and fails below {route.ensemble.quorum} answers"
        said = "one answer is shown as if every model had given it"
        what = f"ensemble: {route.ensemble.aggregate} of {route.ensemble.quorum} or more"
        result.steps.append(Step("forward", what, does, result=said))
    _drops(route, answer, result)
    noise = QueryNoise(
        traffic.secret, route.ledger, traffic.client.name, reading.queries.answered_by(answer.rows), route.inputs
    )
    private = None
    if route.private is not None:
        memo = memo_of(route.private, traffic.client, traffic.path, digests(traffic.secret, reading.queries))
        bounds = None if route.ensemble is not None else route.private.bounds
        private = PrivateRun(bounds, route.private.columns, memo)
    report = release(route.defences, route.outputs, answer, noise, labels_only=False, trace=True, private=private)
    _releases(route, report, result)
    if private is not None and private.memo.withheld:
        raise no_consensus()
    result.after = route.codec.render(answer)[1] if route.mode == "enforce" else traffic.answer


def _releases(route: RoutePlan, report: Report, result: Explanation) -> None:
    # Without predictions (an answer of labels) no defence has anything to do, and nothing is traced.
    done = {index: step.score_shift_l1 for index, step in enumerate(report.steps)}
    for index, defence in enumerate(route.defences):
        doc, shift = details(type(defence)), done.get(index)
        result.steps.append(
            Step("release", describe(defence), first_sentence(doc), costs(doc), shift, _changed(shift, defence.mode))
        )


def _generated(route: RoutePlan, reading: Reading, most: Most, traffic: Traffic, result: Explanation) -> None:
    """Release generated text, whole or in events."""
    codec = route.codec
    noise = QueryNoise(traffic.secret, route.ledger, traffic.client.name, reading.queries, route.inputs)
    generation = Generation(route.defences, route.outputs, noise, most, trace=True)
    if reading.stream is None or not isinstance(codec, Streams):
        answer = codec.answer(Reply(200, [(b"content-type", b"application/json")], traffic.answer), reading)
        _drops(route, answer, result)
        generation.take(answer)
        left = codec.render(answer)[1]
    else:
        split = splitter(reading.stream, len(traffic.answer) + 1)
        parts: list[bytes] = []
        for event in [*split.feed(traffic.answer), *split.end()]:
            for answer in codec.event(event, reading):
                generation.take(answer)
                parts.append(codec.write_event(answer))
        left = b"".join(parts)
    _releases(route, generation.report(), result)
    result.after = left if route.mode == "enforce" else traffic.answer


def _combined(route: RoutePlan, ensemble: Ensemble, reply: Reply, reading: Reading) -> Answer:
    answers: list[Answer | None] = [route.codec.answer(reply, reading) for _ in range(ensemble.quorum)]
    bounds = None if route.private is None else route.private.bounds
    return combine(answers, ensemble.aggregate, ensemble.quorum, bounds, reading.queries.rows)


def _drops(route: RoutePlan, answer: Answer, result: Explanation) -> None:
    does = (
        "lets out only what the API defines and the declared scores"
        if route.fields == "known"
        else "lets out what the model adds, too"
    )
    said = f"drops {', '.join(answer.dropped)}" if answer.dropped else "nothing to drop"
    result.steps.append(Step("read_answer", f"fields: {route.fields}", does, result=said))


def _changed(shift: float | None, mode: str) -> str:
    if mode == "shadow":
        return "in shadow: counted, not applied"
    if shift is not None and isnan(shift):
        return "a row stays below the threshold: the request is refused"
    return f"scores move by {shift:.4g} (mean L1)" if shift else "changes nothing here"


def first_sentence(text: str) -> str:
    """Return the first paragraph's first sentence, on one line.

    >>> first_sentence("Keeps a.b the same. More.")
    'Keeps a.b the same.'
    """
    line = " ".join(text.partition("\n\n")[0].split())
    return line.partition(". ")[0].rstrip(".") + "."


def costs(text: str) -> str:
    """Return the sentence that starts with `Costs`, on one line; empty when there is none."""
    line = " ".join(text.split())
    _, found, rest = line.partition("Costs")
    return f"Costs{rest.partition('. ')[0]}".rstrip(".") + "." if found else ""
