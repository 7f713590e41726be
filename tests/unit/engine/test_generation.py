from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from guard.defences.base import Cleared, Scanner
from guard.defences.noise import Noise
from guard.defences.round import Round
from guard.defences.secrets import Secrets
from guard.errors import UpstreamError
from guard.model.text import Most, Token
from tests.support.generated import Client, Word, WordScanner, client, token


def words(text: str, *others: tuple[str, float]) -> list[Token]:
    """Make a token of each word, the space before it included."""
    parts = text.split(" ")
    return [token(part if i == 0 else f" {part}", *others) for i, part in enumerate(parts)]


def data(got: Client, key: str = "0/content") -> list[bytes]:
    return [cast("bytes", raw["bytes"]) for raw in raws(got, key)]


def raws(got: Client, key: str = "0/content") -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", got.tokens[key])


def numbers(got: Client) -> list[float]:
    return [cast("float", raw["chosen"]) for raw in raws(got)]


def refused(got: Client, **answer: int) -> str:
    with pytest.raises(UpstreamError) as caught:
        got.take(**answer)
    return caught.value.code


# Text


def test_text_passes_straight_where_nothing_looks_at_it() -> None:
    got = client()
    got.say("my SECRET", words("my SECRET"))
    got.say(" is", last=True)
    assert got.text == "my SECRET is"
    assert data(got) == [b"my", b" SECRET"]


def test_held_text_leaves_with_a_later_event_of_the_same_text() -> None:
    got = client(Word())
    got.say("SEC")
    assert got.text == ""
    got.take(got.piece("other", key="1/content"))
    got.say("OND")
    assert got.text == "SECOND"
    assert got.texts["1/content"] == "other"


def test_held_text_leaves_when_its_text_ends() -> None:
    got = client(Word())
    got.say("a SECRE")
    got.say("", last=True)
    assert got.text == "a SECRE"
    got.say("", last=True)  # and an end may be said twice


def test_a_text_that_goes_on_behind_its_end_is_refused() -> None:
    got = client(Word())
    got.say("a SECRE", last=True)
    with pytest.raises(UpstreamError) as caught:
        got.say("T")
    assert caught.value.code == "unreadable_answer"


def test_what_a_prompt_began_is_recognised() -> None:
    got = client(Word())
    got.say("RET and more", before="the SEC", last=True)
    assert "RET" not in got.text
    assert got.text.endswith(" and more")


@pytest.mark.parametrize("before", ["", "7", "Tell me a card", "4111 1111", "1234567890123456789", "x@", "AKIA"])
@pytest.mark.parametrize("said", ["4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE", "ann@example.com"])
def test_no_end_of_a_prompt_makes_a_secret_part_of_something_harmless(before: str, said: str) -> None:
    for pieces in ([said, " ok"], [*said, " ok"]):
        got = client(Secrets())
        for piece in pieces:
            got.say(piece, before=before)
        got.say("", last=True)
        assert got.text == "[redacted] ok"


def test_what_the_prompt_began_is_forgotten_when_it_is_far_and_counted_all_the_same() -> None:
    got = client(Word(), Word(word="HIDE"), Word(mode="shadow"))
    got.say("RET ", words("RET "), before="the SEC")
    for _ in range(200):
        got.say("a word ", [token("a"), token(" word ")])
    got.say("SECRET and HIDE.", words("SECRET and HIDE."), last=True)
    assert got.text == "[-] " + "a word " * 200 + "[-] and [-]."
    assert len(data(got)) == 1 + 400 + 1
    assert got.generation.report().redacted == 3


def test_text_that_waits_is_not_lost_when_the_prompt_is_forgotten() -> None:
    got = client(Word())
    got.say("a" * 1020, before="the prompt")
    got.say(" word SEC", [token(" word SEC")])
    got.say("OND", [token("OND")], last=True)
    assert got.text == "a" * 1020 + " word SECOND"
    assert data(got) == [b" word SEC", b"OND"]


class Watched(Word, frozen=True):
    """Notes the prompts behind which a text is looked at."""

    looks: list[str]

    def scanner(self, before: str) -> Scanner:
        return Watching(self.looks, before)


class Watching(WordScanner):
    def __init__(self, looks: list[str], before: str) -> None:
        super().__init__("[-]", "SECRET", before, ends=False)
        self.looks, self.before = looks, before

    def feed(self, text: str, *, last: bool) -> Cleared:
        self.looks.append(self.before)
        return super().feed(text, last=last)


def test_a_prompt_is_forgotten_when_nothing_can_go_on_from_it() -> None:
    spec = Watched(looks=[])
    got = client(spec)
    for text in ("a" * 1000, "b" * 100, "c"):
        got.say(text, before="the prompt")
    assert spec.looks[:4] == ["", "the prompt", "", "the prompt"]
    assert "the prompt" not in spec.looks[6:]


@pytest.mark.parametrize("at", range(1005, 1045, 3))
@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_prompt_is_forgotten_though_something_always_waits(at: int, size: int) -> None:
    """A beginning of the word waits at every step; where the prompt is forgotten, nothing is lost, doubled, missed."""
    said = ("SE " * 400)[:at] + "SECRET SE SECRET" + "SE " * 20
    spec = Watched(looks=[])
    got = client(spec, Word(word="HIDE"))
    for i in range(0, len(said), size):
        part = said[i : i + size]
        got.say(part, words(part), before="the prompt SE", last=i + size >= len(said))
    assert got.text == said.replace("SECRET", "[-]")
    assert spec.looks[-1] == ""
    assert b"".join(data(got)).count(b"SECRET") == 0


@pytest.mark.parametrize("at", [0, 500, 1270, 1276, 1281, 2000, 3000])
def test_of_a_long_text_the_beginning_alone_is_looked_at_behind_the_prompt(at: int) -> None:
    spec = Watched(looks=[])
    said = "a " * (at // 2) + "SECRET" + " b" * (2000 - at // 2)
    got = client(spec)
    got.say(said, before="the prompt", last=True)
    assert got.text == said.replace("SECRET", "[-]")
    assert spec.looks in (["", "the prompt", ""], ["", "the prompt", "", "the prompt"])


def test_steps_run_in_order_and_shadow_changes_nothing() -> None:
    got = client(Word(redaction="a HIDE b"), Word(word="HIDE"), Word(word="b", mode="shadow"), trace=True)
    got.say("my SECRET is", last=True)
    assert got.text == "my a [-] b is"
    steps = got.generation.report().steps
    assert [(step.kind, step.mode, step.redacted) for step in steps] == [
        ("word", "enforce", 1),
        ("word", "enforce", 1),
        ("word", "shadow", 1),
    ]
    assert (got.generation.report().redacted, got.generation.report().shadow_redacted) == (2, 1)


def test_a_scanner_ends_the_whole_answer() -> None:
    got = client(Word(ends=True))
    got.take(got.piece("fine"), got.piece("my SECRET is", key="1/content"), got.piece("three", key="2/content"))
    assert got.texts == {"0/content": "fine", "1/content": "my [-]", "2/content": ""}
    assert got.generation.ended
    assert got.filtered == 2  # every text that is cut says so
    got.say(" more", words(" more"))
    assert got.text == "fine"
    assert data(got) == []


def test_in_shadow_an_end_is_counted_and_nothing_ends() -> None:
    got = client(Word(ends=True, mode="shadow"))
    got.say("my SECRET is", last=True)
    got.say("more", key="1/content")
    assert got.text == "my SECRET is"
    assert not got.generation.ended
    assert got.generation.report().shadow_redacted == 1


class Spelling(Word, frozen=True):
    """Takes out SECRET as it comes: of a long secret, one that does not wait for its end."""

    def scanner(self, before: str) -> Scanner:
        return Speller()


class Speller:
    def __init__(self) -> None:
        self.fed = 0

    def feed(self, text: str, *, last: bool) -> Cleared:
        at, self.fed = self.fed, self.fed + len(text)
        return Cleared("", self.fed, ((at, self.fed),)) if text.isupper() else Cleared(text, self.fed)

    def completes(self, token: str) -> bool:
        return token.isupper()


def test_a_redaction_in_parts_is_counted_once() -> None:
    got = client(Spelling())
    for text in ("a", "SEC", "RE", "T", "b", "SEC", "RET"):
        got.say(text)
    assert got.text == "ab"
    assert got.generation.report().redacted == 2


# Tokens beside their text


def test_tokens_leave_with_their_text() -> None:
    got = client(Word())
    got.say("a SEC", words("a SEC"))
    assert data(got) == [b"a"]
    got.say("OND b", [token("OND"), token(" b")])
    assert data(got) == [b"a", b" SEC", b"OND", b" b"]


def test_a_token_that_a_redaction_touches_never_leaves() -> None:
    got = client(Word())
    got.say("xSECRETy z", [token("xSE"), token("CRE"), token("Ty"), token(" z")], last=True)
    assert got.text == "x[-]y z"
    assert data(got) == [b" z"]


def test_half_a_character_waits_for_the_other_half() -> None:
    smile = "\N{SLIGHTLY SMILING FACE}".encode()
    got = client(Word())
    got.say("a", [token("a"), token(smile[:2])])
    got.say("", [token(smile[2:3])])
    assert data(got) == [b"a"]
    got.say(smile.decode() + "b", [token(smile[3:] + b"b")])
    assert got.text == f"a{smile.decode()}b"
    assert data(got) == [b"a", smile[:2], smile[2:3], smile[3:] + b"b"]


def test_tokens_whose_bytes_do_not_stand_in_the_text_never_leave() -> None:
    got = client(Word())
    tokens = [token("a"), token("<eot>"), token(" b"), token("SECRET"), token("!")]
    got.say("a b", tokens, last=True)
    assert got.text == "a b"
    assert data(got) == [b"a", b" b"]


def test_without_a_scanner_tokens_pass_in_order_whatever_they_say() -> None:
    got = client(Round(decimals=1))
    got.say("a b", [token("a"), token("<eot>"), token(" c")], last=True)
    assert data(got) == [b"a", b"<eot>", b" c"]


def test_white_space_that_a_server_strips_is_no_difference() -> None:
    got = client(Word())
    got.say("Hello you", [token(" Hello"), token(" you")], last=True)
    assert data(got) == [b" Hello", b" you"]


def test_text_that_no_token_covers_goes_on() -> None:
    got = client(Word())
    got.say("one ")
    got.say("two", [token("two")])
    got.say(" three ")
    got.say("four", [token("four")], last=True)
    assert got.text == "one two three four"
    assert data(got) == [b"two", b"four"]


def test_tokens_without_any_text_do_not_pile_up() -> None:
    got = client(Word())
    for _ in range(1000):
        got.say("", [token("x")])
    got.say("x" * 256, last=True)
    assert len(data(got)) == 256


# Candidates


def test_a_candidate_that_would_complete_what_must_not_leave_is_dropped() -> None:
    got = client(Word())
    got.say("a SECOND", [token("a"), token(" SEC", (" SECRET", -2.0)), token("OND", ("RET", -1.0), ("TOR", -2.0))])
    assert [raw["top"] for raw in raws(got)] == [{}, {}, {"TOR": -2.0}]
    assert got.generation.logprobs == 4


def test_a_barred_candidate_is_dropped_before_scores_are_released() -> None:
    got = client(Word(), Noise(scale=0.1))
    got.say("SECOND", [token("SEC"), token("OND", ("RET", -1.0), ("TOR", -2.0))], last=True)
    assert set(cast("dict[str, float]", raws(got)[1]["top"])) == {"TOR"}


def test_candidates_behind_two_scanners_are_asked_at_the_tokens_beginning() -> None:
    got = client(Word(), Word(word="HIDE"))
    for text, other in (("a S", "HIDE"), ("O HI", "SECRET"), ("D", "DE"), ("EN", "E")):
        got.say(text, [token(text, (other, -1.0), ("fine", -2.0))])
    got.say("", last=True)
    assert got.text == "a SO HIDEN".replace("HIDE", "[-]")
    assert data(got) == [b"a S"]  # the others touch HIDE
    assert raws(got)[0]["top"] == {"fine": -2.0}


def test_a_scanner_behind_another_is_asked_about_a_candidate_before_any_of_its_token() -> None:
    got = client(Word(), Word(word="HIDE"))
    got.say("H", [token("H")])
    got.say("a S", [token("a S", ("IDE", -1.0), ("fine", -2.0))])  # of which the first scanner holds the end
    got.say("O", [token("O")], last=True)
    assert got.text == "Ha SO"
    assert [raw["top"] for raw in raws(got)] == [{}, {"fine": -2.0}, {}]


def test_a_token_is_found_again_behind_a_redaction_of_another_length() -> None:
    got = client(Word(redaction="[-]"), Word(word="HIDE"))
    got.say("SECRET", words("SECRET"))
    got.say(" a HIDE SECRET b", words(" a HIDE SECRET b"), last=True)
    assert got.text == "[-] a [-] [-] b"
    assert data(got) == [b"", b" a", b" b"]


def test_what_ends_a_text_frees_what_later_scanners_hold() -> None:
    got = client(Word(redaction="HI", ends=True), Word(word="HIDE"))
    got.say("my SECRET is")
    assert got.text == "my HI"


# Repeats


def test_a_closing_event_repeats_what_was_released() -> None:
    got = client(Word(), Noise(scale=0.5, reuse="none"))
    said = [("my SEC", [token("my", ("SECRET", -1.0)), token(" SEC")]), ("RET is", [token("RET"), token(" is")])]
    for text, tokens in said:
        got.say(text, tokens)
    got.say("", last=True)
    again = [token("my", ("SECRET", -1.0)), token(" SEC"), token("RET"), token(" is")]
    got.say("my SECRET is", again, whole=True)
    assert got.text == "my [-] is"
    assert got.puts[-1] == ("my [-] is", got.tokens["0/content"])
    assert got.generation.logprobs == 2
    assert got.generation.tokens == 4


def test_a_closing_event_of_other_tokens_repeats_none() -> None:
    got = client(Word())
    got.say("a b", words("a b"), last=True)
    got.say("a b", words("a SECRET"), whole=True)
    assert got.puts[-1] == ("a b", [])
    got.say("a b c", words("a b c"), whole=True)
    assert got.puts[-1] == ("a b", [])
    got.say("unheard of", words("unheard of"), key="1/content", whole=True)
    assert got.puts[-1] == ("", [])


def test_a_closing_event_may_be_the_last_word() -> None:
    got = client(Word())
    got.say("a SECRE", words("a SECRE"))
    got.say("a SECRE", words("a SECRE"), whole=True, last=True)
    assert got.puts[-1][0] == "a SECRE"
    assert len(got.puts[-1][1]) == 2


def test_without_a_scanner_a_closing_event_passes() -> None:
    got = client(Noise(scale=0.5))
    got.say("a b", words("a b"), last=True)
    got.say("a b", words("a b"), whole=True)
    assert got.puts[-1] == ("a b", got.tokens["0/content"])


# Noise


def test_the_same_prompt_draws_the_same_noise_in_a_stream_and_whole() -> None:
    whole, stream = client(Noise(scale=0.3)), client(Noise(scale=0.3))
    whole.say("a b c", words("a b c", ("x", -1.0)), last=True)
    for one in words("a b c", ("x", -1.0)):
        stream.say(one.data.decode(), [one])
    assert numbers(whole) == numbers(stream)
    assert raws(whole) == raws(stream)


def test_choices_of_one_prompt_are_no_draws_to_average() -> None:
    got = client(Noise(scale=0.3))
    got.take(*(got.piece("a b", words("a b"), key=f"{i}/content") for i in range(4)), choices=4)
    assert all(got.tokens[f"{i}/content"] == got.tokens["0/content"] for i in range(4))


def test_prompts_of_one_request_do_not_change_each_others_noise() -> None:
    alone, batch = client(Noise(scale=0.3)), client(Noise(scale=0.3), prompts=("other", "hello"))
    alone.say("a b", words("a b"))
    batch.take(batch.piece("a b", words("a b"), key="1/content", row=1), choices=2)
    assert batch.tokens["1/content"] == alone.tokens["0/content"]


def test_fewer_candidates_in_any_order_are_the_same_draw() -> None:
    one, other = client(Noise(scale=0.3)), client(Noise(scale=0.3))
    one.say("a", [token("a", ("b", -1.0), ("c", -2.0), score=-0.7)])
    other.say("b", [token("b", ("a", -0.7), ("b", -1.0), score=-1.0)])
    first, second = raws(one)[0], raws(other)[0]
    assert first["chosen"] == cast("dict[str, float]", second["top"])["a"]
    assert cast("dict[str, float]", first["top"])["b"] == second["chosen"]
    assert cast("dict[str, float]", second["top"])["b"] == second["chosen"]


@pytest.mark.parametrize("different", ["prompt", "client", "before", "reasoning"])
def test_another_client_prompt_or_beginning_draws_other_noise(different: str) -> None:
    one, other = (
        client(Noise(scale=0.3)),
        client(
            Noise(scale=0.3),
            prompts=("hi",) if different == "prompt" else ("hello",),
            name="ben" if different == "client" else "ann",
        ),
    )
    if different == "reasoning":
        other.say("let me think", key="0/reasoning")
    one.say("a b", words("a b"))
    other.say("a b", words("A b" if different == "before" else "a b"))
    assert numbers(one)[1] != numbers(other)[1]


def test_other_prompts_with_the_same_distribution_can_be_averaged_and_repeats_cannot() -> None:
    # What the docstring of `noise` says of queries holds for prompts: 400 repeats leave the error of one, 400 prompts
    # that the model answers alike leave a twentieth.
    def asked(prompt: str) -> list[float]:
        got = client(Noise(scale=0.3, keep_argmax=False), prompts=(prompt,))
        got.say("a b", words("a b", ("x", -3.0), ("y", -3.0), ("z", -3.0)))
        return [number for raw in raws(got) for number in cast("dict[str, float]", raw["top"]).values()]

    repeats = np.array([asked("hello") for _ in range(400)])
    others = np.array([asked(f"hello{' ' * i}") for i in range(400)])
    assert repeats.std(axis=0).max() == 0
    assert np.abs(repeats.mean(axis=0) + 3.0).mean() > 0.1
    assert np.abs(others.mean(axis=0) + 3.0).mean() < 0.3 * 3 / 20


def test_candidates_without_a_number_are_left_alone() -> None:
    got = client(Noise(scale=0.3))
    got.say("a b", [token("a", ("x", -1.0), score=float("nan")), token(" b", score=float("nan"))])
    assert np.isnan(numbers(got)).all()
    assert got.generation.logprobs == 1


def test_numbers_stay_at_most_0() -> None:
    got = client(Noise(scale=1.0))
    for _ in range(50):
        got.say("a", [token("a", ("x", -0.1), score=0.4)])
    assert max(numbers(got)) <= 0
    assert max(number for raw in raws(got) for number in cast("dict[str, float]", raw["top"]).values()) <= 0


# Counts and bounds


def test_tokens_are_counted_by_the_greatest_of_what_is_said() -> None:
    got = client(most=Most(2, 100, 1000))
    got.take(got.piece("two tok"), choices=1)
    got.take(got.piece("ens", key="0/content"), got.piece("too", key="0/reasoning"))
    assert got.generation.tokens == 2  # one an event, whatever it was parsed into
    got.say(" a b", words(" a b"))
    assert got.generation.tokens == 5
    got.take(usage=4)
    assert got.generation.tokens == 5
    got.take(usage=9)
    assert got.generation.tokens == 9
    assert got.generation.settled() == Most(1, 9, 3)


def test_where_upstream_says_nothing_a_token_holds_at_least_a_byte() -> None:
    got = client(most=Most(2, 100, 1000))
    got.say("\N{EURO SIGN}uro", words("a b"))
    got.say("\N{EURO SIGN}uro")
    assert got.generation.settled().tokens == 2 + 6 + 1
    small = client(most=Most(1, 3, 0))
    small.say("many bytes")
    assert small.generation.settled() == Most(1, 3, 0)


def test_more_than_was_charged_is_withheld() -> None:
    assert refused(client(most=Most(2, 10, 0)), choices=3) == "too_many_predictions"
    assert refused(client(most=Most(1, 10, 0)), usage=12) == "too_many_predictions"
    client(most=Most(1, 10, 0)).take(usage=11)  # an end of text may stand beside what was asked for
    client(most=Most(1, 0, 0)).take(usage=1000)  # no bound was known


def test_more_log_probabilities_than_were_charged_are_withheld() -> None:
    got = client(most=Most(1, 10, 20))
    got.say("a", [token("a", ("x", -1.0)) for _ in range(10)])
    got.say("", [token("", ("x", -1.0))])
    with pytest.raises(UpstreamError):
        got.say("", [token("", score=-1.0)])
    unasked = client(most=Most(1, 10, 0))
    with pytest.raises(UpstreamError):
        unasked.say("a", [token("a")])


def test_more_texts_than_any_answer_holds_are_withheld() -> None:
    got = client(Word(), most=Most(1, 0, 0))
    with pytest.raises(UpstreamError):
        got.take(*(got.piece("a", key=f"0/{i}") for i in range(129)))


def test_the_report_adds_up_over_events() -> None:
    whole, stream = (client(Noise(scale=0.3), Round(decimals=1, mode="shadow"), trace=True) for _ in range(2))
    whole.say("a b c", words("a b c", ("x", -1.0)), last=True)
    for one in words("a b c", ("x", -1.0)):
        stream.say(one.data.decode(), [one])
    one, other = whole.generation.report(), stream.generation.report()
    assert one.score_shift_l1 == pytest.approx(other.score_shift_l1)
    assert one.score_shift_l1 > 0
    assert one.shadow_shift_l1 == pytest.approx(other.shadow_shift_l1)
    assert [step.kind for step in other.steps] == ["noise", "round"]
    assert other.steps[0].score_shift_l1 == pytest.approx(one.score_shift_l1)
    assert client(Noise(scale=0.3), trace=True).generation.report().steps[0].score_shift_l1 == 0
