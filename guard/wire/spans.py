"""Which of the tokens that an answer lists make up which of its texts."""

from __future__ import annotations

from guard.model.text import Token


def spanning(text: str, tokens: list[Token], *, first: bool = False) -> list[Token]:
    r"""Return the tokens that make up `text`, those at its ends cut to it; none when they do not make it up.

    A server takes marks (`<think>`, white space) out of a text, and lists their tokens all the same.

    Args:
        text: what is answered.
        tokens: in order.
        first: take the first place where the text stands among the tokens; otherwise the last.

    >>> def token(data: bytes) -> Token:
    ...     return Token(data, [data.decode()], [-1.0], lambda scores, kept: None, None)
    >>> [t.data for t in spanning("Hi you", [token(b"<a>"), token(b"\nHi"), token(b" you"), token(b"")])]
    [b'Hi', b' you', b'']
    >>> spanning("Hi me", [token(b"Hi"), token(b" you")])
    []
    """
    wanted, joined = text.encode(), b"".join([token.data for token in tokens])
    if joined == wanted:
        return tokens
    begin = joined.find(wanted) if first else joined.rfind(wanted)
    if not wanted or begin < 0:
        return []
    end, at, result = begin + len(wanted), 0, list[Token]()
    for token in tokens:
        here, at = at, at + len(token.data)
        if here < end and at > begin:
            token.data = token.data[max(begin - here, 0) : max(end - here, 0)]
            result.append(token)
        elif here == at and begin <= at <= end:
            result.append(token)
    return result
