"""From a document to the records it should have: pure, and the same every time.

A chunk of a document becomes one record:

    id        `source#number`; a source too long for an id is shortened, with its hash
    text      the chunk
    metadata  the document's, and `_source`, `_chunk` (its number, from 0), `_start` and `_end` (where it
              stands in the document, in characters) and `_hash` (of its text); in the first also
              `_chunks`, how many records the document may have (see `polyvec.ingest`)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from polyvec.batches import MAX_ID_BYTES
from polyvec.chunking import chunk_text
from polyvec.errors import InvalidInputError, shown
from polyvec.metadata import check_metadata, utf8_length
from polyvec.readers import Document
from polyvec.types import FloatArray

SOURCE: Final = "_source"
CHUNK: Final = "_chunk"
START: Final = "_start"
END: Final = "_end"
HASH: Final = "_hash"
CHUNKS: Final = "_chunks"
RESERVED: Final = frozenset({SOURCE, CHUNK, START, END, HASH, CHUNKS})


@dataclass(slots=True)
class Entry:
    """A document under way.

    Attributes:
        source: Its source.
        chunks: How many it has.
        open: How many of its pieces are not yet in place.
        surplus: The numbers of the records to remove, which the collection may have beyond its chunks.
        failed: Nothing more is done for it.
    """

    source: str
    chunks: int
    open: int
    surplus: range = range(0)
    failed: bool = False


@dataclass(slots=True)
class Piece:
    """A chunk on its way to its record.

    A document without a chunk has one piece, too, without text: it removes what the collection has of it.

    Attributes:
        entry: Its document.
        number: Its place in the document, from 0.
        id: The record's.
        text: Empty only in a document without a chunk.
        tokens: Of the text.
        metadata: The record's.
        vector: None until it is known.
    """

    entry: Entry
    number: int
    id: str
    text: str
    tokens: int
    metadata: dict[str, Any]
    vector: FloatArray | None = None


def record_id(source: str, number: int) -> str:
    """Return the id of a chunk's record; no two chunks share one.

    That of a shortened source ends in `:number`, all others in `#number`.
    """
    id = f"{source}#{number}"
    if len(id) * 4 <= MAX_ID_BYTES or len(id.encode()) <= MAX_ID_BYTES:
        return id
    ending = f"#{blake2b(source.encode(), digest_size=32).hexdigest()}:{number}"
    kept = source.encode()[: MAX_ID_BYTES - len(ending)].decode(errors="ignore")
    return kept + ending


def text_hash(text: str) -> str:
    """Return the hash of a chunk's text, 32 hex digits."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def make_pieces(document: Document, chunk_tokens: int, overlap_tokens: int) -> tuple[Entry, list[Piece]]:
    """Return a document's chunks as records to be, at least one piece.

    Raises:
        PolyvecError: The document cannot be used, or could not be read.
    """
    source, text = document.source, document.text
    _check_text(source, "the source")
    _check_text(text, "the text")
    if not source or "\0" in source:
        raise InvalidInputError(f"a source must not be empty or hold NUL ({shown(source)})")
    check_metadata(document.metadata)
    if taken := sorted(RESERVED & document.metadata.keys()):
        raise InvalidInputError(f"the metadata uses {', '.join(taken)}, which polyvec keeps for itself")
    chunks = chunk_text(text, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
    entry = Entry(source, len(chunks), max(1, len(chunks)))
    if not chunks:
        return entry, [Piece(entry, 0, record_id(source, 0), "", 0, {})]
    pieces = []
    for number, chunk in enumerate(chunks):
        own = {
            SOURCE: source, CHUNK: number, START: chunk.start, END: chunk.end, HASH: text_hash(chunk.text),
        }  # fmt: skip
        metadata = document.metadata | own
        pieces.append(Piece(entry, number, record_id(source, number), chunk.text, chunk.tokens, metadata))
    pieces[0].metadata[CHUNKS] = len(chunks)
    return entry, pieces


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a str, not {type(text).__name__} ({shown(text)})")
    utf8_length(text, what)


def same_value(left: object, right: object) -> bool:
    """Whether two metadata values are equal and of the same types: 1 is not 1.0 is not True."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, datetime) and isinstance(right, datetime):
        return left == right and left.utcoffset() == right.utcoffset()
    return left == right
