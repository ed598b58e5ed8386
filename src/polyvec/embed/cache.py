"""Vectors kept in a file, so that no text is paid for twice: not by the next run, not by another database.

The file is an SQLite database, which Python has: several processes may use it at once, a batch of vectors is
one transaction, and its values are plain float32. diskcache, the usual choice, reads what it stores with
pickle, so whoever can write the file can run code (CVE-2025-69872, without a fix:
https://github.com/grantjenks/python-diskcache/issues/357); LMDB wants the size of its file to be known in
advance, and may not be opened twice in a process (https://lmdb.readthedocs.io/en/release/#environment-class).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from polyvec.embed.base import BaseEmbedder, Embedder, Outcome
from polyvec.errors import ConfigurationError, PolyvecError
from polyvec.tokenizer import repair
from polyvec.types import EmbeddingSpace, FloatArray

logger = logging.getLogger(__name__)

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
_AT_ONCE: Final = 500
"""Keys of one statement, and vectors of one transaction; SQLite before 3.32 takes 999 parameters at most."""
_HELD: Final = 4000
"""Vectors from the cache that are held while texts before them are embedded."""
_LOCKED_S: Final = 30.0


class VectorFile:
    """Vectors by key in an SQLite file; safe to use from several threads and processes."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, which is made if it is missing, with its folder.

        Raises:
            ConfigurationError: It cannot be opened, or is something else.
        """
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._made: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.execute("SELECT 1 FROM vectors LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the cache {self.path} cannot be opened: {error}; name another file, or remove this one"
            ) from error

    def close(self) -> None:
        """Close the file; it is opened again when it is needed again."""
        with self._lock:
            if self._made is not None:
                self._made.close()
            self._made = None

    def _connection(self) -> sqlite3.Connection:
        if self._made is None:
            made = sqlite3.connect(
                self.path, timeout=_LOCKED_S, isolation_level=None, check_same_thread=False
            )
            try:
                # readers and a writer do not wait for each other, and a crash loses the last moments only,
                # which a cache may: https://www.sqlite.org/wal.html#performance_considerations
                made.execute("PRAGMA journal_mode = WAL")
                made.execute("PRAGMA synchronous = NORMAL")
                made.executescript(_SCHEMA)
            except BaseException:
                made.close()
                raise
            self._made = made
        return self._made

    def find(self, keys: Sequence[bytes], dimensions: int) -> dict[bytes, FloatArray]:
        """Return the vectors that are there, by key."""
        found: dict[bytes, FloatArray] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            for key, data in self.execute(
                f"SELECT key, vector FROM vectors WHERE key IN ({marks})",  # noqa: S608  # only question marks
                some,
            ):
                vector = (
                    np.frombuffer(data, "<f4").astype(np.float32) if len(data) == 4 * dimensions else None
                )
                if vector is not None and np.isfinite(vector).all():  # else damaged, and made again
                    found[key] = vector
        return found

    def keep(self, vectors: Mapping[bytes, FloatArray]) -> None:
        """Write vectors in one transaction."""
        rows = [(key, np.ascontiguousarray(vector, "<f4").tobytes()) for key, vector in vectors.items()]
        self.execute_many("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement and return its rows."""
        with self._lock:
            return self._connection().execute(statement, values).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row, in one transaction."""
        with self._lock, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, rows)


class CachedEmbedder(BaseEmbedder):
    """Another embedder, which is asked only for texts whose vector is not in the cache.

    A vector is found by the embedding space and the text, so all databases, runs and programs that use one
    model share what has been paid for. A cache that cannot be read or written any more costs money, not
    vectors: it says so once in the log and is left alone.
    """

    def __init__(self, embedder: Embedder, path: str | Path) -> None:
        """Put a cache before an embedder.

        Args:
            embedder: Closed with this one.
            path: The file; made if it is missing, and shared with whoever else uses it.

        Raises:
            ConfigurationError: The file cannot be opened, or is something else.
        """
        super().__init__()
        self.embedder = embedder
        self.file = VectorFile(path)
        self.max_tokens = embedder.max_tokens
        self.batch_size = embedder.batch_size
        self.variant = getattr(embedder, "variant", "")
        self.usage = embedder.usage
        self._broken = False

    @property
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`."""
        return self.embedder.space

    def __repr__(self) -> str:
        return f"{self.embedder!r} with the cache {self.file.path}"

    def close(self) -> None:
        """Close the file and the embedder; they are opened again when they are needed again."""
        self.file.close()
        self.embedder.close()

    def key(self, text: str, *, query: bool = False) -> bytes:
        """Return the key of a text's vector."""
        space = self.space
        parts = (
            space.provider,
            space.model,
            str(space.dimensions),
            self.variant,
            "q" if query else "d",
            repair(text),
        )
        digest = blake2b(digest_size=20)
        for part in parts:
            data = part.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()

    def uncached(self, texts: Sequence[str]) -> list[str]:
        """Return the texts whose vectors are not in the cache."""
        keys = [self.key(text) for text in texts]
        known = self._find(keys)
        return [text for text, key in zip(texts, keys, strict=True) if key not in known]

    def _do_embed(self, texts: list[str]) -> FloatArray:
        keys = [self.key(text) for text in texts]
        vectors = self._find(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            made = self.embedder.embed_documents(list(missing.values()))
            vectors |= dict(zip(missing, made, strict=True))
            self._keep({key: vectors[key] for key in missing})
        self._count(cached=len(texts) - len(missing))
        return np.stack([vectors[key] for key in keys])

    def _do_embed_query(self, text: str) -> FloatArray:
        key = self.key(text, query=True)
        vector = self._find([key]).get(key)
        if vector is None:
            vector = self.embedder.embed_query(text)
            self._keep({key: vector})
        else:
            self._count(cached=1)
        return vector[np.newaxis]

    def _do_stream(self, texts: Iterator[str]) -> Iterator[Outcome]:
        looked_up = self._look_up(texts)
        fresh: dict[bytes, FloatArray] = {}
        try:
            for key, text, vector in looked_up:
                if vector is not None:
                    yield vector
                    continue
                for made, outcome in self._from_the_first_missing(key, text, looked_up):
                    if made is not None and not isinstance(outcome, PolyvecError):
                        fresh[made] = outcome
                        if len(fresh) == _AT_ONCE:
                            self._keep(fresh)
                            fresh = {}
                    yield outcome
        finally:  # whatever ends it: these are paid for
            self._keep(fresh)

    def _from_the_first_missing(
        self, key: bytes, text: str, looked_up: Iterator[tuple[bytes, str, FloatArray | None]]
    ) -> Iterator[tuple[bytes | None, Outcome]]:
        """Yield outcomes in order, new ones with their key, until too many found ones had to be held."""
        waiting: deque[tuple[bytes, FloatArray | None]] = deque([(key, None)])

        def missing() -> Iterator[str]:
            yield text
            held = 0
            for its_key, other, vector in looked_up:
                waiting.append((its_key, vector))
                if vector is None:
                    yield other
                elif (held := held + 1) == _HELD:
                    return

        def found() -> Iterator[tuple[None, Outcome]]:
            while waiting and (vector := waiting[0][1]) is not None:
                waiting.popleft()
                yield None, vector

        for outcome in self.embedder.embed_stream(missing()):
            yield from found()
            yield waiting.popleft()[0], outcome
            yield from found()
        yield from found()

    def _look_up(self, texts: Iterator[str]) -> Iterator[tuple[bytes, str, FloatArray | None]]:
        while some := list(islice(texts, _AT_ONCE)):
            keys = [self.key(text) for text in some]
            found = self._find(keys)
            for key, text in zip(keys, some, strict=True):
                vector = found.get(key)
                self._count(cached=vector is not None)
                yield key, text, vector

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        try:
            return {} if self._broken else self.file.find(keys, self.space.dimensions)
        except sqlite3.Error as error:
            self._give_up(error)
            return {}

    def _keep(self, vectors: Mapping[bytes, FloatArray]) -> None:
        try:
            if vectors and not self._broken:
                self.file.keep(vectors)
        except sqlite3.Error as error:
            self._give_up(error)

    def _count(self, *, cached: int = 0, **_others: int) -> None:
        with self._lock:
            self.usage.cached += cached  # the embedder behind it counts the others

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        logger.warning("the embedding cache %s is not used any more: %s", self.file.path, error)
