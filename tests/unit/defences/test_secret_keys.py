"""Shapes of keys: held against detect-secrets', whose tokens must all be found, however they come."""

from __future__ import annotations

import re
import string
from functools import cache
from typing import TYPE_CHECKING, cast

import pytest
from detect_secrets.plugins import (
    aws,
    azure_storage_key,
    discord,
    github_token,
    gitlab_token,
    openai,
    private_key,
    pypi_token,
    sendgrid,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.defences.secret_keys import Shapes, ShapeSet, key_shapes
from guard.defences.secret_shapes import WIDEST, shape
from guard.defences.secret_window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = {
    "AWS": aws.AWSKeyDetector, "Azure": azure_storage_key.AzureStorageKeyDetector,
    "Discord": discord.DiscordBotTokenDetector, "GitHub": github_token.GitHubTokenDetector,
    "GitLab": gitlab_token.GitLabTokenDetector, "OpenAI": openai.OpenAIDetector,
    "private key": private_key.PrivateKeyDetector, "PyPI": pypi_token.PypiTokenDetector,
    "SendGrid": sendgrid.SendGridDetector, "Square": square_oauth.SquareOAuthDetector, "Stripe": stripe.StripeDetector,
    "Telegram": telegram_token.TelegramBotTokenDetector, "Twilio": twilio.TwilioKeyDetector,
}  # fmt: skip
OURS_IS_NOT = ("A3T", "aws.", "SG\\.[a-zA-Z0-9_-]{22}$", "PuTTY")
"""Parts of patterns that are left out: retired AWS keys, and keys beside words, which another finder finds."""
WITHOUT = string.printable.replace("\\", "")


def patterns() -> Iterator[tuple[str, str]]:
    for name, plugin in PLUGINS.items():
        for found in cast("list[re.Pattern[str]]", plugin.denylist):
            pattern = found.pattern.replace("|A3T[A-Z0-9]", "").replace("A3T[A-Z0-9]|", "")
            pattern = pattern.removeprefix("^").removesuffix("$").replace(r"(?!\w)", "")
            if not any(part in pattern for part in OURS_IS_NOT):
                yield name, pattern


def marks(text: str, set_: ShapeSet) -> list[tuple[int, int]]:
    window = Window()
    window.add(text, last=True)
    Shapes(set_).look(window, last=True)
    return window.marks


@cache
def keys() -> ShapeSet:
    return ShapeSet(key_shapes())


@pytest.mark.parametrize(("name", "pattern"), [pytest.param(*p, id=f"{p[0]}:{p[1][:24]}") for p in patterns()])
def test_whatever_detect_secrets_finds_is_found(name: str, pattern: str) -> None:
    @settings(max_examples=3, deadline=None, database=None)
    @given(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True, alphabet=st.sampled_from(WITHOUT)))
    def found(token: str) -> None:
        dashes = "-----" if token.startswith("BEGIN") else ""
        assert marks(f"it is {dashes}{token} .", keys()), (name, token)

    found()


def test_there_are_as_many_as_thought() -> None:
    assert len(list(patterns())) >= 25


def test_every_shape_is_decided_within_its_bound_and_found_from_its_own_pattern() -> None:
    for one in key_shapes():
        token = example(one.pattern)
        assert marks(f"it is {token} .", keys()), token
        assert not one.whole.match(token[:-1])
        assert all(one.begun.match(token[:i]) for i in range(1, len(token))), one
        assert len(token) <= WIDEST


def example(pattern: str) -> str:
    """Return the shortest text that a pattern finds."""
    pattern = pattern.removeprefix(r"\b")
    parts: list[str] = []
    for chars, times in re.findall(r"(\[[^\]]+\]|\\?.)(\{\d+(?:,\d*)?\})?", pattern):
        one = next(c for c in "A0a-/" + string.printable if re.match(chars, c)) if chars[0] == "[" else chars[-1]
        parts.append(one * (int(re.split(r"[{,}]", times)[1]) if times else 1))
    return "".join(parts)


def test_what_follows_a_key_belongs_to_it_and_nothing_else() -> None:
    text = "a AKIAIOSFODNN7EXAMPLEAAAA, b ghp_" + "aB3" * 20 + ". c"
    spans = sorted(marks(text, keys()))
    covered = {i for a, b in spans for i in range(a, b)}
    assert "".join(c for i, c in enumerate(text) if i not in covered) == "a , b . c"


def test_a_key_inside_a_word_is_found_where_its_beginning_is_rare() -> None:
    assert marks("xxAKIAIOSFODNN7EXAMPLE", keys())
    assert not marks("task-" + "a" * 30, keys())
    assert not marks("risk-proj-" + "a" * 30, keys())


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "empty"),
        ("a+b", "last element"),
        ("(ab){3}", "cannot stand"),
        ("a|b", "cannot stand"),
        (".*", "cannot stand"),
        ("(?=a)", "cannot stand"),
        ("a{3", "cannot stand"),
        ("[z-a]", "no class"),
        ("a?b", "first element"),
        ("ab{3,2}", "cannot be kept"),
        ("ab{100}[0-9]{150}", "more than 200"),
        ("a{1,200}b{9}", "more than 200"),
        ("ab{2,4}", "number of times"),
        ("a\\1", "cannot stand"),
    ],
)
def test_a_pattern_that_cannot_be_followed_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shape("own", pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (r"\bEMP-\d{6}", "EMP-123456 XEMP-123456 emp-123456", " XEMP-123456 emp-123456"),
        (r"[Pp]roject [A-Z][a-z]{2,}", "project Titan, Project titan", ", Project titan"),
        (r"\w{3}\.\d?\d\.", "abc.12. x", " x"),
        (r"é[à-ü]{2}", "xéàü é", "x é"),
        (r"Δ\d{3,}", "Δ12345!", "!"),
    ],
)
def test_a_pattern_of_ones_own_is_found(pattern: str, text: str, left: str) -> None:
    covered = {i for a, b in marks(text, ShapeSet([shape("own", pattern)])) for i in range(a, b)}
    assert "".join(c for i, c in enumerate(text) if i not in covered) == left
