"""Texts packed into requests: no input, and no request, longer than the provider allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from polyvec import tokenizer
from polyvec.chunking import MIN_CHUNK_TOKENS, chunk_text


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


def cut(texts: Iterable[str], item_tokens: int, *, as_tokens: bool) -> Iterator[Piece]:
    """Yield the pieces of texts, in their order, at least one for each.

    Args:
        texts: No text holds a lone surrogate.
        item_tokens: A text with more is cut: anywhere between tokens, or as `chunk_text` does.
        as_tokens: Send tokens, which no server counts differently, rather than strings.
    """
    for row, text in enumerate(texts):
        # providers refuse an empty input
        tokens = tokenizer.encode(text) or tokenizer.encode(" ")
        whole = Piece(row, tokens if as_tokens else text or " ", len(tokens))
        yield from cut_piece(whole, item_tokens) if len(tokens) > item_tokens else [whole]


def cut_piece(piece: Piece, item_tokens: int) -> list[Piece]:
    """Return the parts of a piece that has more tokens than an input may have; at least one."""
    content = piece.content
    if isinstance(content, list):
        parts = [content[start : start + item_tokens] for start in range(0, len(content), item_tokens)]
        return [Piece(piece.text, part, len(part)) for part in parts]
    chunks = chunk_text(content, chunk_tokens=max(MIN_CHUNK_TOKENS, item_tokens), overlap_tokens=0)
    return [Piece(piece.text, chunk.text, chunk.tokens) for chunk in chunks] or [Piece(piece.text, " ", 1)]


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
