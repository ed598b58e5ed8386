"""Chunks: passages of a text with at most so many tokens, cut where a reader would cut.

A chunk ends at the end of a paragraph if there is one in its second half, else at the end of a sentence. Only
a sentence that is longer than a chunk is cut at a line, a clause or a word, and only a word that is longer
between two characters. A character as a reader sees it (a family emoji, a Hangul syllable of several letters)
is never cut, unless it alone is longer than a chunk. The next chunk repeats the last sentences of the one
before, as many as fit in the overlap; within a cut sentence it repeats words.
"""
# ruff: noqa: RUF001  # sentences and clauses end in many scripts

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Final, NamedTuple

from polyvec import tokenizer
from polyvec.errors import InvalidInputError, shown

CHUNK_TOKENS: Final = 200
MIN_CHUNK_TOKENS: Final = 8
_CHARACTER_TOKENS: Final = 4
"""Most tokens of one code point: UTF-8 gives it up to four bytes, and a token has at least one."""

# In all of these the first character comes first, so that the search is fast; `++` and the tests for "not
# within a run" keep it linear in whatever text.
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*+\n")
_LIST_ITEM: Final = re.compile(r"\n(?=[^\S\n]*+(?:[-*+•>|#]|\d{1,3}[.)])[^\S\n\d])")
_SENTENCE: Final = re.compile(
    r"[.!?…](?<![.!?…][.!?…])"
    # an initial or an abbreviation ends no sentence
    r"(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|vs|No|cf)\.)(?<!\b(?:Mrs|Fig|e\.g|i\.e)\.)(?<!\bProf\.)"
    r"""[.!?…]*+["'”’»)\]]*+(?=\s++[^\sa-z])"""
)
_WIDE_SENTENCE: Final = re.compile(r"[。！？｡．؟۔।](?<![。！？｡．؟۔।]{2})[。！？｡．؟۔।]*+[\"'”’」』）】》]*+")
_SPACES: Final = re.compile(r"\s*+")
_CLAUSE_ENDS: Final = frozenset(",;:，、；：،")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a text.

    Attributes:
        text: The passage, without white space around it; never empty.
        start: Where it starts in the text it was taken from, in characters.
        end: Where it ends; `text[start:end]` of that text is the chunk's.
        tokens: Its tokens (cl100k_base).
    """

    text: str
    start: int
    end: int
    tokens: int


def chunk_text(
    text: str, *, chunk_tokens: int = CHUNK_TOKENS, overlap_tokens: int | None = None
) -> list[Chunk]:
    """Return the chunks of a text in their order, in time linear in its length.

    Together they cover everything but white space. A text that fits is one chunk, white space is none.

    Args:
        text: Of any length.
        chunk_tokens: Most tokens of a chunk, at least 8.
        overlap_tokens: Most tokens, as the text has them, that a chunk repeats of the one before, 0 to half
            of `chunk_tokens`; None is a tenth of it.

    Raises:
        InvalidInputError: A wrong argument.
    """
    return _Splitter(text, chunk_tokens, check_sizes(chunk_tokens, overlap_tokens)).chunks()


def check_sizes(chunk_tokens: int, overlap_tokens: int | None) -> int:
    """Check the arguments of `chunk_text` and return the overlap, or raise InvalidInputError."""
    if type(chunk_tokens) is not int or chunk_tokens < MIN_CHUNK_TOKENS:
        raise InvalidInputError(
            f"chunk_tokens must be an int of at least {MIN_CHUNK_TOKENS}, not {shown(chunk_tokens)}"
        )
    if overlap_tokens is None:
        return chunk_tokens // 10
    if type(overlap_tokens) is not int or not 0 <= overlap_tokens <= chunk_tokens // 2:
        raise InvalidInputError(
            f"overlap_tokens must be an int from 0 to {chunk_tokens // 2}, half of chunk_tokens, "
            f"not {shown(overlap_tokens)}"
        )
    return overlap_tokens


class _Cut(NamedTuple):
    """Where a chunk may end: a position, and whether it is the end of a sentence."""

    position: int
    clean: bool


class _Splitter:
    """One text, with all that is known about the places where it can be cut."""

    def __init__(self, text: str, chunk_tokens: int, overlap_tokens: int) -> None:
        self.limit = chunk_tokens
        self.overlap = overlap_tokens
        self.text = text.strip()
        self.offset = len(text) - len(text.lstrip())
        self.end = len(self.text)

    def chunks(self) -> list[Chunk]:
        if not self.text:
            return []
        self.token_ends = tokenizer.char_ends(self.text)
        if len(self.token_ends) <= self.limit:
            return [self._chunk(0, self.text, len(self.token_ends))]
        self.paragraphs = [found.start() for found in _PARAGRAPH.finditer(self.text)]
        stops = self.paragraphs + [found.start() for found in _LIST_ITEM.finditer(self.text)]
        stops += [found.end() for found in _SENTENCE.finditer(self.text)]
        if not self.text.isascii():
            stops += [found.end() for found in _WIDE_SENTENCE.finditer(self.text)]
        self.stops = sorted(stops)
        chunks: list[Chunk] = []
        start, fresh, clean = 0, 0, True  # `fresh` is where the text begins that no chunk has yet
        while fresh < self.end:
            found = self._fit(start, fresh, clean)
            if found is None:  # what is repeated leaves no room for the next sentence
                start = fresh
                continue
            cut, chunk = found
            chunks.append(chunk)
            fresh, clean = self._skip_spaces(cut.position), cut.clean
            start = self._overlap_start(start, cut, fresh)
        return chunks

    def _chunk(self, start: int, text: str, tokens: int) -> Chunk:
        start += self.offset
        return Chunk(text, start, start + len(text), tokens)

    def _fit(self, start: int, fresh: int, clean: bool) -> tuple[_Cut, Chunk] | None:  # noqa: FBT001
        """Return the longest chunk from `start` on that has something beyond `fresh`; None if there is none.

        A passage on its own may have a few tokens more than it has within the text, so it is counted.
        """
        budget = self.limit
        while True:
            cut = self._cut(start, fresh, budget, clean)
            if cut is None:
                return None
            text = self.text[start : cut.position].rstrip()
            tokens = tokenizer.count(text)
            if tokens <= self.limit:
                return cut, self._chunk(start, text, tokens)
            budget -= tokens - self.limit

    def _cut(self, start: int, fresh: int, budget: int, clean: bool) -> _Cut | None:  # noqa: FBT001
        """Return where a chunk with `budget` tokens ends best, beyond `fresh`; None if nowhere.

        `clean` says that `fresh` is the start of a sentence.
        """
        if budget > 0:
            first = int(self.token_ends.searchsorted(start, "right"))
            most = self._token_end(first + budget)
            middle = max(fresh, self._token_end(first + budget // 2))
        else:
            most = start + self.limit // _CHARACTER_TOKENS
            middle = fresh
        if most >= self.end:
            return _Cut(self.end, clean=True)
        if (paragraph := _last(self.paragraphs, most)) > middle:
            return _Cut(paragraph, clean=True)
        if (stop := _last(self.stops, most)) > fresh:
            return _Cut(stop, clean=True)
        if start < fresh and (clean or most <= fresh):
            return None
        if (line := self.text.rfind("\n", middle + 1, most + 1)) > 0:
            return _Cut(line, clean=False)
        for position in range(most, middle, -1):
            if self.text[position].isspace() or self.text[position - 1] in _CLAUSE_ENDS:
                return _Cut(position, clean=False)
        character = _last(self._characters(start, most), most)
        if character > fresh:
            return _Cut(character, clean=False)
        return None if start < fresh else _Cut(most, clean=False)

    def _overlap_start(self, start: int, cut: _Cut, fresh: int) -> int:
        """Return where the chunk after one from `start` to `cut` starts: at `fresh`, or a little earlier."""
        stop = cut.position
        tokens = int(self.token_ends.searchsorted(stop, "right"))
        if not self.overlap or tokens <= self.overlap:
            return fresh
        least = max(start + 1, self._token_end(tokens - self.overlap))
        if cut.clean:
            found = bisect_left(self.stops, least)
            earliest = self.stops[found] if found < len(self.stops) else stop
        else:
            spaces = (at for at in range(least, stop) if self.text[at].isspace())
            characters = (at for at in self._characters(start, stop) if at >= least)
            earliest = next(spaces, None) or next(characters, stop)
        return min(fresh, self._skip_spaces(earliest))

    def _characters(self, start: int, most: int) -> list[int]:
        """Return where the characters that a reader sees end, ascending, and rightly so up to `most`."""
        # which tiktoken needs, too; \X is an extended grapheme cluster of Unicode
        import regex  # type: ignore[import-untyped]

        # the code point after `most` decides whether a character ends there
        return [found.end() for found in regex.finditer(r"\X", self.text, pos=start, endpos=most + 1)]

    def _token_end(self, tokens: int) -> int:
        """Return how many characters the first so many tokens complete."""
        return int(self.token_ends[min(tokens, len(self.token_ends)) - 1])

    def _skip_spaces(self, position: int) -> int:
        found = _SPACES.match(self.text, position)
        assert found is not None  # noqa: S101  # the pattern matches everywhere
        return found.end()


def _last(positions: list[int], most: int) -> int:
    """Return the last of ascending positions that is at most `most`; -1 if there is none."""
    found = bisect_right(positions, most)
    return positions[found - 1] if found else -1
