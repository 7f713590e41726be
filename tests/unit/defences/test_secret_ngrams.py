"""Documents as hashed n-grams: what is written, what is found, what a damaged file leads to."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from guard.defences.secret_ngrams import LEAST, MAGIC, NgramsError, decode, encode
from guard.defences.secret_normal import normal_text
from guard.defences.secrets import Secrets

SALT = bytes(range(16))
DOCUMENT = (
    "Employees who leave before the end of March receive no bonus, except where the board has agreed otherwise in "
    "writing; see Größe 7 of the annex. "
)
N = 20
WORDS = [
    "ember",
    "quartz",
    "lintel",
    "fjord",
    "saddle",
    "vapour",
    "citrus",
    "anvil",
    "meadow",
    "thimble",
    "gravel",
    "oboe",
]


def spec(n: int = N, text: str = DOCUMENT) -> Secrets:
    documents = {"hr": decode(encode([normal_text(text)], n, SALT))}
    return Secrets(find=(), document_files=("hr",)).having_read(documents)


def test_a_run_of_n_is_redacted_from_the_character_that_completes_it() -> None:
    text = "He said: EMPLOYEES, who leave: before THE end of March?! And so on"
    cleared = spec().scanner("").feed(text, last=True)
    first = "EMPLOYEES, who leave: "  # with the next letter they are 19
    assert len(normal_text(first + "b")) == N - 2
    assert cleared.text == f"He said: {first}be[redacted]?! And so on"


def test_less_than_a_run_and_other_words_are_left_alone() -> None:
    for text in ("who leave before the", "Employees who left before the end of May receive a bonus", ""):
        assert spec().scanner("").feed(text, last=True).redacted == ()


def test_every_run_of_a_document_is_found_and_no_other() -> None:
    generator = random.Random(3)
    text = " ".join(generator.choices(WORDS, k=400))
    documents = decode(encode([normal_text(text)], LEAST, SALT))
    normal = normal_text(text)
    runs = {normal[i : i + LEAST] for i in range(len(normal) - LEAST + 1)}
    assert len(documents.hashes) == len(runs)
    for sought in (normal, normal[7:], normal[::-1], "x" * LEAST, "größe" * 9, normal[:LEAST]):
        rolled = documents.rolled(sought)
        found = {int(i) for i in documents.candidates(rolled)}
        assert found == {i for i, value in enumerate(rolled.tolist()) if documents.may_hold(value)}
        for i in range(len(sought) - LEAST + 1):
            inside = sought[i : i + LEAST] in runs
            assert documents.holds(sought[i : i + LEAST]) == inside
            assert not inside or i in found
        for i in range(1, len(rolled)):
            assert documents.roll(int(rolled[i - 1]), sought[i - 1], sought[i - 1 + LEAST]) == int(rolled[i])


@pytest.mark.parametrize("n", [16, 17, 31, 32, 63, 100])
def test_any_length_of_run_and_any_split_find_the_same(n: int) -> None:
    generator = random.Random(n)
    document = " ".join(generator.choices(WORDS, k=120))
    defence = spec(n, document)
    text = f"{document[40:110]} oh {document[200:500].upper()} and {document[-90:]}. {' ' * 40}{document[:30]}"
    whole = defence.scanner("").feed(text, last=True)
    assert whole.redacted
    for _ in range(6):
        scanner, out, at = defence.scanner(""), "", 0
        while at < len(text):
            step = generator.choice((1, 2, 5, 90))
            cleared = scanner.feed(text[at : at + step], last=at + step >= len(text))
            out += cleared.text
            at += step
            # No more waits than what may stand between two redacted characters.
            assert min(at, len(text)) - cleared.upto <= 17
        assert out == whole.text


def test_a_run_that_the_prompt_has_begun_is_not_completed() -> None:
    scanner = spec().scanner("Go on: employees who leave befor")
    assert scanner.completes("e the end")
    assert scanner.feed("e the end of March, surely", last=True).text == "[redacted], surely"


def test_it_holds_no_text_and_depends_on_the_salt() -> None:
    one, other = encode(["a" * 40, "b1" * 40], 16, SALT), encode(["a" * 40, "b1" * 40], 16, SALT[::-1])
    assert b"aaaa" not in one
    assert one != other
    assert encode(["b1" * 40, "a" * 40], 16, SALT) == one
    assert set(decode(one).hashes.tolist()).isdisjoint(decode(other).hashes.tolist())


def test_who_knows_n_characters_can_walk_on_as_the_documentation_says() -> None:
    normal = normal_text(DOCUMENT)
    documents = decode(encode([normal], N, SALT))
    known = normal[:N]
    while nexts := [c for c in "abcdefghijklmnopqrstuvwxyz0123456789" if documents.holds(known[1 - N :] + c)]:
        known += nexts[0]
    assert known == normal


def test_the_same_file_is_kept_once() -> None:
    data = encode(["a1" * 40], 16, SALT)
    first = decode(data)
    assert decode(bytes(data)) is first


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[:0], "no file of n-grams"),
    (lambda data: b"PK" + data, "no file of n-grams"),
    (lambda data: data[: len(MAGIC)], "head cannot be read"),
    (lambda data: data[: len(MAGIC)] + b"[]\n", "head cannot be read"),
    (lambda data: data[: len(MAGIC)] + b'{"n": 16}\n', "head cannot be read"),
    (lambda data: data.replace(b'"n": 16', b'"n": 15'), "numbers that cannot be"),
    (lambda data: data.replace(b'"bits": 10', b'"bits": 60'), "numbers that cannot be"),
    (lambda data: data.replace(b'"bits": 10', b'"bits": 31'), "damaged"),
    (lambda data: data[:-1], "damaged"),
    (lambda data: data + b"x", "damaged"),
    (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "damaged"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes], said: str) -> None:
    with pytest.raises(NgramsError, match=said):
        decode(damage(encode(["a1" * 20], 16, SALT)))


def test_documents_without_a_run_are_refused() -> None:
    with pytest.raises(NgramsError, match="no document has 32"):
        encode(["short"], 32, SALT)
