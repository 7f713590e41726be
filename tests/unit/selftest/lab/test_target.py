"""The lab as a target: what is attacked, asked and judged where a policy has an ensemble."""

from __future__ import annotations

from guard.policy.load import load_policy
from guard.policy.privacy import Ensemble
from guard.selftest.attacks.registry import attack_named, attacks
from guard.selftest.base import Tally, World
from guard.selftest.cell import Cell, Way, world_of
from guard.selftest.lab.registry import victim
from guard.selftest.lab.shards import ensemble
from guard.selftest.lab.target import Lab

ATTACK = attack_named("membership_lira")


def cell(way: Way, preset: str = "private-ensemble") -> Cell:
    policy = load_policy(preset, env={}).policy
    return Lab(policy, policy.routes[0]).cell(ATTACK, way, "", 0, "http://lab")


def test_the_control_is_one_model_on_all_data() -> None:
    control = cell("undefended")
    assert (control.shards, control.url, control.changes) == (0, "http://lab", {})
    assert cell("defended", "strict").shards == 0


def test_floors_are_of_the_bare_ensemble_and_its_attacker_knows_it() -> None:
    assert (cell("label_only").shards, cell("label_only").url) == (5, "http://lab/ensembles/5/mean")
    defended = cell("defended")
    assert (defended.shards, defended.url, defended.changes) == (5, "http://lab", {"mixtures": 8})


def test_a_filter_on_next_to_no_messages_is_left_out() -> None:
    policy = load_policy("private-ensemble", env={}).policy
    (route,) = policy.routes
    many = route.model_copy(update={"ensemble": Ensemble(aggregate="vote", quorum=90)})
    assert Lab(policy, route).applicable(attack_named("good_words")) is None
    assert "blocks none" in (Lab(policy, many).applicable(attack_named("good_words")) or "")
    assert Lab(policy, many).applicable(ATTACK) is None


def test_copies_of_an_ensemble_are_judged_by_the_ensemble() -> None:
    model, whole = ensemble("digits_forest", 0, 5, "mean"), victim("digits_forest", 0)
    x = whole.test_x[:20]

    def judged(way: Way) -> bytes:
        return world_of(cell(way), Tally(), lambda share, what: None).judge.truth(x).tobytes()

    assert judged("defended") == judged("zero_query") == model.predict(x).tobytes()
    assert judged("undefended") == whole.predict(x).tobytes() != model.predict(x).tobytes()


def test_the_attackers_own_deployments_are_ensembles_too() -> None:
    world = world_of(cell("defended"), Tally(), lambda share, what: None)
    assert world.clean is not None
    x = world.judge.test_x[:20]
    found = world.clean("digits_forest.shadow3")(x)
    assert found.tobytes() == ensemble("digits_forest.shadow3", 0, 5, "mean").predict(x).tobytes()
    assert found.tobytes() != victim("digits_forest.shadow3", 0).predict(x).tobytes()


def test_a_route_of_generated_text_gets_the_attacks_on_it_and_no_others() -> None:
    text, scores = (load_policy(name, env={}).policy for name in ("llm", "balanced"))
    generated = {name for name, attack in attacks().items() if "generation" in attack.needs}
    assert generated == {"last_layer", "canary_extraction", "canary_extraction_unlisted", "canary_inference"}
    for name, attack in attacks().items():
        assert (Lab(text, text.routes[0]).applicable(attack) is None) == (name in generated)
        assert (Lab(scores, scores.routes[0]).applicable(attack) is None) <= (name not in generated)


def test_a_language_model_is_asked_as_every_account_and_a_model_of_scores_is_not() -> None:
    def made(attack: str, model: str) -> World:
        return world_of(
            Cell(attack, "undefended", "", 0, model, "http://127.0.0.1:1"), Tally(), lambda share, what: None
        )

    texts = made("last_layer", "softmax_head").texts
    assert texts is not None
    assert texts(0).asked == texts(3).asked == 0
    assert made("hopskipjump", "digits").texts is None
