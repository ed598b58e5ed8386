"""Texts packed into requests: no input, and no request, longer than the provider allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from polyvec import tokenizer
from polyvec.chunking import chunk_text


class Piece(NamedTuple):
    """One input of a request: a text, or a part of one that is too long for an input.

    Attributes:
        text: Which text it belongs to.
        content: Its tokens, or itself.
        tokens: How many.
    """

    text: int
    content: list[int] | str
    tokens: int


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold.

    Attributes:
        items: Inputs.
        item_tokens: Tokens of an input.
        tokens: Tokens of all its inputs.
    """

    items: int
    item_tokens: int
    tokens: int


def cut(texts: Sequence[str], limits: RequestLimits, *, as_tokens: bool) -> list[Piece]:
    """Return the pieces of texts, in their order, at least one for each.

    Args:
        texts: No text holds a lone surrogate.
        limits: A longer text is cut: anywhere between tokens, or as `chunk_text` does.
        as_tokens: Send tokens, which no server counts differently, rather than strings.
    """
    pieces: list[Piece] = []
    for row, text in enumerate(texts):
        # providers refuse an empty input
        tokens = tokenizer.encode(text) or tokenizer.encode(" ")
        if as_tokens:
            for start in range(0, len(tokens), limits.item_tokens):
                part = tokens[start : start + limits.item_tokens]
                pieces.append(Piece(row, part, len(part)))
        elif len(tokens) <= limits.item_tokens:
            pieces.append(Piece(row, text or " ", len(tokens)))
        else:
            chunks = chunk_text(text, chunk_tokens=limits.item_tokens, overlap_tokens=0)
            pieces += [Piece(row, chunk.text, chunk.tokens) for chunk in chunks] or [Piece(row, " ", 1)]
    return pieces


def pack(pieces: Iterable[Piece], limits: RequestLimits) -> Iterator[list[Piece]]:
    """Yield the pieces of each request, as many as fit, in their order."""
    request: list[Piece] = []
    tokens = 0
    for piece in pieces:
        if request and (len(request) == limits.items or tokens + piece.tokens > limits.tokens):
            yield request
            request, tokens = [], 0
        request.append(piece)
        tokens += piece.tokens
    if request:
        yield request
