from __future__ import annotations

from guard.model.client import Client
from guard.proxy.clients import CROWD, RecentClients


def client(name: str, source: str = "api_key", group: str = "acme") -> Client:
    return Client(name, group, source)


def test_requests_and_rows_add_up() -> None:
    recent = RecentClients()
    recent.seen(client("alice"), "digits", 3, 10.0)
    recent.seen(client("alice"), "iris", 4, 11.0)
    (alice,) = recent.latest(10)
    assert (alice.requests, alice.rows, alice.last_s, alice.routes) == (2, 7, 11.0, {"digits", "iris"})


def test_the_one_seen_last_comes_first() -> None:
    recent = RecentClients()
    for name in ("a", "b", "c", "a"):
        recent.seen(client(name), "digits", 1, 0.0)
    assert [s.client.name for s in recent.latest(2)] == ["a", "c"]


def test_the_one_not_seen_for_longest_is_forgotten() -> None:
    recent = RecentClients(limit=2)
    for name in ("a", "b", "a", "c"):
        recent.seen(client(name), "digits", 1, 0.0)
    assert [s.client.name for s in recent.latest(9)] == ["c", "a"]
    assert len(recent) == 2


def test_a_client_that_changes_its_group_is_shown_with_the_new_one() -> None:
    recent = RecentClients()
    recent.seen(client("a", group="old"), "digits", 1, 0.0)
    recent.seen(client("a", group="new"), "digits", 1, 0.0)
    assert recent.latest(1)[0].client.group == "new"


def test_routes_are_bounded() -> None:
    recent = RecentClients()
    for n in range(100):
        recent.seen(client("a"), f"route{n}", 1, 0.0)
    assert len(recent.latest(1)[0].routes) == 64


def test_a_thousand_requests_of_one_address_look_like_an_ingress() -> None:
    recent = RecentClients()
    for _ in range(CROWD - 1):
        recent.seen(client("address:10.0.0.1", "address"), "digits", 1, 0.0)
    assert recent.crowd() == ""
    recent.seen(client("address:10.0.0.1", "address"), "digits", 1, 0.0)
    assert recent.crowd() == "address:10.0.0.1"


def test_a_busy_client_that_has_a_name_or_company_does_not() -> None:
    named, many = RecentClients(), RecentClients()
    for _ in range(CROWD):
        named.seen(client("alice"), "digits", 1, 0.0)
        many.seen(client("address:10.0.0.1", "address"), "digits", 1, 0.0)
    # One probe from elsewhere hides no ingress; a tenth of the traffic from elsewhere is company.
    many.seen(client("address:10.0.0.2", "address"), "digits", 1, 0.0)
    assert (named.crowd(), many.crowd()) == ("", "address:10.0.0.1")
    for _ in range(CROWD // 5):
        many.seen(client("address:10.0.0.2", "address"), "digits", 1, 0.0)
    assert many.crowd() == ""
