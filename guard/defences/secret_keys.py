"""Keys and tokens by their shape, and the finder that follows shapes.

The shapes are those that the services publish for secret scanners; those of detect-secrets 1.5 are held against them in
the tests. That library itself reads whole lines: a line of an answer costs it 0.8 ms, 60 ms for 4 kB, and it cannot say
what may become a secret.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

from guard.defences.secret_shapes import Shape, shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.defences.secret_window import Window

_URL = r"://[^\s/@:?#]{0,64}:[^\s/@{<\[]{1,100}@"
_B64 = "[A-Za-z0-9_-]"
_KEYS: tuple[tuple[str, str], ...] = (
    ("AWS access key", "A[KS]IA[0-9A-Z]{16,}"),
    ("AWS access key", "A[BC][IC]A[0-9A-Z]{16,}"),
    ("GitHub token", "gh[opusr]_[A-Za-z0-9_]{36,}"),
    ("GitHub token", "github_pat_[A-Za-z0-9_]{22,}"),
    *(
        ("GitLab token", rf"{prefix}-{_B64}{{20,}}")
        for prefix in ("glpat", "gldt", "glft", "glsoat", "glrt", "glcbt", "glimt", "glptt", "glagent", "gloas")
    ),
    ("GitLab token", f"GR1348941{_B64}{{20,}}"),
    ("Slack token", "xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("Slack token", "xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    ("Slack webhook", r"hooks\.slack\.com/services/[A-Za-z0-9_/]{20,}"),
    ("Stripe key", "[rs]k_live_[0-9A-Za-z]{16,}"),
    ("Stripe key", "[rs]k_test_[0-9A-Za-z]{16,}"),
    ("Stripe key", "whsec_[A-Za-z0-9+/=]{24,}"),
    ("Google key", f"AIza{_B64}{{30,}}"),
    ("Google token", rf"ya29\.{_B64}{{20,}}"),
    ("Google secret", f"GOCSPX-{_B64}{{20,}}"),
    ("OpenAI key", r"\bsk-[A-Za-z0-9]{20,}"),
    ("OpenAI key", r"\bsk-[A-Za-z0-9_]{2,24}-[A-Za-z0-9]{20,}"),
    ("OpenAI key", rf"\bsk-proj-{_B64}{{20,}}"),
    ("OpenAI key", rf"\bsk-svcacct-{_B64}{{20,}}"),
    ("OpenAI key", rf"\bsk-admin-{_B64}{{20,}}"),
    ("OpenAI key", "T3BlbkFJ[A-Za-z0-9]{20,}"),  # stands in the middle
    ("Anthropic key", rf"\bsk-ant-{_B64}{{20,}}"),
    ("Groq key", "gsk_[A-Za-z0-9]{40,}"),
    ("xAI key", "xai-[A-Za-z0-9]{40,}"),
    ("Hugging Face token", "hf_[A-Za-z0-9]{30,}"),
    ("Hugging Face token", "api_org_[A-Za-z0-9]{30,}"),
    ("Replicate token", "r8_[A-Za-z0-9]{37,}"),
    ("npm token", "npm_[A-Za-z0-9]{36,}"),
    ("PyPI token", f"pypi-{_B64}{{50,}}"),
    ("RubyGems key", "rubygems_[a-f0-9]{48,}"),
    ("Docker token", f"dckr_pat_{_B64}{{20,}}"),
    ("SendGrid key", rf"SG\.{_B64}{{16,64}}\.{_B64}{{16,}}"),
    ("Twilio key", r"\b[AS][CK][a-z0-9]{32,}"),
    ("Square secret", rf"sq0[ac][ts]p-{_B64}{{22,}}"),
    ("Telegram token", rf"\b[0-9]{{8,10}}:{_B64}{{35,}}"),
    ("Discord token", rf"\b[MNO]{_B64}{{23,25}}\.{_B64}{{6}}\.{_B64}{{27,}}"),
    ("Azure storage key", "AccountKey=[A-Za-z0-9+/=]{44,}"),
    ("DigitalOcean token", "do[opr]_v1_[a-f0-9]{64,}"),
    ("Shopify token", "shp[acps][ats]_[a-fA-F0-9]{32,}"),
    ("Databricks token", "dapi[a-f0-9]{32,}"),
    ("Vault token", rf"hv[bs]\.{_B64}{{24,}}"),
    ("Grafana token", "glsa_[A-Za-z0-9_]{32,}"),
    ("Grafana token", "glc_[A-Za-z0-9+/=]{32,}"),
    ("Atlassian token", "ATATT3[A-Za-z0-9_=-]{50,}"),
    ("age key", "AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    *(
        ("JSON web token", rf"{head}[A-Za-z0-9_.=-]{{16,}}")
        for head in ("eyJhbGci", "eyJ0eXAi", "eyJraWQi", "eyJlbmMi")
    ),
    ("JSON web token", r"eyJ[A-Za-z0-9_-]{8,120}\.eyJ[A-Za-z0-9_.=-]{8,}"),
    ("password in a URL", _URL),
    ("private key", "MII[A-Za-z0-9+/]{3}IBA[AD][A-Za-z0-9+/=\r\n]{16,}"),  # the body alone: RSA
    ("private key", "MHcCAQEE[A-Za-z0-9+/=\r\n]{16,}"),  # elliptic curves
    ("private key", "MIGHAgEA[A-Za-z0-9+/=\r\n]{16,}"),
    ("private key", "MC4CAQAw[A-Za-z0-9+/=\r\n]{16,}"),  # Ed25519
    ("private key", "b3BlbnNzaC1rZXkt[A-Za-z0-9+/=\r\n]{16,}"),  # OpenSSH
)
_BLOCK = r"[A-Za-z0-9+/=\s:,-]"
_BLOCKS = tuple(
    ("private key", f"{dashes}BEGIN {of}PRIVATE KEY{_BLOCK}{{0,}}")
    for dashes in ("-----", "---- ")
    for of in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP ", "ANY ", "SSH2 ", "SSH2 ENCRYPTED ")
)
_BODY = re.compile(r"(?:[A-Za-z0-9+/=\s:,]|-(?!----END|--- END))*+")
_BLOCK_ENDS = re.compile(r"-----END[A-Z0-9 ]{0,40}-----|---- END[A-Z0-9 ]{0,40}----")
_LONGEST_END = 64


@cache
def key_shapes() -> tuple[Shape, ...]:
    """Return the built-in shapes."""
    return tuple(shape(name, pattern, 3 if pattern == _URL else 2) for name, pattern in (*_KEYS, *_BLOCKS))


class ShapeSet:
    """Shapes by what they begin with; shared by all texts."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        self._shapes = tuple(shapes)
        self._by_first = {chr(code): [s for s in self._shapes if s.first.match(chr(code))] for code in range(128)}
        # `re` skips fast to one of several characters where each branch begins with one, and nothing stands before it.
        ways = [re.escape(char) + _opening(of) for char, of in self._by_first.items() if of]
        beyond = [one for one in self._shapes if one.beyond]
        ways += [f"[^\0-\x7f]{_opening(beyond)}"] if beyond else []
        self._openings = re.compile("|".join(ways) or "(?!)", re.DOTALL)
        self.least = min((one.least for one in self._shapes), default=0)
        self.tails = {one.tail: re.compile(f"{one.tail}*+") for one in self._shapes if one.tail}

    def tries(self, text: str, at: int) -> Iterator[tuple[int, Shape, bool]]:
        """Yield where shapes may begin, from a place on, in order, and whether a letter or digit stands before."""
        while (opening := self._openings.search(text, at)) is not None:
            start = opening.start()
            at = start + 1
            inside = start > 0 and text[start - 1].isascii() and text[start - 1].isalnum()
            for one in self._by_first.get(text[start], self._shapes):
                if not (one.word and inside):
                    yield start, one, inside


def _opening(shapes: Iterable[Shape]) -> str:
    """Return what follows the first character of any of some shapes; a word's begins where no other character is."""
    ways = [f"(?<![A-Za-z0-9].){one.opening}" if one.word else one.opening for one in shapes]
    return f"(?:{'|'.join(dict.fromkeys(ways))})"


class _Run(NamedTuple):
    """What goes on belonging to a match: since when, up to where, and whether the text ends in it."""

    since: int
    stop: int
    goes_on: bool


_NO_RUN = _Run(-1, -1, False)


class Shapes:
    """Follows shapes through one text: a finder."""

    __slots__ = ("_at", "_set", "_tails")

    def __init__(self, shapes: ShapeSet) -> None:
        self._set = shapes
        self._at = 0  # where the first try begins that is not decided
        self._tails: dict[str, int] = {}  # what goes on belonging to a match, and from where

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)(self._set)
        made._at, made._tails = self._at, self._tails.copy()
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        return bool(self._tails) or self._at < window.end or len(token) >= self._set.least

    def look(self, window: Window, *, last: bool) -> int:
        """Mark matches; let wait what may become one."""
        del last  # what is not certain by the end is none
        text, base = window.text, window.base
        at = self._at - base
        runs = {
            tail: self._run(tail, window, since - base, max(since - base, at)) for tail, since in self._tails.items()
        }
        waits = resume = len(text)
        for start, one, glued in self._set.tries(text, at):
            begins = start + glued * one.known
            if (found := one.whole.match(text, start)) is not None:
                window.marks.append((base + begins, base + found.end()))
                if one.tail and runs.get(one.tail, _NO_RUN).stop < found.end():
                    runs[one.tail] = self._run(one.tail, window, found.end(), found.end())
            elif waits > begins and one.begun.match(text, start) is not None:
                waits, resume = begins, min(resume, start)
            elif resume > start and one.begun.match(text, start) is not None:
                resume = start
        # What has run up to the end goes on; what began before `resume` is not found again.
        self._tails = {tail: base + run.since for tail, run in runs.items() if run.goes_on}
        self._at = base + resume
        return base + waits

    def _run(self, tail: str, window: Window, since: int, start: int) -> _Run:
        """Mark what goes on belonging to a match that was certain at `since`, from `start` on."""
        text, base = window.text, window.base
        if tail == _BLOCK:
            stop, over = _block(text, since, start)
        else:
            run = self._set.tails[tail].match(text, start)
            stop, over = start if run is None else run.end(), False
        if stop > start:
            window.marks.append((base + start, base + stop))
        return _Run(since, stop, stop == len(text) and not over)


def _block(text: str, since: int, start: int) -> tuple[int, bool]:
    """Return where a block of a key ends that is certain since a place, from `start` on; and whether it has ended."""
    ends = _BLOCK_ENDS.search(text, max(since, start - _LONGEST_END, 0), start + _LONGEST_END)
    if ends is not None and ends.start() < start:
        return ends.end(), True
    while (body := _BODY.match(text, start)) is not None:
        start = body.end()
        if (ends := _BLOCK_ENDS.match(text, start)) is not None:
            return ends.end(), True
        if not text.startswith("-", start):
            break
        start += 1
    return start, False
