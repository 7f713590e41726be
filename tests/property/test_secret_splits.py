"""However a text is split, what leaves is the same, what waits is bounded, and nothing of a secret is out too early."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from guard.defences.secret_scanner import LONGEST
from guard.defences.secrets import Secrets

CANARIES = "correct horse battery staple\n7947-2210-5521\nZürich 9041 Kobalt"
KEY = "AKIAIOSFODNN7EXAMPLE"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq3\nabc+/=\n-----END RSA PRIVATE KEY-----"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_def-ghijkl"
PLANTED = (
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "371449635398431",
    "5 5 5 5 5 5 5 5 5 5 5 5 4 4 4 4",
    "DE89 3704 0044 0532 0130 00",
    "gb82west12345698765432",
    "NL91ABNA0417164300",
    KEY,
    "ghp_" + "a1B2" * 9,
    "sk-ant-api03-" + "aB3_" * 9,
    "xoxb-1234567890-abcdefghij",
    "hf_" + "AbCd1" * 7,
    TOKEN,
    PEM,
    "postgres://app:pa55word@db.internal/x",
    "password is Tr0ub4dor&3",
    'api_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"',
    "john.smith@example.com",
    "ann@mail.example.co.uk",
    "correct horse battery staple",
    "7947-2210-5521",
    "7 9.4 7-2210 5521",
    "ZURICH 9041, kobalt",
    "EMP-123456",
)
NEAR = (
    "4111 1111 1111 1112",
    "2024-05-17 13:45:10",
    "0.4532015112830366",
    "DE88 3704 0044 0532 0130 00",
    "at 10 o'clock",
    "AKIA",
    "ghp_",
    "sk-",
    "eyJ",
    "-----BEGIN",
    "-----END RSA PRIVATE KEY-----",
    "MII",
    "://",
    "user@",
    "@home",
    "password is",
    "token:",
    "api key",
    "correct horse",
    "7947-2210",
    "79 472",
    "EMP-12",
    "550e8400-e29b-41d4-a716-446655440000",
    "a" * 90,
    "4" * 25,
    "4 " * 25,
    "Zürich",
    "-" * 12,
    "=" * 9,
    "A0" * 40,
    "." * 5,
    "x.y.z",
)
GLUE = (
    " ",
    "",
    ", ",
    ". ",
    "\n",
    "-",
    "\u200b",
    "\u00a0",
    "\\",
    "\\n",
    "\\u0037",
    "\\u00",
    "\\\\",
    "\uff11",
    "\u0664",
    "\u00ad" * 3,
    "\u200b" * 40,
    " the ",
    " of it",
    "é",
    "ß",
    "ﬁ",
    "日本語",
    '"',
    "'",
    "@",
    ":",
    "4",
    "7",
    "c",
)
SPEC = Secrets(canaries=SecretStr(CANARIES), patterns=(r"\bEMP-\d{6}",))
ENDING = Secrets(canaries=SecretStr(CANARIES), patterns=(r"\bEMP-\d{6}",), action="end")


class Left(NamedTuple):
    """What came of a text."""

    text: str
    spans: list[tuple[int, int]]
    most: int


def left(spec: Secrets, parts: list[str], before: str = "") -> Left:
    """Feed a text, check what is promised of each step, and put together what leaves."""
    scanner = spec.scanner(before)
    out, spans, most, fed, upto = "", list[tuple[int, int]](), 0, 0, 0
    ended = False
    for i, part in enumerate(parts):
        cleared = scanner.feed(part, last=i == len(parts) - 1)
        fed += len(part)
        assert upto <= cleared.upto <= fed
        assert not (ended and (cleared.text or not cleared.ends))
        for a, b in cleared.redacted:
            assert upto <= a < b <= cleared.upto
            if spans and spans[-1][1] == a:
                spans[-1] = (spans[-1][0], b)
            else:
                assert not spans or spans[-1][1] < a
                spans.append((a, b))
        upto, ended = cleared.upto, cleared.ends
        most = max(most, fed - upto)
        out += cleared.text
    assert upto == fed
    return Left(out, spans, most)


def cut(text: str, at: list[int]) -> list[str]:
    edges = [0, *sorted(min(i, len(text)) for i in at), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def rebuilt(text: str, spans: list[tuple[int, int]], replacement: str) -> str:
    at, parts = 0, list[str]()
    for a, b in spans:
        parts += [text[at:a], replacement]
        at = b
    return "".join(parts) + text[at:]


TEXTS = st.lists(st.one_of(*map(st.sampled_from, (PLANTED, NEAR, GLUE, GLUE))), max_size=14).map("".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 400), max_size=12), TEXTS)
def test_every_split_leaves_the_same(text: str, at: list[int], before: str) -> None:
    whole = left(SPEC, [text], before)
    assert whole.text == rebuilt(text, whole.spans, "[redacted]")
    for parts in (cut(text, at), list(text) or [""]):
        split = left(SPEC, parts, before)
        assert split.text == whole.text
        assert split.spans == whole.spans
        # Folded characters: an escape has six, and sixteen that show nothing may stand before each.
        assert split.most <= LONGEST if text.isascii() and "\\" not in text else 17 * LONGEST


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 400), max_size=12))
def test_an_answer_that_ends_ends_at_the_same_place(text: str, at: list[int]) -> None:
    whole = left(ENDING, [text])
    redacted = left(SPEC, [text])
    assert whole.text == text[: redacted.spans[0][0] if redacted.spans else None]
    for parts in (cut(text, at), list(text) or [""]):
        assert left(ENDING, parts).text == whole.text


@pytest.mark.parametrize("secret", PLANTED)
def test_nothing_of_a_secret_leaves_at_any_split(secret: str) -> None:
    before, after = "She said: ", ", and left."
    expected = left(SPEC, [before + secret + after])
    assert expected.text != before + secret + after
    assert len(expected.spans) == 1
    text = before + secret + after
    for i in range(len(text) + 1):
        scanner = SPEC.scanner("")
        first = scanner.feed(text[:i], last=False)
        assert first.text == expected.text[: len(first.text)]
        assert first.text + scanner.feed(text[i:], last=True).text == expected.text


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.one_of(*map(st.sampled_from, (PLANTED, NEAR, GLUE, (*"1479aest .@-",)))), TEXTS)
def test_a_candidate_completes_what_feeding_it_would_redact(text: str, token: str, before: str) -> None:
    asked = SPEC.scanner(before)
    asked.feed(text, last=False)
    completes = asked.completes(token)
    whole = left(SPEC, [text + token], before)
    reaches = bool(whole.spans) and whole.spans[-1][1] > len(text)
    assert completes == reaches
    assert asked.completes(token) == completes
    # And asking has changed nothing.
    assert asked.feed(token, last=True).upto == len(text + token)
