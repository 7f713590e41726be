"""Folding: what looks alike becomes one form, however it is split, and positions lead back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.defences.secret_normal import normal_places, normal_text
from guard.defences.secret_window import CONTEXT, Window

PIECES = st.sampled_from(
    ("a", "7", " ", "\\", "\\u0037", "\\u00", "u", "0", "n", "\\n", '\\"', "\\\\", "\\ud83d", "\\u200b", "\u200b",
     "\u00ad", "\uff17", "\u0664", "\u2013", "\u00a0", "\ufb01", "\u0130", "\u00df", "\u65e5", "\U0001f600")
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=30).map("".join)


def folded(parts: list[str]) -> tuple[str, list[int]]:
    window = Window()
    for i, part in enumerate(parts):
        window.add(part, last=i == len(parts) - 1)
    return window.text, [window.raw(i) for i in range(window.end + 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7\uff17\u0667 \u2013\u2212- \u00a0x", "777 --- " + " x"),
        ("4\u200b1\u00ad1", "411"),
        ("\\u0034\\n1\\t\\/\\\\", "4\n1\t/\\"),
        ("\\x41 \\u00zz C:\\dir", "\\x41 \\u00zz C:\\dir"),
        ("\ufb01", "\ufb01"),
        ("a\\", "a\\"),
        ("\u0130", "I"),
        ("\u200b" * 40 + "a", "\0\0a"),
    ],
)
def test_what_looks_alike_is_folded(text: str, expected: str) -> None:
    assert folded([text])[0] == expected


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 80), max_size=6))
def test_folding_does_not_depend_on_how_a_text_is_split(text: str, at: list[int]) -> None:
    edges = [0, *sorted(min(i, len(text)) for i in at), len(text)]
    parts = [text[a:b] for a, b in pairwise(edges)]
    whole, places = folded([text])
    assert folded(parts) == (whole, places)
    assert folded([*text, ""]) == (whole, places)
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, len(text))
    normal, found = normal_text(whole), normal_places(whole, 5)
    assert len(normal) == len(found)
    assert "".join(dict.fromkeys(normal)) == "".join(dict.fromkeys(normal_text("".join(whole[i - 5] for i in found))))


def test_many_characters_are_placed_as_few_are() -> None:
    text = "a-b 7." * 40
    assert list(normal_places(text, 9)) == [i + 9 for i, char in enumerate(text) if char.isalnum()]


def test_only_the_context_is_kept() -> None:
    window = Window()
    for _ in range(1000):
        window.add("\\u0037 " * 10, last=False)
        window.drop(window.end)
        assert len(window.text) <= 2 * CONTEXT + 30
    assert window.raw(window.end) == 70_000
