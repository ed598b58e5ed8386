"""The flow from documents to a collection; `polyvec.pipeline` is the way in.

All state is in the collection, and each step can be repeated. A run asks the collection for the records of
some chunks; writes those that are missing or differ, with the vector that the collection has already where
their text is not new; and when all chunks of some documents are in place, it removes the records that these
documents have beyond them. So wherever a run is ended, another one ends in the same state.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from polyvec.filters import MAX_VALUES, Exists, In
from polyvec.pieces import CHUNK, HASH, SOURCE, Entry, Piece, make_pieces, record_id, same_value
from polyvec.protocol import Collection
from polyvec.readers import Document, UnreadableDocument
from polyvec.reports import IngestFailure, IngestPlan, IngestReport, OnProgress, Progress
from polyvec.types import FloatArray, RecordBatch, WriteReport

WINDOW: Final = 1000
"""Chunks that the collection is asked for at once; and most records of a batch, unless the embedder likes more."""

PRUNED_AT_ONCE: Final = 100_000
"""Ids of records to prune that are kept in memory."""

_FATAL: Final = (
    AuthenticationError, RateLimitedError, BackendUnavailableError, BackendTimeoutError, ConfigurationError,
)  # fmt: skip
"""Errors that no text is the reason of: the next one would meet them, too."""


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
        self.settled: dict[str, Entry] = {}
        self.writing: deque[tuple[Future[WriteReport], list[Piece]]] = deque()
        self.unflushed = False
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
                    self._settle_all()
                except Exception:
                    with contextlib.suppress(PolyvecError):  # what is on its way counts
                        self._settle_all()
                    raise
            self._sweep()
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
            new = {piece.text: piece.tokens for piece in batch if piece.vector is None}
            self.embedded += len(new)
            self.tokens += sum(new.values())
            self.reused += sum(piece.vector is not None for piece in batch)
            for piece in batch:
                self._close(piece.entry)
        self._sweep()
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
            if piece.vector is None:
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
            self.chunks += len(pieces)
            if not pieces:
                self._finish(entry)
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
            if record is not None:
                piece.entry.stored += 1
                if same_value(record.metadata, piece.metadata):
                    self.skipped += 1
                    self._close(piece.entry)
                    continue
            changed.append(piece)
            if (donor := donors.get(piece.metadata[HASH])) is not None:
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
        new = {piece.text: piece.tokens for piece in batch if piece.vector is None and not piece.entry.failed}
        vectors = self._embed(list(new)) if new else {}
        self.embedded += len(new)
        self.tokens += sum(new.values())
        self.reused += sum(piece.vector is not None and not piece.entry.failed for piece in batch)
        for piece in batch:
            if piece.vector is None and not piece.entry.failed:
                found = vectors[piece.text]
                if isinstance(found, PolyvecError):
                    self._fail_entry(piece.entry, found)
                else:
                    piece.vector = found
        usable = [piece for piece in batch if not piece.entry.failed]
        for piece in batch:
            if piece.entry.failed:
                self._close(piece.entry)
        self._settle_all()
        if usable:
            self.writing.append((writer.submit(self._upsert, usable), usable))

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

    def _upsert(self, pieces: Sequence[Piece]) -> WriteReport:
        vectors = np.stack([piece.vector for piece in pieces if piece.vector is not None])
        return self.collection.upsert(
            RecordBatch(
                [piece.id for piece in pieces],
                vectors,
                [piece.text for piece in pieces],
                [piece.metadata for piece in pieces],
            ),
            wait=False,
        )

    def _settle_all(self) -> None:
        while self.writing:
            self._settle(*self.writing.popleft())

    def _settle(self, answer: Future[WriteReport], pieces: list[Piece]) -> None:
        """Wait until a batch is written, and note what became of it."""
        self.unflushed = True
        failed: dict[str, PolyvecError] = {}
        try:
            report = answer.result()
        except PolyvecError as error:
            if isinstance(error, _FATAL) or not isinstance(error.report, WriteReport):
                raise
            report = error.report
            if not report.failures:
                raise
            failed = {failure.id: failure.error for failure in report.failures}
        self.written += report.written
        for piece in pieces:
            if piece.id in failed:
                self._fail_entry(piece.entry, failed[piece.id])
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
            self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        self.done += 1
        if not entry.failed:
            self.settled[entry.source] = entry
            if len(self.settled) == MAX_VALUES:
                self._sweep()

    def _sweep(self) -> None:
        """Remove what the collection has of finished documents beyond their chunks."""
        if self.unflushed:
            self.collection.flush()
            self.unflushed = False
        settled, self.settled = self.settled, {}
        if not settled or self.empty:
            return
        theirs = In(SOURCE, tuple(settled))
        expected = sum(entry.stored if self.dry else entry.chunks for entry in settled.values())
        surplus = self.collection.count(theirs) - expected
        if self.dry:
            self.deleted += surplus
        elif surplus > 0:
            pages = self.collection.scan_batches(theirs, include_text=False)
            gone = [id for page in pages for id in _surplus(page, settled)]
            self.collection.delete(gone)
            self.deleted += len(gone)

    def _prune(self) -> None:
        """Remove the records of documents that this run did not see."""
        if self.unreadable:
            self.prune_refused = "something could not be read, so what is gone cannot be told from it"
        elif not self.seen:
            self.prune_refused = "no document was read (clear() empties a collection)"
        elif self.dry:
            self.pruned = sum(1 for _ in self._unseen())
        else:
            more = True
            while more:  # a pass first, then its deletions: these could hide records from the scan
                gone = list(islice(self._unseen(), PRUNED_AT_ONCE))
                self.collection.delete(gone)
                self.pruned += len(gone)
                more = len(gone) == PRUNED_AT_ONCE

    def _unseen(self) -> Iterator[str]:
        """Yield the ids of the records of documents that this run did not see."""
        for page in self.collection.scan_batches(Exists(SOURCE), include_text=False):
            for id, metadata in zip(page.ids, page.metadatas or (), strict=True):
                source = metadata[SOURCE]
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


def _key(source: str) -> bytes:
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without_frames(error: PolyvecError) -> PolyvecError:
    """Return the error without the frames that it passed: they would keep their document in memory."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return error


def _surplus(page: RecordBatch, settled: dict[str, Entry]) -> Iterator[str]:
    """Yield the ids of the records of a page that are no chunk of their document."""
    for id, metadata in zip(page.ids, page.metadatas or (), strict=True):
        source, number = metadata[SOURCE], metadata.get(CHUNK)
        entry = settled.get(source)
        if entry is not None and not (
            type(number) is int and 0 <= number < entry.chunks and id == record_id(source, number)
        ):
            yield id
