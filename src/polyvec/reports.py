"""What the ingestion of documents reports: before it, while it runs, and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from polyvec.errors import PolyvecError


@dataclass(frozen=True, slots=True)
class IngestFailure:
    """A document that could not be ingested, and why; what the collection had of it may be there still."""

    source: str
    error: PolyvecError

    @property
    def reason(self) -> str:
        """The error in words."""
        return str(self.error)


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a run did.

    Attributes:
        documents: Documents read, those that failed among them.
        chunks: Chunks of the documents that did not fail on the way to them.
        skipped: Chunks whose records were as they should be.
        embedded: Texts that the embedder was asked for; equal ones that stand near each other count once.
        reused: Records written with a vector that the collection had: their text was not new.
        written: Records written.
        deleted: Records removed, because their document no longer has so many chunks.
        pruned: Records removed, because the run did not see their document (`prune=True`).
        prune_refused: Why nothing was pruned although it was asked for; None otherwise.
        tokens: Tokens of the embedded texts (cl100k_base).
        failures: The documents that failed, each with its reason.
        elapsed_s: Seconds.
    """

    documents: int = 0
    chunks: int = 0
    skipped: int = 0
    embedded: int = 0
    reused: int = 0
    written: int = 0
    deleted: int = 0
    pruned: int = 0
    prune_refused: str | None = None
    tokens: int = 0
    failures: tuple[IngestFailure, ...] = ()
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What `ingest` would do; see `IngestReport` for what the same names mean.

    Attributes:
        documents: Documents read.
        chunks: Their chunks.
        skipped: Chunks that need nothing.
        embedded: Texts to embed.
        reused: Records to write with the vector they have.
        deleted: Records to remove, because their document no longer has so many chunks.
        pruned: Records to remove with `prune=True`; 0 if it was not asked for.
        prune_refused: Why nothing would be pruned.
        tokens: Tokens of the texts to embed (cl100k_base).
        failures: Documents that would fail before they are embedded.
    """

    documents: int
    chunks: int
    skipped: int
    embedded: int
    reused: int
    deleted: int
    pruned: int
    prune_refused: str | None
    tokens: int
    failures: tuple[IngestFailure, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; see `IngestReport` for what the same names mean.

    Attributes:
        documents: Documents that are done: in the collection, or failed.
        total: All documents, where that is known.
        chunks: Chunks made so far.
        skipped: Chunks that needed nothing.
        embedded: Texts embedded.
        written: Records written.
        tokens: Tokens of the embedded texts.
        failures: Documents that failed.
        elapsed_s: Seconds since the start.
        rate: Chunks written or skipped per second.
    """

    documents: int
    total: int | None
    chunks: int
    skipped: int
    embedded: int
    written: int
    tokens: int
    failures: int
    elapsed_s: float
    rate: float


OnProgress = Callable[[Progress], None]
