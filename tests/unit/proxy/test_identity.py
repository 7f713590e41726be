from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import Denied, PolicyError
from guard.model.client import Client
from guard.policy.schema import AddressIdentity, AnyIdentity, ApiKeyIdentity
from guard.ports import Headers
from guard.proxy.identity import Identity
from guard.proxy.identity_address import Addresses, parse
from guard.proxy.identity_keys import KeySource, read_keys


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def keys_file(folder: Path, *lines: str, name: str = "keys", mode: int = 0o600) -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    path.chmod(mode)
    return str(path)


def api_key(path: str, header: str = "x-api-key", *, forward: bool = False) -> ApiKeyIdentity:
    return ApiKeyIdentity(kind="api_key", header=header, keys_file=path, forward=forward)


def address(*trusted: str) -> AddressIdentity:
    return AddressIdentity(kind="address", trusted_proxies=trusted)


def mistakes(*specs: AnyIdentity) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        Identity.load(specs)
    return caught.value


def refused(identity: Identity, headers: Headers) -> Denied:
    with pytest.raises(Denied) as caught:
        identity.identify(headers, "192.0.2.1")
    assert (caught.value.status, caught.value.code) == (401, "unknown_credential")
    return caught.value


@pytest.fixture
def keyed(tmp_path: Path) -> Identity:
    return Identity.load((api_key(keys_file(tmp_path, f"alice@acme:{digest('k-alice')}", f"bob:{digest('k-bob')}")),))


class TestApiKeys:
    def test_a_key_names_its_client_and_group(self, keyed: Identity) -> None:
        assert keyed.identify([(b"x-api-key", b"k-alice")], "192.0.2.1") == Client("alice", "acme", "api_key")

    def test_the_group_is_the_client_when_none_is_given(self, keyed: Identity) -> None:
        assert keyed.identify([(b"x-api-key", b"k-bob")], "192.0.2.1") == Client("bob", "bob", "api_key")

    @pytest.mark.parametrize("value", [b"Bearer k-bob", b"bearer   k-bob ", b" k-bob"])
    def test_bearer_and_white_space_are_taken_off(self, keyed: Identity, value: bytes) -> None:
        assert keyed.identify([(b"x-api-key", value)], "192.0.2.1").name == "bob"

    @pytest.mark.parametrize(
        "value", [b"k-eve", b"", b" ", b"Bearer ", b"K-BOB", b"\xff\x00", digest("k-bob").encode()]
    )
    def test_a_wrong_key_is_refused_and_does_not_fall_back_to_the_address(self, keyed: Identity, value: bytes) -> None:
        refused(keyed, [(b"x-api-key", value)])

    def test_a_header_that_stands_twice_is_refused_even_with_the_right_key(self, keyed: Identity) -> None:
        refused(keyed, [(b"x-api-key", b"k-bob"), (b"x-api-key", b"k-bob")])

    def test_no_key_means_the_address(self, keyed: Identity) -> None:
        assert keyed.identify([(b"authorization", b"Basic x")], "192.0.2.1").name == "address:192.0.2.1"

    def test_a_refusal_repeats_nothing_of_the_key(self, keyed: Identity) -> None:
        assert "secret-part" not in str(refused(keyed, [(b"x-api-key", b"secret-part")]))


class TestKeysFile:
    def test_comments_blank_lines_and_windows_line_ends_are_fine(self, tmp_path: Path) -> None:
        path = keys_file(tmp_path, "# keys", "", f"  alice:{digest('a').upper()}  # until May\r")
        assert Identity.load((api_key(path),)).identify([(b"x-api-key", b"a")], "").name == "alice"

    def test_a_client_may_have_two_keys_so_that_one_can_be_replaced(self, tmp_path: Path) -> None:
        identity = Identity.load((api_key(keys_file(tmp_path, f"a@g:{digest('old')}", f"a@g:{digest('new')}")),))
        found = {identity.identify([(b"x-api-key", key)], "") for key in (b"old", b"new")}
        assert found == {Client("a", "g", "api_key")}

    def test_every_malformed_line_is_a_problem_with_file_and_line(self, tmp_path: Path) -> None:
        path = keys_file(
            tmp_path,
            f"alice:{digest('a')}",
            "bob",
            "bob:plaintext-key",
            f"b ob:{digest('b')}",
            f"bob@:{digest('b')}",
            f"jwt:bob:{digest('b')}",
            f":{digest('b')}",
            f"carol:{digest('a')}",
            f"alice@other:{digest('c')}",
            f"dave:{digest('')}",
            "é:" + digest("e"),
        )
        error = mistakes(api_key(path))
        assert [problem.line for problem in error.problems] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
        assert {(p.file, p.path) for p in error.problems} == {(path, "identity[0].keys_file")}
        assert error.file == path
        assert all(problem.hint for problem in error.problems)
        assert "line 1 has the same key" in error.problems[6].message
        assert "line 1 puts alice into another group" in error.problems[7].message
        assert "empty key" in error.problems[8].message

    def test_no_message_repeats_what_might_be_a_key(self, tmp_path: Path) -> None:
        error = mistakes(api_key(keys_file(tmp_path, "bob:hunter2", "hunter2")))
        assert "hunter2" not in repr(error.problems)

    def test_mistakes_of_several_files_are_all_named(self, tmp_path: Path) -> None:
        one, two = keys_file(tmp_path, "a", name="one"), keys_file(tmp_path, "b", name="two")
        error = mistakes(api_key(one), api_key(two, "x-other"))
        assert [(p.file, p.path) for p in error.problems] == [
            (one, "identity[0].keys_file"),
            (two, "identity[1].keys_file"),
        ]
        assert error.file == ""

    def test_a_missing_file_is_a_problem(self, tmp_path: Path) -> None:
        assert "No such file" in mistakes(api_key(str(tmp_path / "none"))).problems[0].message

    def test_a_named_pipe_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "is not a file" in mistakes(api_key(str(tmp_path / "pipe"))).problems[0].message

    @pytest.mark.parametrize(
        ("mode", "word"), [(0o640, "read"), (0o604, "read"), (0o620, "written"), (0o602, "written")]
    )
    def test_a_file_open_to_others_is_warned_about(self, tmp_path: Path, mode: int, word: str) -> None:
        path = keys_file(tmp_path, f"a:{digest('a')}", mode=mode)
        (warning,) = Identity.load((api_key(path),)).warnings
        assert f"can be {word} by others" in warning

    def test_a_private_file_is_not_warned_about(self, keyed: Identity) -> None:
        assert keyed.warnings == ()

    def test_an_empty_file_is_warned_about_and_admits_nobody(self, tmp_path: Path) -> None:
        identity = Identity.load((api_key(keys_file(tmp_path, "# none yet")),))
        assert "holds no key" in identity.warnings[0]
        refused(identity, [(b"x-api-key", b"a")])

    def test_one_name_in_two_files_is_warned_about(self, tmp_path: Path) -> None:
        one = keys_file(tmp_path, f"a:{digest('1')}", name="one")
        two = keys_file(tmp_path, f"a:{digest('2')}", name="two")
        assert "one client with one budget" in Identity.load((api_key(one), api_key(two, "x-other"))).warnings[0]

    def test_one_file_behind_two_headers_is_fine(self, tmp_path: Path) -> None:
        path = keys_file(tmp_path, f"a:{digest('1')}")
        identity = Identity.load((api_key(path), api_key(path, "authorization")))
        assert (identity.warnings, identity.files) == ((), (Path(path),))
        assert identity.identify([(b"authorization", b"Bearer 1")], "").name == "a"

    @given(st.binary(max_size=300))
    def test_any_bytes_are_clients_or_problems(self, data: bytes) -> None:
        clients, problems = read_keys(data)
        assert all(len(found) == 32 for found in clients)
        assert all(0 < problem.line <= data.count(b"\n") + 1 for problem in problems)


class TestOrder:
    @pytest.fixture
    def two(self, tmp_path: Path) -> Identity:
        one = keys_file(tmp_path, f"first:{digest('1')}", name="one")
        two = keys_file(tmp_path, f"second:{digest('2')}", name="two")
        return Identity.load((api_key(one, "X-One"), api_key(two, "X-Two")))

    def test_the_first_source_that_names_a_client_wins_whatever_the_headers_order(self, two: Identity) -> None:
        assert two.identify([(b"x-two", b"2"), (b"x-one", b"1")], "").name == "first"

    def test_the_second_source_is_asked_when_the_first_has_no_credential(self, two: Identity) -> None:
        assert two.identify([(b"x-two", b"2")], "").name == "second"

    def test_a_wrong_credential_never_falls_through_to_a_right_one(self, two: Identity) -> None:
        refused(two, [(b"x-one", b"no"), (b"x-two", b"2")])

    def test_sources_of_one_header_look_at_it_together(self, tmp_path: Path) -> None:
        one = keys_file(tmp_path, f"first:{digest('1')}", name="one")
        two = keys_file(tmp_path, f"second:{digest('2')}", name="two")
        identity = Identity.load((api_key(one, "authorization"), api_key(two, "Authorization")))
        assert identity.identify([(b"authorization", b"Bearer 2")], "").name == "second"
        refused(identity, [(b"authorization", b"Bearer 3")])

    def test_a_source_behind_address_is_a_mistake(self, tmp_path: Path) -> None:
        error = mistakes(address(), api_key(keys_file(tmp_path)))
        assert (error.problems[0].path, error.problems[0].hint) == ("identity[1]", "put address last")


class TestStrip:
    def test_credentials_do_not_go_upstream(self, tmp_path: Path) -> None:
        identity = Identity.load((api_key(keys_file(tmp_path), "X-My-Key"),))
        assert identity.strip == {b"authorization", b"cookie", b"proxy-authorization", b"x-my-key"}
        assert identity.forward == frozenset()

    def test_forward_lets_one_through(self, tmp_path: Path) -> None:
        identity = Identity.load((api_key(keys_file(tmp_path), "Authorization", forward=True),))
        assert identity.strip == {b"cookie", b"proxy-authorization"}
        assert identity.forward == {b"authorization"}

    def test_a_header_of_two_sources_goes_through_only_if_both_say_so(self, tmp_path: Path) -> None:
        path = keys_file(tmp_path)
        assert b"x-api-key" in Identity.load((api_key(path, forward=True), api_key(path))).strip

    def test_without_sources_the_usual_ones_are_stripped(self) -> None:
        assert Identity.load(()).strip == {b"authorization", b"cookie", b"proxy-authorization"}


class TestAddresses:
    @pytest.mark.parametrize(
        ("peer", "name"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::1", "::/64"),
            ("", "unknown"),
            ("/run/guard.sock", "unknown"),
            ("192.0.2.300", "unknown"),
        ],
    )
    def test_the_peer_names_the_client(self, peer: str, name: str) -> None:
        found = Identity.load((address(),)).identify([], peer)
        assert found == Client(f"address:{name}", f"address:{name}", "address")

    @pytest.mark.parametrize(
        ("forwarded", "name"),
        [
            ([b"198.51.100.7"], "198.51.100.7"),
            ([b"198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ([b"198.51.100.7", b"10.0.0.2 , 10.0.0.3"], "198.51.100.7"),
            ([b"203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ([b"198.51.100.7:4711"], "198.51.100.7"),
            ([b"[2001:db8::7]:443"], "2001:db8::/64"),
            ([b"[2001:db8::7]"], "2001:db8::/64"),
            ([b"2001:db8::7"], "2001:db8::/64"),
            ([b"::ffff:198.51.100.7"], "198.51.100.7"),
            ([b"10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            ([b"198.51.100.7, garbage, 10.0.0.2"], "10.0.0.2"),
            ([b"198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
            ([b"198.51.100.7, unknown"], "10.0.0.1"),
            ([b"[2001:db8::7"], "10.0.0.1"),
            ([b"[2001:db8::7]x"], "10.0.0.1"),
            ([b"[2001:db8::7]:x"], "10.0.0.1"),
            ([b"198.51.100.7:x"], "10.0.0.1"),
            ([b"198.51.100.7%eth0"], "10.0.0.1"),
            ([b"198.051.100.007"], "10.0.0.1"),
            ([b"1" * 100], "10.0.0.1"),
            ([b"\xff\xfe"], "10.0.0.1"),
            ([b""], "10.0.0.1"),
            ([], "10.0.0.1"),
        ],
    )
    def test_x_forwarded_for_is_walked_from_the_right_through_trusted_proxies(
        self, forwarded: list[bytes], name: str
    ) -> None:
        identity = Identity.load((address("10.0.0.0/8"),))
        headers = [(b"x-forwarded-for", value) for value in forwarded]
        assert identity.identify(headers, "10.0.0.1").name == f"address:{name}"

    def test_x_forwarded_for_of_an_untrusted_peer_means_nothing(self) -> None:
        identity = Identity.load((address("10.0.0.0/8"),))
        assert identity.identify([(b"x-forwarded-for", b"1.1.1.1")], "192.0.2.1").name == "address:192.0.2.1"

    def test_x_forwarded_for_means_nothing_without_trusted_proxies(self) -> None:
        assert Identity.load(()).identify([(b"x-forwarded-for", b"1.1.1.1")], "10.0.0.1").name == "address:10.0.0.1"

    def test_a_mapped_peer_is_trusted_as_ipv4(self) -> None:
        identity = Identity.load((address("10.0.0.0/8", "2001:db8::/32"),))
        assert identity.identify([(b"x-forwarded-for", b"1.1.1.1")], "::ffff:10.0.0.1").name == "address:1.1.1.1"
        assert identity.identify([(b"x-forwarded-for", b"1.1.1.1")], "2001:db8::1").name == "address:1.1.1.1"

    def test_a_client_cannot_push_its_address_out_of_the_walk(self) -> None:
        identity = Identity.load((address("10.0.0.0/8"),))
        forged = b",".join([b"203.0.113.9", *[b"10.0.0.5"] * 40, b"198.51.100.7"])
        assert identity.identify([(b"x-forwarded-for", forged)], "10.0.0.1").name == "address:198.51.100.7"

    def test_the_walk_is_bounded(self) -> None:
        identity = Identity.load((address("10.0.0.0/8"),))
        long = b",".join([b"198.51.100.7", *[b"10.0.0.5"] * 2000])
        assert identity.identify([(b"x-forwarded-for", long)], "10.0.0.1").name == "address:10.0.0.5"

    @given(st.text(max_size=40))
    def test_any_text_is_an_address_or_not(self, text: str) -> None:
        parse(text)


HEADER_NAMES = st.sampled_from([b"x-api-key", b"authorization", b"x-forwarded-for", b"cookie", b"accept"])
HEADER_VALUES = st.binary(max_size=80) | st.sampled_from([b"k-alice", b"Bearer k-alice", b"10.0.0.1, 1.1.1.1"])


@given(
    headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=6),
    peer=st.text(max_size=30) | st.just("10.0.0.1"),
)
def test_any_headers_give_a_client_or_a_refusal(headers: Headers, peer: str) -> None:
    clients, _ = read_keys(f"alice:{digest('k-alice')}".encode())
    identity = Identity([(b"x-api-key", KeySource(clients))], Addresses(("10.0.0.0/8",)))
    if any(name == b"x-api-key" for name, _ in headers):
        try:
            client = identity.identify(headers, peer)
        except Denied:
            return
        assert client.source == "api_key"
    else:
        assert identity.identify(headers, peer).name.startswith("address:")


def test_policies_without_tokens_do_not_import_joserfc() -> None:
    code = "import sys; import guard.proxy.identity; sys.exit('joserfc' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
