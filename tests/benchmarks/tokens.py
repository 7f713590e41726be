"""Generated text: what defences cost honest readers of log-probabilities, what can be averaged, and what Guard takes.

python -m tests.benchmarks.tokens use         # errors of numbers and of perplexity, a toy distribution
python -m tests.benchmarks.tokens averaging   # what is left of noise behind many draws
python -m tests.benchmarks.tokens cost        # CPU an event
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import cast

import numpy as np

from guard.defences.base import DROPPED_LOGPROB, Defence
from guard.defences.noise import Noise
from guard.defences.renormalise import Renormalise
from guard.defences.round import Round
from guard.defences.secrets import Secrets
from guard.defences.top_k import TopK
from guard.model.arrays import Floats, Ints
from guard.model.prediction import Answer
from guard.model.text import Most, Piece, Token
from tests.support.generated import client, token

SEEDS = range(5)
TOKENS, WORDS, TOP, SPREAD = 4000, 2000, 5, 3.0
PLENTY = Most(1, 10**6, 10**8)
RULES: dict[str, tuple[Defence, ...]] = {
    "round 2": (Round(decimals=2),),
    "round 1": (Round(decimals=1),),
    "round 0": (Round(decimals=0),),
    "noise .05": (Noise(scale=0.05),),
    "noise .1": (Noise(scale=0.1),),
    "noise .3": (Noise(scale=0.3),),
    "noise 1": (Noise(scale=1.0),),
    "noise .1 laplace": (Noise(scale=0.1, mechanism="laplace"),),
    "top_k 5": (TopK(k=5),),
    "top_k 1": (TopK(k=1),),
    "renormalise": (Renormalise(),),
    "renormalise .5": (Renormalise(mass=0.5),),
    "noise .1, round 1": (Noise(scale=0.1), Round(decimals=1)),
    "top_k 5, noise .1, renormalise, round 1": (TopK(k=5), Noise(scale=0.1), Renormalise(), Round(decimals=1)),
}


def toy(seed: int) -> tuple[Floats, Ints, Ints]:
    """Return distributions over words (softmax of normal logits), a word drawn from each, and the likeliest ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, SPREAD, (TOKENS, WORDS))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    drawn = (np.exp(logprobs).cumsum(axis=1) > rng.random((TOKENS, 1))).argmax(axis=1)
    return logprobs, drawn, np.argsort(-logprobs, axis=1)[:, :TOP]


def use() -> None:
    """Print the errors of what an honest client reads: numbers, and a perplexity."""
    answers = [toy(seed) for seed in SEEDS]
    true = [float(np.exp(-p[np.arange(TOKENS), drawn].mean())) for p, drawn, _ in answers]
    print(f"{TOKENS} tokens, {WORDS} words, top {TOP}, {len(true)} seeds; perplexity {statistics.mean(true):.1f}")
    print("| defences | mean L1 a token | error of the token's own number | of a perplexity (greatest) | dropped |")
    print("|---|---|---|---|---|")
    for name, defences in RULES.items():
        found = np.array([_used(defences, seed, answer) for seed, answer in zip(SEEDS, answers, strict=True)])
        l1, error, perplexity, dropped = found.mean(axis=0)
        worst = np.abs(found[:, 2]).max()
        print(f"| {name} | {l1:.3f} | {error:.3f} | {perplexity:+.2%} ({worst:.2%}) | {dropped:.0%} |")


def _used(defences: Sequence[Defence], seed: int, answer: tuple[Floats, Ints, Ints]) -> tuple[float, ...]:
    logprobs, drawn, top = answer
    got = client(*defences, name=f"client {seed}", most=PLENTY)
    tokens = [
        token(str(word), *((str(w), float(row[w])) for w in best if w != word), score=float(row[word]))
        for row, word, best in zip(logprobs, drawn, top, strict=True)
    ]
    got.say("".join(one.labels[0] for one in tokens), tokens, last=True)
    raws = cast("list[dict[str, float]]", got.tokens["0/content"])
    released, true = np.array([raw["chosen"] for raw in raws]), logprobs[np.arange(TOKENS), drawn]
    kept = released > DROPPED_LOGPROB
    error = np.exp(true[kept].mean() - released[kept].mean()) - 1.0
    shift = got.generation.report().score_shift_l1
    return shift, float(np.abs(released - true)[kept].mean()), float(error), float(1.0 - kept.mean())


def averaging() -> None:
    """Print what is left of noise on one token's candidates, in its scale, behind a number of draws."""
    names = [chr(ord("A") + i) for i in range(20)]

    def drawn(spec: Noise, prompt: str) -> list[float]:
        got = client(spec, prompts=(prompt,), most=PLENTY)
        got.say("a", [token("a", *((name, -5.0) for name in names))])
        raw = cast("list[dict[str, dict[str, float]]]", got.tokens["0/content"])[0]
        return [(raw["top"][name] + 5.0) / spec.scale for name in names]

    print("| draws by | 1 | 100 | 10,000 |")
    print("|---|---|---|---|")
    for way, prompts in (
        ("repeats, n, seeds, events", ["hello you"] * 10_000),
        ("white space in the prompt", [f"hello{' ' * (1 + i % 100)}you{' ' * (i // 100)}" for i in range(10_000)]),
        ("other prompts, answered alike", [f"hello {i}" for i in range(10_000)]),
    ):
        noise = np.array([drawn(Noise(scale=0.1), prompt) for prompt in prompts])
        left = [float(np.abs(noise[:n].mean(axis=0)).mean()) for n in (1, 100, 10_000)]
        print(f"| {way} | {left[0]:.2f} | {left[1]:.2f} | {left[2]:.3f} |")


def cost() -> None:
    """Print the CPU time of one event."""
    print("| event | median of 7, us | least | most |")
    print("|---|---|---|---|")
    # What a scanner looks at twice: the beginning of an answer.
    runs = [_timed((Secrets(),), None, events=200, before="Tell me a story") for _ in range(7)]
    print(f"| text, secrets, behind a prompt | {statistics.median(runs):.1f} | {min(runs):.1f} | {max(runs):.1f} |")
    for name, defences, top in (
        ("text, no defence", (), None),
        ("text, scores' defences", (Noise(scale=0.1), Round(decimals=1)), None),
        ("text, secrets", (Secrets(),), None),
        ("a token, no defence", (), 0),
        ("a token and 5 candidates, round", (Round(decimals=1),), 5),
        ("a token and 5 candidates, noise", (Noise(scale=0.1),), 5),
        ("a token and 20 candidates, noise", (Noise(scale=0.1),), 20),
        ("a token and 5 candidates, noise and round", (Noise(scale=0.1), Round(decimals=1)), 5),
        ("a token and 5 candidates, secrets", (Secrets(),), 5),
    ):
        runs = [_timed(defences, top) for _ in range(7)]
        print(f"| {name} | {statistics.median(runs):.1f} | {min(runs):.1f} | {max(runs):.1f} |")


def _timed(defences: Sequence[Defence], top: int | None, events: int = 2000, before: str = "") -> float:
    generation = client(*defences, most=PLENTY).generation
    pieces = [
        Piece("0/content", " word", _ignore, [] if top is None else [_token(i, top)], before=before)
        for i in range(events)
    ]
    answers = [Answer(1, None, pieces=[piece], choices=1) for piece in pieces]
    began = time.process_time()
    for answer in answers:
        generation.take(answer)
    return (time.process_time() - began) / events * 1e6


def _ignore(text: object, tokens: object) -> None:
    del text, tokens


def _token(number: int, top: int) -> Token:
    names = [f" {number}-{i}" for i in range(top)]
    return Token(b" word", [" word", *names], [-0.5, *(-1.0 - i for i in range(top))], _ignore, None)


if __name__ == "__main__":
    {"use": use, "averaging": averaging, "cost": cost}[sys.argv[1]]()
