"""However text and tokens are split over events, what leaves is the same, and nothing of a secret is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from hypothesis import given
from hypothesis import strategies as st

from guard.defences.base import Defence
from guard.defences.noise import Noise
from guard.defences.round import Round
from guard.defences.secrets import Secrets
from guard.model.text import Token
from tests.support.generated import Client, Word, client, token

WORDS = ("SECRET", "SEC", "RET", "HIDE", "HI", "S", "a", " ", "\N{EURO SIGN}", "\N{SLIGHTLY SMILING FACE}", "\n", "xyz")
CANDIDATES = ("SECRET", "RET", "ET", "E", "T", " ", "SECRETS", "DE", "ok")


class Said(NamedTuple):
    """A generated text, and how it comes.

    Args:
        text: all of it.
        tokens: bytes and candidates of each token; together they are the text.
        events: of each event, how many characters of text and how many tokens have come with it and before it; a token
            comes no later than the text that it begins with.
    """

    text: str
    tokens: Sequence[tuple[bytes, Sequence[str]]]
    events: list[tuple[int, int]]


PRIVATE = (
    "4111 1111 1111 1111",
    "4111",
    " 1111",
    "ann@example.com",
    "ann",
    "@example",
    ".com",
    "AKIAIOSFODNN7",
    "EXAMPLE",
)


@st.composite
def generated(draw: st.DrawFn, words: Sequence[str] = WORDS) -> Said:
    """Make a text with its tokens, and a way to split both over events."""
    text = "".join(draw(st.lists(st.sampled_from(words), max_size=12)))
    data = text.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    others = st.lists(st.sampled_from(CANDIDATES), max_size=3, unique=True)
    tokens = [(piece, draw(others)) for piece in pieces]
    ends = [*sorted(draw(st.lists(st.integers(0, len(text)), max_size=6))), len(text)]
    events: list[tuple[int, int]] = []
    come = 0
    for end in ends:
        size = len(text[:end].encode())
        starts = [sum(len(piece) for piece in pieces[:i]) for i in range(len(pieces))]
        due = sum(start < size for start in starts)
        come = max(come, due, draw(st.integers(due, len(pieces))))
        events.append((end, come))
    events[-1] = (len(text), len(pieces))
    return Said(text, tokens, events)


def tokens_of(said: Said) -> list[Token]:
    return [
        token(data, *((other, -1.0 - i) for i, other in enumerate(others)), score=-0.5) for data, others in said.tokens
    ]


def split(said: Said, defences: Sequence[Defence], before: str = "") -> Client:
    got = client(*defences)
    tokens = tokens_of(said)
    text_upto = tokens_upto = 0
    for i, (end, come) in enumerate(said.events):
        last = i == len(said.events) - 1
        got.say(said.text[text_upto:end], tokens[tokens_upto:come], before=before, last=last)
        text_upto, tokens_upto = end, come
    return got


def whole(said: Said, defences: Sequence[Defence], before: str = "") -> Client:
    got = client(*defences)
    got.say(said.text, tokens_of(said), before=before, last=True)
    return got


def raws(got: Client) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", got.tokens["0/content"])


SPLITS: list[tuple[Defence, ...]] = [
    (Word(), Noise(scale=0.3)),
    (Word(redaction=""), Round(decimals=1), Word(mode="shadow")),
    (Word(ends=True), Noise(scale=0.3, reuse="cell", mechanism="laplace")),
    (Noise(scale=0.3),),
]


@given(generated(), st.sampled_from(SPLITS), st.sampled_from(("", "SEC", "the SECRET S")))
def test_what_leaves_is_the_same_for_any_split(said: Said, defences: tuple[Defence, ...], before: str) -> None:
    one, other = whole(said, defences, before), split(said, defences, before)
    assert other.text == one.text
    assert raws(other) == raws(one)
    assert other.generation.ended == one.generation.ended
    if not one.generation.ended:  # which hears no more
        assert other.generation.settled().logprobs == one.generation.settled().logprobs


@given(
    generated((*PRIVATE, " ", "\n", "\N{EURO SIGN}")),
    st.sampled_from(("redact", "end")),
    st.sampled_from(("", "4111 1111")),
)
def test_the_same_of_real_secrets(said: Said, action: Literal["redact", "end"], before: str) -> None:
    defences = (Secrets(action=action), Noise(scale=0.3))
    one, other = whole(said, defences, before), split(said, defences, before)
    assert other.text == one.text
    assert raws(other) == raws(one)


@given(generated())
def test_what_is_no_secret_leaves_and_no_token_that_touches_one(said: Said) -> None:
    got = split(said, [Word()])
    assert got.text == said.text.replace("SECRET", "[-]")
    secrets = [found.span() for found in re.finditer(b"SECRET", said.text.encode())]
    expected: list[bytes] = []
    at = 0
    for data, _ in said.tokens:
        if not any(at < end and at + len(data) > begin for begin, end in secrets):
            expected.append(data)
        at += len(data)
    assert [raw["bytes"] for raw in raws(got)] == expected


@given(generated(), st.booleans(), st.sampled_from(("", "SEC", "the S")))
def test_no_secret_leaves_in_text_or_candidates(said: Said, ends: bool, before: str) -> None:
    got = split(said, [Word(ends=ends)], before)
    assert "SECRET" not in before + got.text
    for raw in raws(got):
        assert not any("SECRET" in other for other in cast("dict[str, float]", raw["top"]))


@given(generated())
def test_two_scanners_leave_the_same_text_for_any_split(said: Said) -> None:
    steps = [Word(redaction="HI"), Word(word="HIDE", redaction="")]
    one, other = whole(said, steps), split(said, steps)
    assert other.text == one.text == said.text.replace("SECRET", "HI").replace("HIDE", "")
    for raw in raws(other):
        # A token of text that left, or of half a character of it.
        assert cast("bytes", raw["bytes"]) in other.text.encode()


@given(generated(), st.lists(st.sampled_from(["a", "S", "SECRET", "b"]), max_size=6))
def test_lying_tokens_never_say_what_the_text_does_not(said: Said, lies: list[str]) -> None:
    got = client(Word())
    events = [(0, 0), *said.events]
    for (begin, _), (end, _), lie in zip(events, events[1:], [*lies, *[""] * len(events)], strict=False):
        got.say(said.text[begin:end], [token(lie)], last=end == len(said.text))
        if end == len(said.text):
            break
    left = b"".join(cast("bytes", raw["bytes"]) for raw in raws(got)).decode("utf-8", "ignore")
    assert "SECRET" not in left
    assert got.text == said.text.replace("SECRET", "[-]")
