"""What the secrets defence finds, what an attacker who has read it gets, and what it does not find."""

from __future__ import annotations

import base64
import random
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from pydantic import SecretStr, ValidationError
from stdnum import iban, luhn

from guard.defences.base import Scanner
from guard.defences.secret_ibans import IBAN_FORMS
from guard.defences.secret_numbers import luhn as own_luhn
from guard.defences.secret_scanner import LONGEST
from guard.defences.secrets import Secrets
from guard.model.outputs import Outputs

CARD = "4111 1111 1111 1111"
CANARY = "hr-7947-2210-5521"
SECRETS = Secrets(canaries=SecretStr(f"\n{CANARY}\n\nblue kestrel lands at noon\n"))


def left(text: str, spec: Secrets = SECRETS, before: str = "") -> str:
    return spec.scanner(before).feed(text, last=True).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Pay with {CARD}, please.", "Pay with [redacted], please."),
        ("4111-1111-1111-1111 2027", "[redacted] 2027"),
        ("no. 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1!", "no. [redacted]!"),
        ("\uff14\uff11\uff11\uff11 1111 \u0661\u0661\u0661\u0661 1111", "[redacted]"),
        ("41\u200b11 1111 11\u00ad11 1111.", "[redacted]."),
        ("371449635398431 30569309025904 6011111111111117", "[redacted] [redacted] [redacted]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("1111 1111 1111 1117 is Luhn's, and nobody's", "1111 1111 1111 1117 is Luhn's, and nobody's"),
        ("0.4111111111111111", "0.4111111111111111"),
        ("x4111111111111111", "x4111111111111111"),
        ("41111111111111110000000", "41111111111111110000000"),
        ("IBAN DE89 3704 0044 0532 0130 00 it is", "IBAN [redacted] it is"),
        ("gb82 west 1234 5698 7654 32", "[redacted]"),
        ("DE89 3704 0044 0532 0130 01", "DE89 3704 0044 0532 0130 01"),
        ("at 10 people or so", "at 10 people or so"),
        ("Ask ann.smith+x@mail.example.co.uk.", "Ask [redacted]."),
        ("@decorator.name a@b c @ d.ef", "@decorator.name a@b c @ d.ef"),
        ("my password is Tr0ub4dor&3.", "my password is [redacted]."),
        ("password: correcthorse", "password: correcthorse"),
        ("Authorization: Bearer 9f86d081884c7d659a2feaa0c55ad015", "Authorization: Bearer [redacted]"),
        ('{"api_key": "wJalrXUtnFEMIK7MDENGbPxRfiCY"}', '{"api_key": "[redacted]"}'),
        ("token = self.get_token_of_2_users_at(x)", "token = self.get_token_of_2_users_at(x)"),
        ("key: 550e8400-e29b-41d4-a716-446655440000", "key: 550e8400-e29b-41d4-a716-446655440000"),
        ("the secret 9f86d081884c7d659a2feaa0c55ad015!", "the secret [redacted]!"),
        ("postgres://app:pa55@db/x http://[::1]:80/a@b", "postgres://[redacted]db/x http://[::1]:80/a@b"),
        ("It is HR 7947/2210, 5521.", "It is [redacted]."),
        ("BLUE-KESTREL lánds at noon", "[redacted]"),
        ("kestrel lands at", "[redacted]"),
        ("blue kestrel flies at noon", "blue kestrel flies at noon"),
    ],
)
def test_what_is_found_and_what_is_not(text: str, expected: str) -> None:
    assert left(text) == expected


def test_json_escapes_hide_nothing() -> None:
    assert left('{"a": "4111\\u00201111\\n1111\\t1111"}') == '{"a": "[redacted]"}'
    assert left('{"code": "hr-\\u0037\\u0039\\u0034\\u0037 2210\\n5521"}') == '{"code": "[redacted]"}'


@pytest.mark.parametrize(
    ("known", "rest"),
    [
        ("4111 1111 1111 111", "1"),
        ("hr-7947-2210-552", "1"),
        ("AKIAIOSFODNN7EXAMP", "LE"),
        ("DE8937040044053201300", "0"),
    ],
)
def test_the_last_character_of_a_secret_is_not_had_by_giving_the_others(known: str, rest: str) -> None:
    # One token at a time: max_tokens is 1, and the prompt grows by what was answered.
    assert left(rest, before=f"Continue: {known}") == "[redacted]"
    scanner = SECRETS.scanner(f"Continue: {known}")
    assert scanner.completes(rest)
    assert not scanner.completes(" ?")


def test_a_canary_stops_when_its_run_is_complete_across_prompt_and_answer() -> None:
    said, prompt = "", "The code is hr-"
    for char in CANARY[3:]:
        said += SECRETS.scanner(prompt).feed(char, last=True).text
        prompt += char
    # Twelve letters and digits are a run: `hr` and nine digits are none yet.
    assert said == "7947-2210-5" + "[redacted]" * 3


def test_what_lies_in_the_prompt_alone_is_never_redacted() -> None:
    for secret in (CARD, CANARY, "AKIAIOSFODNN7EXAMPLE", "ann@example.com"):
        cleared = SECRETS.scanner(f"Is this right: {secret}?").feed(" Yes, it is.", last=True)
        assert (cleared.text, cleared.redacted) == (" Yes, it is.", ())


def test_a_key_block_that_the_prompt_has_begun_is_not_completed() -> None:
    body = "MIIEpAIBAAKCAQEA7bq3\n" + "Qx/7aZ0" * 9
    assert left(f"{body}\n-----END RSA PRIVATE KEY-----\nDone.", before="-----BEGIN RSA PRIVATE KEY-----\n") == (
        "[redacted]\nDone."
    )


DIGITS = dict(
    zip("0123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True)
)
DISGUISES: dict[str, Callable[[str], str]] = {
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "backwards": lambda secret: secret[::-1],
    "hexadecimal": lambda secret: secret.encode().hex(),
    "words between": " and ".join,
    "far apart": lambda secret: "".join(f"{char}{'.' * 250}" for char in secret),
    "in words": lambda secret: " ".join(DIGITS.get(char, char) for char in secret),
    "half": lambda secret: secret[: len(secret) // 2],
    "other letters": lambda secret: "".join(chr(ord("a") + int(c)) if c.isdigit() else c for c in secret),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_secret_in_another_form_passes_as_the_documentation_says(disguise: str) -> None:
    # Not a wish: this holds the sentence "does nothing against a secret that is asked for in another form" true.
    for secret in (CARD, CANARY):
        assert left(DISGUISES[disguise](secret)) == DISGUISES[disguise](secret)


def test_whoever_makes_the_model_repeat_guesses_learns_which_is_right_as_the_documentation_says() -> None:
    known = "hr-7947-2210-5"
    assert left(known) == known
    assert [digit for digit in "0123456789" if left(known + digit) != known + digit] == ["5"]


def test_ending_ends_before_the_secret_and_for_good() -> None:
    spec = Secrets(action="end")
    scanner = spec.scanner("")
    cleared = scanner.feed(f"Pay with {CARD}, please", last=False)
    assert (cleared.text, cleared.ends, cleared.redacted) == ("Pay with ", True, ((9, 36),))
    after = scanner.feed(" or not", last=True)
    assert (after.text, after.ends, after.upto, after.redacted) == ("", True, 43, ((36, 43),))
    assert scanner.completes("x")


def test_questions_about_candidates_change_nothing() -> None:
    scanner = SECRETS.scanner("")
    assert scanner.feed("Card 4111 1111 1111 111", last=False).text == "Card "
    assert [scanner.completes(token) for token in ("1", "2", " 1", "a", "")] == [True, False, True, False, False]
    assert scanner.feed("1", last=True).text == "[redacted]"


@pytest.mark.parametrize(
    "of",
    ["7", "4", "Ab3+/", "=", "\u200b", "\\u", "a.b", "4 ", "AKIA", "sk-", "eyJ.", "-----BEGIN RSA PRIVATE KEY",
     "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", "password is ", "blue kestrel land", "x@", "://a:", "日本",
     "DE89 3704 0044 "],
)  # fmt: skip
def test_no_text_is_held_for_ever_or_costs_more_than_its_length(of: str) -> None:
    text = (of * 2000)[:4000]

    def feed(size: int, step: int) -> int:
        scanner, most = SECRETS.scanner(""), 0
        for at in range(0, size, step):
            cleared = scanner.feed(text[at : at + step], last=False)
            held = min(at + step, size) - cleared.upto
            most = max(most, held)
        return most

    assert feed(len(text), 500) <= (LONGEST if "\\" not in text else 6 * LONGEST)
    size = len(text) // 2
    whole = [calls(lambda size=size: feed(size, size)), calls(lambda: feed(2 * size, 2 * size))]
    assert whole[1] <= 2.3 * whole[0] + 200
    pieces = [calls(lambda: feed(400, 2)), calls(lambda: feed(800, 2))]
    assert pieces[1] <= 2.6 * pieces[0]


def calls(work: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's, that some work takes."""
    count = 0

    def step(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        del frame, arg
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_luhn_and_ibans_agree_with_python_stdnum() -> None:
    generator = random.Random(5)
    for size in (13, 15, 16, 19):
        for _ in range(200):
            digits = "".join(generator.choices("0123456789", k=size))
            assert own_luhn(digits) == bool(luhn.is_valid(digits))
    only_ibans = Secrets(find=("ibans",))
    checked = 0
    for country, form in IBAN_FORMS.items():
        for _ in range(4):
            body = "".join(generator.choice({"n": "0123456789", "a": "ABCXYZ", "c": "AB12"}[kind]) for kind in form[2:])
            number = country + iban.calc_check_digits(f"{country}00{body}") + body
            if iban.is_valid(number, check_country=False):
                assert left(f"to {number[:9]} {number[9:]} now", only_ibans) == "to [redacted] now", number
                wrong = number[:-1] + ("7" if number[-1] != "7" else "3")
                assert left(wrong, only_ibans) == wrong
                checked += 1
    assert checked > 300


def test_random_numbers_and_hashes_are_seldom_taken() -> None:
    generator = random.Random(6)
    numbers = [str(generator.randrange(10**15, 10**16)) for _ in range(3000)]
    taken = sum(left(number) != number for number in numbers)
    assert 0.02 < taken / len(numbers) < 0.05  # Luhn alone would take a tenth
    hashes = [f"commit {generator.getrandbits(160):040x}" for _ in range(500)]
    assert [left(text) for text in hashes] == hashes


def test_prose_waits_for_little() -> None:
    text = "They say it was the best of times. It had 12 rooms, at 3 p.m., in 2024; nobody is sure. " * 5

    def held(spec: Secrets) -> float:
        scanner: Scanner = spec.scanner("")
        waits = [at + 4 - scanner.feed(text[at : at + 4], last=False).upto for at in range(0, len(text) - 4, 4)]
        return sum(waits) / len(waits)

    assert held(Secrets(find=("cards", "ibans", "keys"))) < 1
    assert held(Secrets()) < 6  # a word


def test_the_parts_of_a_policy_are_checked() -> None:
    logprobs = Outputs(kind="logprobs")
    nothing = Secrets(find=()).check(logprobs, None)
    assert [problem.message for problem in nothing] == ["secrets looks for nothing"]
    assert Secrets().check(logprobs, None) == []
    assert Secrets(find=(), patterns=(r"\d{4}",)).check(logprobs, None) == []
    assert Secrets().check(Outputs(kind="probabilities"), None)[0].path == "kind"
    with pytest.raises(ValidationError, match="last element"):
        Secrets(patterns=("a+b",))
    with pytest.raises(ValidationError, match="line 2 has fewer than 4") as error:
        Secrets(canaries=SecretStr("long enough\na-b"))
    assert "a-b" not in str(error.value)


def test_canaries_are_never_shown() -> None:
    shown = [
        repr(SECRETS),
        str(SECRETS),
        SECRETS.model_dump_json(),
        repr(SECRETS.model_dump()),
        repr(SECRETS.scanner("")),
    ]
    assert all("7947" not in text for text in shown)
