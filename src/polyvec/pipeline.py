"""Documents into a collection, and questions to it: chunk, embed, write, search."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from polyvec.chunking import CHUNK_TOKENS, check_sizes
from polyvec.embed.base import Embedder
from polyvec.errors import CollectionNotFoundError, EmbeddingSpaceError, InvalidInputError
from polyvec.ingest import Run
from polyvec.protocol import Collection, FilterLike, IndexHints, VectorStore
from polyvec.readers import Document
from polyvec.reports import IngestPlan, IngestReport, OnProgress
from polyvec.types import Index, Match, Metric


class Pipeline:
    """An embedder and a collection that belong together: the collection's vectors are the embedder's.

    Attributes:
        embedder: The embedder; the pipeline does not close it.
        collection: The collection.
    """

    def __init__(
        self,
        embedder: Embedder,
        collection: Collection,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        overlap_tokens: int | None = None,
    ) -> None:
        """Join an embedder and a collection.

        Args:
            embedder: See `polyvec.embedder`.
            collection: Created with `embedding=embedder.space`.
            chunk_tokens: Most tokens of a chunk (cl100k_base), 8 to `embedder.max_tokens`.
            overlap_tokens: Most tokens that a chunk repeats of the one before, 0 to half of `chunk_tokens`;
                None is a tenth of it.

        Raises:
            EmbeddingSpaceError: The collection's vectors are of another model, or it is not known of which.
            InvalidInputError: A wrong number of tokens.
        """
        self.chunk_tokens = chunk_tokens
        self.overlap_tokens = _check_sizes(embedder, chunk_tokens, overlap_tokens)
        space, stored = embedder.space, collection.info.embedding
        if stored is None:
            raise EmbeddingSpaceError(
                f"it does not say which model made its vectors, and the embedder is {space}; create it with "
                "create_collection(..., embedding=embedder.space), or open it with Pipeline.open",
                collection=collection.name,
            )
        if stored != space:
            raise EmbeddingSpaceError(
                f"its vectors were made by {stored}, and the embedder is {space}; use that model, or another "
                "collection",
                collection=collection.name,
            )
        self.embedder = embedder
        self.collection = collection

    def __repr__(self) -> str:
        return f"<pipeline {self.embedder.space} -> {self.collection!r}>"

    @classmethod
    def open(
        cls,
        store: VectorStore,
        name: str,
        embedder: Embedder,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        overlap_tokens: int | None = None,
        metric: Metric | None = None,
        indexes: IndexHints | None = None,
        index: Index | None = None,
    ) -> Pipeline:
        """Return a pipeline into a collection, which is created if there is none of that name.

        Args:
            store: Where it is.
            name: Of the collection.
            embedder: See `Pipeline`.
            chunk_tokens: See `Pipeline`.
            overlap_tokens: See `Pipeline`.
            metric: As in `create_collection`, like the other two; None is "cosine" for a new collection and
                whatever an old one has.
            indexes: Metadata keys to speed up filters on.
            index: How vectors are searched.

        Raises:
            EmbeddingSpaceError: It exists, with vectors of another model.
            SpecMismatchError: It exists, and differs from what was asked for.
            InvalidInputError: A wrong argument; nothing was created.
        """
        _check_sizes(embedder, chunk_tokens, overlap_tokens)
        try:
            collection = store.collection(name)
        except CollectionNotFoundError:
            collection = store.create_collection(
                name,
                metric=metric or "cosine",
                indexes=indexes,
                index=index,
                embedding=embedder.space,
                exist_ok=True,  # somebody else may be faster
            )
            return cls(embedder, collection, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
        pipeline = cls(embedder, collection, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
        if (metric, indexes, index) != (None, None, None):
            store.create_collection(
                name,
                metric=metric or collection.info.metric,
                indexes=indexes,
                index=index,
                embedding=embedder.space,
                exist_ok=True,
            )
        return pipeline

    def ingest(
        self,
        documents: Iterable[Document],
        *,
        on_progress: OnProgress | None = None,
        prune: bool = False,
        fail_fast: bool = False,
    ) -> IngestReport:
        """Bring the collection to the state that the documents describe, in bounded memory.

        Chunks that are in the collection already are not embedded again, wherever an earlier run ended, and
        chunks that a document no longer has are removed. Running it twice changes nothing. All state is in
        the collection; other records in it are left alone. When it returns, every read sees what it wrote.

        Args:
            documents: Of any length, each with a source of its own; see `polyvec.read`.
            on_progress: Is called now and then, in the calling thread.
            prune: Remove the records of documents that were ingested once but are not among these. Nothing is
                removed if something could not be read (see `IngestReport.prune_refused`).
            fail_fast: Raise the error of the first document that fails.

        Returns:
            What was done. A document that cannot be read, chunked, embedded or written is in its `failures`,
            with the reason; the others are ingested.

        Raises:
            PolyvecError: Something that concerns more than one document: the database or the model refuses or
                fails. `error.report` says what had been done; run it again to go on.
        """
        return self._run(documents, on_progress, fail_fast=fail_fast).ingest(documents, prune=prune)

    def plan(
        self, documents: Iterable[Document], *, on_progress: OnProgress | None = None, prune: bool = False
    ) -> IngestPlan:
        """Return what `ingest` would do; nothing is embedded or written."""
        return self._run(documents, on_progress, dry=True).plan(documents, prune=prune)

    def _run(
        self,
        documents: Iterable[Document],
        on_progress: OnProgress | None,
        *,
        fail_fast: bool = False,
        dry: bool = False,
    ) -> Run:
        return Run(
            self.embedder,
            self.collection,
            chunk_tokens=self.chunk_tokens,
            overlap_tokens=self.overlap_tokens,
            total=len(documents) if isinstance(documents, Sized) else None,
            on_progress=on_progress,
            fail_fast=fail_fast,
            dry=dry,
        )

    def search(
        self,
        text: str,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        min_score: float | None = None,
        offset: int = 0,
        exact: bool = False,
    ) -> list[Match]:
        """Return the chunks nearest in meaning to a text, best first; see `Collection.query`.

        The metadata of a match say where it stands: `_source`, `_chunk`, `_start` and `_end`.
        """
        return self.collection.query(
            self.embedder.embed_query(text),
            limit=limit,
            filter=filter,
            min_score=min_score,
            offset=offset,
            exact=exact,
        )


def _check_sizes(embedder: Embedder, chunk_tokens: int, overlap_tokens: int | None) -> int:
    """Return the overlap, or raise InvalidInputError."""
    overlap = check_sizes(chunk_tokens, overlap_tokens)
    if chunk_tokens > embedder.max_tokens:
        raise InvalidInputError(
            f"chunk_tokens is {chunk_tokens}, but {embedder.space} reads at most {embedder.max_tokens}"
        )
    return overlap
