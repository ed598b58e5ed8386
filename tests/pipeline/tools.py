"""Embedders and collections that are watched, or that break at a chosen moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import polyvec
from polyvec import Collection, Document, Embedder, RecordBatch
from polyvec.embed.hashing import HashEmbedder
from polyvec.types import FloatArray

State = dict[str, tuple[str | None, dict[str, Any], bytes]]


def state(collection: Collection) -> State:
    """Return all that a collection holds."""
    found: State = {}
    for record in collection.scan(include_vectors=True):
        assert record.vector is not None
        found[record.id] = (record.text, dict(record.metadata), bytes(memoryview(record.vector)))  # type: ignore[arg-type]
    return found


def new_collection(embedder: Embedder) -> Collection:
    store = polyvec.connect("memory://")
    return store.create_collection("docs", embedding=embedder.space)


def paragraphs(name: str, *numbers: int) -> str:
    """Return a text of which each paragraph is a chunk of its own (with at most 32 tokens)."""
    return "\n\n".join(
        f"Paragraph {number} of {name} tells of {'things ' * 15}and ends." for number in numbers
    )


def document(name: str, *numbers: int, **metadata: object) -> Document:
    return Document(name, paragraphs(name, *numbers), metadata)


class WatchedEmbedder(HashEmbedder):
    """Remembers what it was asked for, and calls `before` with it."""

    def __init__(self, batch_size: int = 3) -> None:
        super().__init__(16)
        self.batch_size = batch_size
        self.calls: list[list[str]] = []
        self.before: Callable[[list[str]], None] = lambda texts: None

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def _do_embed(self, texts: list[str]) -> FloatArray:
        self.calls.append(texts)
        self.before(texts)
        return super()._do_embed(texts)


class WatchedCollection:
    """Passes everything on to a collection, and calls `around` with what is to be done."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.calls: list[str] = []
        self.lock = threading.Lock()
        self.around: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] = (
            lambda name, call, args, options: call(*args, **options)
        )

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.collection, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            with self.lock:
                self.calls.append(name)
            return self.around(name, found, args, options)

        return call

    def count_of(self, name: str) -> int:
        return self.calls.count(name)


class KilledError(BaseException):
    """The process is gone."""


class Kill:
    """Ends everything at the k-th step, and lets nothing more be done afterwards.

    Args:
        step: Which call of the embedder or of the collection.
        moment: "before" it, "half" way through a write or a deletion, or "after" it.
    """

    def __init__(self, step: int, moment: str) -> None:
        self.left = step
        self.moment = moment
        self.lock = threading.Lock()
        self.dead = False
        self.steps = 0

    def _next(self) -> bool:
        with self.lock:
            if self.dead:
                raise KilledError
            self.steps += 1
            self.left -= 1
            self.dead = self.left == 0
            return self.dead

    def embedder(self, texts: list[str]) -> None:
        if self._next():
            raise KilledError

    def collection(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        if not self._next():
            return call(*args, **options)
        if self.moment == "half" and name == "upsert":
            call(odd_rows(args[0]), **options)
        elif self.moment == "half" and name == "delete":
            call(args[0][1::2])
        elif self.moment == "after":
            call(*args, **options)
        raise KilledError


def odd_rows(batch: RecordBatch) -> RecordBatch:
    """Return every second record, without the first."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    return RecordBatch(batch.ids[1::2], batch.vectors[1::2], batch.texts[1::2], batch.metadatas[1::2])
