"""The SQLite store: records, their tokens and their numbers in three tables of one file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from polyvec import metadata, scores, spec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.errors import (
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    PolyvecError,
)
from polyvec.filters import Filter
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import CollectionSpec, FloatArray, Metadata, RecordBatch
from polyvec_sqlite.filters import to_native

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS collections (name TEXT PRIMARY KEY, spec TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL REFERENCES collections ON DELETE CASCADE,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    vector BLOB NOT NULL,
    text TEXT,
    metadata TEXT NOT NULL,
    UNIQUE (collection, namespace, id)
);
CREATE TABLE IF NOT EXISTS tokens (
    token TEXT NOT NULL, record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (token, record)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (
    field TEXT NOT NULL, value NOT NULL, record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (field, value, record)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tokens_of_record ON tokens (record);
CREATE INDEX IF NOT EXISTS numbers_of_record ON numbers (record);
"""


class SqliteStore(BaseVectorStore):
    """Collections in one SQLite file."""

    @property
    def native(self) -> sqlite3.Connection:
        """The connection; not to be used while another thread uses the store."""
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread; commit at the end, or roll back."""
        with self._lock, self._connection:
            yield self._connection

    def _do_connect(self) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            self.config.url.path, timeout=self.config.timeout_s, check_same_thread=False
        )
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(SCHEMA)

    def _do_version(self) -> str:
        return sqlite3.sqlite_version

    def _do_create(self, spec_: CollectionSpec) -> None:
        with self.transaction() as db:
            try:
                db.execute("INSERT INTO collections VALUES (?, ?)", (spec_.name, spec.to_json(spec_)))
            except sqlite3.IntegrityError:
                raise CollectionExistsError("it exists already") from None

    def _do_open(self, name: str) -> CollectionSpec | None:
        with self.transaction() as db:
            row = db.execute("SELECT spec FROM collections WHERE name = ?", (name,)).fetchone()
        return None if row is None else spec.from_json(row[0])

    def _do_list(self) -> list[str]:
        with self.transaction() as db:
            return [name for (name,) in db.execute("SELECT name FROM collections")]

    def _do_drop(self, name: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM collections WHERE name = ?", (name,))

    def _do_close(self) -> None:
        self._connection.close()

    def _collection(self, spec: CollectionSpec) -> SqliteCollection:
        return SqliteCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        if isinstance(error, sqlite3.OperationalError):  # locked by another process, or no such directory
            return BackendUnavailableError(str(error))
        return None


class SqliteCollection(BaseCollection):
    """One namespace of a collection."""

    store: SqliteStore

    @contextmanager
    def _records(self) -> Iterator[sqlite3.Connection]:
        with self.store.transaction() as db:
            if db.execute("SELECT 1 FROM collections WHERE name = ?", (self.name,)).fetchone() is None:
                raise CollectionNotFoundError("it was dropped")
            yield db

    def _where(self, filter: Filter | None = None, ids: Sequence[str] | None = None) -> tuple[str, list[Any]]:
        sql, values = to_native(filter)
        if ids is not None:
            sql, values = f"id IN ({', '.join('?' * len(ids))})", list(ids)
        return f"collection = ? AND namespace = ? AND {sql}", [self.name, self.namespace, *values]

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        assert batch.vectors is not None
        assert batch.texts is not None
        assert batch.metadatas is not None
        where, values = self._where(ids=batch.ids)
        with self._records() as db:
            db.execute(f"DELETE FROM records WHERE {where}", values)
            for id, vector, text, data in zip(
                batch.ids, batch.vectors, batch.texts, batch.metadatas, strict=True
            ):
                row = (self.name, self.namespace, id, vector.tobytes(), text, metadata.encode(data))
                done = db.execute("INSERT INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
                self._describe(db, done.lastrowid, data)

    def _describe(self, db: sqlite3.Connection, key: int | None, data: Metadata) -> None:
        db.executemany("INSERT INTO tokens VALUES (?, ?)", ((token, key) for token in record_tokens(data)))
        numbers = record_companions(data).items()
        db.executemany(
            "INSERT INTO numbers VALUES (?, ?, ?)", ((field, value, key) for field, value in numbers)
        )

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        where, values = self._where(ids=ids)
        with self._records() as db:
            return self._batch(
                db.execute(f"SELECT {_columns(fields)} FROM records WHERE {where}", values), fields
            )

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        where, values = self._where(filter)
        with self._records() as db:
            rows = db.execute(f"SELECT key, vector FROM records WHERE {where}", values).fetchall()
            if not rows:
                return [Hits(self._batch([], fields), np.empty(0)) for _ in vectors]
            stored = np.frombuffer(b"".join(vector for _, vector in rows), np.float32)
            found = scores.exact(self.spec.metric, vectors, stored.reshape(len(rows), -1))
            hits = []
            for line in found:
                best = np.argsort(-line, kind="stable")[:limit]
                keys = [rows[row][0] for row in best]
                hits.append(Hits(self._by_keys(db, keys, fields), line[best]))
            return hits

    def _by_keys(self, db: sqlite3.Connection, keys: list[int], fields: Fields) -> RecordBatch:
        sql = f"SELECT key, {_columns(fields)} FROM records WHERE key IN ({', '.join('?' * len(keys))})"
        found = {row[0]: row[1:] for row in db.execute(sql, keys)}
        return self._batch((found[key] for key in keys), fields)

    def _do_count(self, filter: Filter | None) -> int:
        where, values = self._where(filter)
        with self._records() as db:
            return int(db.execute(f"SELECT count(*) FROM records WHERE {where}", values).fetchone()[0])

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        where, values = self._where(filter)
        sql = f"SELECT key, {_columns(fields)} FROM records WHERE {where} AND key > ? ORDER BY key LIMIT ?"
        with self._records() as db:
            rows = db.execute(sql, [*values, cursor or 0, limit]).fetchall()
        return self._batch((row[1:] for row in rows), fields), rows[-1][0] if len(rows) == limit else None

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        with self._records() as db:
            for id, data in zip(ids, metadatas, strict=True):
                where, values = self._where(ids=[id])
                sql = f"UPDATE records SET metadata = ? WHERE {where} RETURNING key"
                for (key,) in db.execute(sql, [metadata.encode(data), *values]).fetchall():
                    for table in ("tokens", "numbers"):
                        db.execute(f"DELETE FROM {table} WHERE record = ?", (key,))
                    self._describe(db, key, data)

    def _do_delete(self, ids: list[str]) -> None:
        where, values = self._where(ids=ids)
        with self._records() as db:
            db.execute(f"DELETE FROM records WHERE {where}", values)

    def _do_delete_where(self, filter: Filter | None) -> None:
        where, values = self._where(filter)
        with self._records() as db:
            db.execute(f"DELETE FROM records WHERE {where}", values)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        where, values = self._where(filter)
        sql = f"SELECT key, vector FROM records WHERE {where}"
        return (sql, values), ("The vectors of these records are compared in this process.",)

    def _batch(self, rows: Any, fields: Fields) -> RecordBatch:
        found = list(rows)
        vectors = b"".join(row[1] for row in found) if fields.vectors else b""
        return RecordBatch(
            [row[0] for row in found],
            np.frombuffer(vectors, np.float32).reshape(-1, self.spec.dimension) if fields.vectors else None,
            [row[2] for row in found] if fields.text else None,
            [metadata.decode(row[3]) for row in found] if fields.metadata else None,
        )


def _columns(fields: Fields) -> str:
    wanted = zip(("vector", "text", "metadata"), fields, strict=True)
    return ", ".join(["id", *(name if asked else "NULL" for name, asked in wanted)])
