"""The flow from documents to a collection; `polyvec.pipeline` is the way in.

All state is in the collection, and each step can be repeated. A run asks the collection for the records of
some chunks, and writes those that are missing or differ, with the vector that the collection has already
where their text is not new.

What a document no longer has is found without a search: its first record keeps in `_chunks` how many records
it may have. It is written before any record that it does not count yet, and after the removal of those that
it is to count no longer. So wherever a run is ended it never counts too few, and another run ends in the same
state.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Final

import numpy as np

from polyvec.batches import check_vectors
from polyvec.embed.base import Embedder
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
    shown,
)
from polyvec.filters import Exists, Filter, Gt
from polyvec.pieces import CHUNK, CHUNKS, HASH, SOURCE, Entry, Piece, make_pieces, record_id, same_value
from polyvec.protocol import Collection
from polyvec.readers import Document, UnreadableDocument
from polyvec.reports import IngestFailure, IngestPlan, IngestReport, OnProgress, Progress
from polyvec.types import FloatArray, RecordBatch, WriteReport

WINDOW: Final = 1000
"""Chunks that the collection is asked for at once, and records of a batch unless the embedder likes more."""

PRUNED_AT_ONCE: Final = 100_000
"""Ids of records to prune that are kept in memory."""

_FATAL: Final = (
    AuthenticationError, RateLimitedError, BackendUnavailableError, BackendTimeoutError, ConfigurationError,
)  # fmt: skip
"""Errors that no text is the reason of: the next one would meet them, too."""


@dataclass(slots=True)
class _Written:
    """What became of a batch: records written and removed, and the ids that the database refused."""

    batch: list[Piece]
    records: int = 0
    deleted: int = 0
    failed: dict[str, PolyvecError] = field(default_factory=dict)


class Run:
    """One run over some documents; used once."""

    def __init__(
        self,
        embedder: Embedder,
        collection: Collection,
        *,
        chunk_tokens: int,
        overlap_tokens: int,
        total: int | None = None,
        on_progress: OnProgress | None = None,
        fail_fast: bool = False,
        dry: bool = False,
    ) -> None:
        self.embedder = embedder
        self.collection = collection
        self.chunk_tokens = chunk_tokens
        self.overlap_tokens = overlap_tokens
        self.total = total
        self.on_progress = on_progress
        self.fail_fast = fail_fast
        self.dry = dry
        self.started = time.monotonic()
        self.documents = self.done = self.chunks = self.skipped = self.embedded = self.reused = 0
        self.written = self.deleted = self.pruned = self.tokens = self.unreadable = 0
        self.failures: list[IngestFailure] = []
        self.prune_refused: str | None = None
        self.seen: set[bytes] = set()
        self.writing: Future[_Written] | None = None
        self.model_works = False
        self.empty = False

    # The two ways to run -----------------------------------------------------------------------------

    def ingest(self, documents: Iterable[Document], *, prune: bool) -> IngestReport:
        """Bring the collection to the state that the documents describe."""
        try:
            with ThreadPoolExecutor(1, "polyvec-ingest") as writer:
                try:
                    for batch in self._batches(documents):
                        self._write(batch, writer)
                    self._settle()
                except Exception:
                    with contextlib.suppress(PolyvecError):  # what is on its way counts
                        self._settle()
                    raise
            if self.written or self.deleted:
                self.collection.flush()
            if prune:
                self._prune()
        except PolyvecError as error:
            error.report = self.report()
            raise
        self._show_progress()
        return self.report()

    def plan(self, documents: Iterable[Document], *, prune: bool) -> IngestPlan:
        """Find out what `ingest` would do, without embedding or writing anything."""
        for batch in self._batches(documents):
            new = _new_texts(batch)
            self.embedded += len(new)
            self.tokens += sum(new.values())
            self.reused += sum(piece.vector is not None for piece in batch)
            self.deleted += sum(len(piece.entry.surplus) for piece in batch if piece.number == 0)
            for piece in batch:
                self._close(piece.entry)
        if prune:
            self._prune()
        self._show_progress()
        return IngestPlan(
            documents=self.documents,
            chunks=self.chunks,
            skipped=self.skipped,
            embedded=self.embedded,
            reused=self.reused,
            deleted=self.deleted,
            pruned=self.pruned,
            prune_refused=self.prune_refused,
            tokens=self.tokens,
            failures=tuple(self.failures),
        )

    def report(self) -> IngestReport:
        """Return what was done so far."""
        return IngestReport(
            documents=self.documents,
            chunks=self.chunks,
            skipped=self.skipped,
            embedded=self.embedded,
            reused=self.reused,
            written=self.written,
            deleted=self.deleted,
            pruned=self.pruned,
            prune_refused=self.prune_refused,
            tokens=self.tokens,
            failures=tuple(self.failures),
            elapsed_s=time.monotonic() - self.started,
        )

    # From documents to batches of pieces that must be written ----------------------------------------

    def _batches(self, documents: Iterable[Document]) -> Iterator[list[Piece]]:
        """Yield what must be written, each batch with as many texts to embed as the embedder likes."""
        batch: list[Piece] = []
        texts: set[str] = set()
        for piece in self._changed(self._pieces(documents)):
            batch.append(piece)
            if piece.vector is None and piece.text:
                texts.add(piece.text)
            if len(texts) >= self.embedder.batch_size or len(batch) >= max(WINDOW, self.embedder.batch_size):
                yield batch
                batch, texts = [], set()
        if batch:
            yield batch

    def _pieces(self, documents: Iterable[Document]) -> Iterator[Piece]:
        for document in documents:
            if not isinstance(document, Document):
                raise InvalidInputError(
                    f"expected a Document, not {type(document).__name__} ({shown(document)})"
                )
            self.documents += 1
            self.unreadable += isinstance(document, UnreadableDocument)
            try:
                self._see(document.source)
                entry, pieces = make_pieces(document, self.chunk_tokens, self.overlap_tokens)
            except PolyvecError as error:
                self.done += 1
                self._fail(document.source, error)
                continue
            self.chunks += entry.chunks
            yield from pieces

    def _changed(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield the pieces whose records are missing or differ, asking the collection for many at once."""
        self.empty = self.collection.count() == 0
        window: list[Piece] = []
        for piece in pieces:
            window.append(piece)
            if len(window) == WINDOW:
                yield from self._compare(window)
                window = []
        yield from self._compare(window)

    def _compare(self, window: list[Piece]) -> list[Piece]:
        if self.empty or not window:
            return window
        stored = self.collection.get(
            [piece.id for piece in window], include_vectors=False, include_text=False
        )
        donors = {str(record.metadata.get(HASH)): record.id for record in stored if record is not None}
        changed: list[Piece] = []
        wanted: dict[str, list[Piece]] = {}
        for piece, record in zip(window, stored, strict=True):
            if record is not None and same_value(record.metadata, piece.metadata):
                self.skipped += 1
                self._close(piece.entry)
                continue
            changed.append(piece)
            if record is not None and piece.number == 0:
                counted = record.metadata.get(CHUNKS)
                counted = max(1, counted) if isinstance(counted, int) else 1
                piece.entry.surplus = range(piece.entry.chunks, counted)
            if (donor := donors.get(piece.metadata.get(HASH, ""))) is not None:
                wanted.setdefault(donor, []).append(piece)
        if wanted:
            self._take_vectors(wanted)
        self._show_progress()
        return changed

    def _take_vectors(self, wanted: dict[str, list[Piece]]) -> None:
        """Give pieces the vectors of stored records with the same text: their own, or another one's."""
        for record in self.collection.get(list(wanted), include_text=False):
            if record is not None and record.vector is not None:
                for piece in wanted[record.id]:
                    if record.metadata.get(HASH) == piece.metadata[HASH]:
                        piece.vector = np.asarray(record.vector, np.float32)

    # From pieces to records --------------------------------------------------------------------------

    def _write(self, batch: list[Piece], writer: ThreadPoolExecutor) -> None:
        """Embed a batch while the one before is being written, and hand it over to be written."""
        new = _new_texts(batch)
        vectors = self._embed(list(new)) if new else {}
        self._settle()
        self.embedded += len(new)
        self.tokens += sum(new.values())
        self.reused += sum(piece.vector is not None and not piece.entry.failed for piece in batch)
        for piece in batch:
            found = vectors.get(piece.text)
            if isinstance(found, PolyvecError):
                self._fail_entry(piece.entry, found)
            elif found is not None:
                piece.vector = found
        self.writing = writer.submit(self._store, batch)

    def _embed(self, texts: list[str]) -> dict[str, FloatArray | PolyvecError]:
        """Return for each text its vector, or why it has none."""
        try:
            return dict(zip(texts, self._vectors(texts), strict=True))
        except _FATAL:
            raise
        except PolyvecError as error:
            self._check_model(error)
            if len(texts) == 1:
                return {texts[0]: error}
        middle = len(texts) // 2
        return self._embed(texts[:middle]) | self._embed(texts[middle:])

    def _vectors(self, texts: list[str]) -> FloatArray:
        try:
            vectors = self.embedder.embed_documents(texts)
        except PolyvecError:
            raise
        except Exception as error:  # an embedder of somebody else's may raise anything
            raise BackendError(f"the embedder failed: {type(error).__name__}: {error}") from error
        if len(vectors) != len(texts):
            raise BackendError(f"the embedder made {len(vectors)} vectors of {len(texts)} texts")
        checked = check_vectors(vectors, self.collection.info.dimension, self.collection.info.metric)
        self.model_works = True
        return checked

    def _check_model(self, error: PolyvecError) -> None:
        """Raise the error again if the embedder fails at a harmless text, too: then no text is the reason."""
        if not self.model_works:
            try:
                self._vectors(["hello"])
            except PolyvecError:
                raise error from error.__cause__

    def _store(self, batch: list[Piece]) -> _Written:
        """Remove and write what a batch asks for, in the order that the module's docstring explains."""
        written = _Written(batch)
        usable = [piece for piece in batch if not piece.entry.failed]
        shrunk = [piece.entry for piece in usable if piece.number == 0 and piece.entry.surplus]
        surplus = [record_id(entry.source, number) for entry in shrunk for number in entry.surplus if number]
        if surplus:
            self.collection.delete(surplus)
        if emptied := [record_id(entry.source, 0) for entry in shrunk if not entry.chunks]:
            self.collection.delete(emptied)
        written.deleted = len(surplus) + len(emptied)
        self._upsert([piece for piece in usable if piece.number == 0 and piece.entry.chunks > 1], written)
        refused = {piece.entry.source for piece in usable if piece.id in written.failed}
        rest = [piece for piece in usable if piece.number or piece.entry.chunks == 1]
        self._upsert([piece for piece in rest if piece.entry.source not in refused], written)
        return written

    def _upsert(self, pieces: Sequence[Piece], written: _Written) -> None:
        if not pieces:
            return
        records = RecordBatch(
            [piece.id for piece in pieces],
            np.stack([piece.vector for piece in pieces if piece.vector is not None]),
            [piece.text for piece in pieces],
            [piece.metadata for piece in pieces],
        )
        try:
            report = self.collection.upsert(records, wait=False)
        except PolyvecError as error:
            if isinstance(error, _FATAL) or not isinstance(error.report, WriteReport):
                raise
            report = error.report
            if not report.failures:
                raise
        written.records += report.written
        written.failed |= {failure.id: failure.error for failure in report.failures}

    def _settle(self) -> None:
        """Wait until the batch before is written, and note what became of it."""
        if self.writing is None:
            return
        answer, self.writing = self.writing, None
        written = answer.result()
        self.written += written.records
        self.deleted += written.deleted
        for piece in written.batch:
            if piece.id in written.failed:
                self._fail_entry(piece.entry, written.failed[piece.id])
            self._close(piece.entry)
        self._show_progress()

    # What becomes of a document ----------------------------------------------------------------------

    def _see(self, source: str) -> None:
        if not isinstance(source, str):
            return  # refused by make_pieces
        key = _key(source)
        if key in self.seen:
            raise InvalidInputError(f"another document of this run has the source {shown(source)} already")
        self.seen.add(key)

    def _fail_entry(self, entry: Entry, error: PolyvecError) -> None:
        if not entry.failed:
            entry.failed = True
            self._fail(entry.source, error)

    def _fail(self, source: str, error: PolyvecError) -> None:
        self.failures.append(IngestFailure(source, _without_frames(error)))
        if self.fail_fast:
            raise error

    def _close(self, entry: Entry) -> None:
        """Note that one more chunk of a document is in place, or given up."""
        entry.open -= 1
        if not entry.open:
            self.done += 1

    def _prune(self) -> None:
        """Remove the records of documents that this run did not see."""
        if self.unreadable:
            self.prune_refused = "something could not be read, so what is gone cannot be told from it"
        elif not self.seen:
            self.prune_refused = "no document was read (clear() empties a collection)"
        elif self.dry:
            self.pruned = sum(1 for _ in self._unseen(Exists(SOURCE)))
        else:
            self._remove_unseen(Gt(CHUNK, 0))
            self._remove_unseen(Exists(SOURCE))  # a document's first record last: it counts the others

    def _remove_unseen(self, filter: Filter) -> None:
        more = True
        while more:  # a pass first, then its deletions: these could hide records from the scan
            gone = list(islice(self._unseen(filter), PRUNED_AT_ONCE))
            if gone:
                self.collection.delete(gone)
            self.pruned += len(gone)
            more = len(gone) == PRUNED_AT_ONCE

    def _unseen(self, filter: Filter) -> Iterator[str]:
        """Yield the ids of the records of documents that this run did not see."""
        for page in self.collection.scan_batches(filter, include_text=False):
            for id, metadata in zip(page.ids, page.metadatas or (), strict=True):
                source = metadata.get(SOURCE)
                if isinstance(source, str) and _key(source) not in self.seen:
                    yield id

    def _show_progress(self) -> None:
        if self.on_progress is not None:
            elapsed = time.monotonic() - self.started
            self.on_progress(
                Progress(
                    documents=self.done,
                    total=self.total,
                    chunks=self.chunks,
                    skipped=self.skipped,
                    embedded=self.embedded,
                    written=self.written,
                    tokens=self.tokens,
                    failures=len(self.failures),
                    elapsed_s=elapsed,
                    rate=(self.written + self.skipped) / elapsed if elapsed else 0.0,
                )
            )


def _new_texts(batch: Iterable[Piece]) -> dict[str, int]:
    """Return the texts to embed, each once, with their tokens."""
    return {
        piece.text: piece.tokens
        for piece in batch
        if piece.text and piece.vector is None and not piece.entry.failed
    }


def _key(source: str) -> bytes:
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without_frames(error: PolyvecError) -> PolyvecError:
    """Return the error without the frames that it passed: they would keep their document in memory."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return error
