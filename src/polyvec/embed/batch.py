"""OpenAI's Batch API: embeddings at half the price, within a day.

What comes back goes into the cache of an embedder, where the pipeline finds it: a batch is a way to fill the
cache. What was asked for is noted in the same file before it is sent, so a program may end at any time and
another one goes on; a text is never asked for twice.

Limits (https://developers.openai.com/api/docs/guides/batch and the docstring of
`openai.resources.batches.Batches.create`, openai 3.57): 50,000 requests and inputs, and 200 MB, a batch.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from typing import IO, TYPE_CHECKING, Any, Final

from polyvec.embed.base import Embedder, Outcome
from polyvec.embed.cache import CachedEmbedder
from polyvec.embed.openai import OpenAIEmbedder, combined
from polyvec.embed.packing import Piece
from polyvec.errors import BackendError, ConfigurationError, InvalidInputError, PolyvecError
from polyvec.tokenizer import repair
from polyvec.types import FloatArray

if TYPE_CHECKING:
    from openai.types import Batch

MAX_INPUTS: Final = 50_000
MAX_BYTES: Final = 200_000_000

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS batches (
        job TEXT PRIMARY KEY, space TEXT NOT NULL, file TEXT, batch TEXT, made REAL NOT NULL,
        texts INTEGER NOT NULL, tokens INTEGER NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS asked_for (key BLOB PRIMARY KEY, job TEXT NOT NULL)",
)
_METADATA: Final = "polyvec_job"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_AT_ONCE: Final = 500
_REASONS: Final = 5
_CLOCKS_DIFFER_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is.

    Attributes:
        id: OpenAI's.
        status: OpenAI's word: `validating`, `in_progress`, `finalizing`; `completed`, `failed`, `expired` or
            `cancelled` when it has ended.
        texts: Texts that were asked for.
        tokens: Their tokens.
        done: Inputs that OpenAI has done; once the batch has ended, texts whose vectors are in the cache.
        failed: Likewise those without one; they are asked for again by the next `submit`.
        reasons: Some of the reasons.
    """

    id: str
    status: str
    texts: int
    tokens: int
    done: int = 0
    failed: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in _ENDED


@dataclass(slots=True)
class _Draft:
    """A batch that is being written."""

    file: IO[bytes]
    keys: list[bytes] = field(default_factory=list)
    inputs: int = 0
    size: int = 0
    tokens: int = 0


class BatchJobs:
    """The batches of an embedder that has a cache. One program at a time should submit."""

    def __init__(
        self, embedder: Embedder, *, max_inputs: int = MAX_INPUTS, max_tokens: int | None = None
    ) -> None:
        """Look after the batches of an embedder.

        Args:
            embedder: As `polyvec.embedder("openai:...", cache="vectors.sqlite")` returns it.
            max_inputs: Most inputs of a batch.
            max_tokens: Most tokens of a batch; accounts may have so many under way only. None is no limit.

        Raises:
            ConfigurationError: The embedder is another one, or it has no cache.
        """
        if not isinstance(embedder, CachedEmbedder) or not isinstance(embedder.embedder, OpenAIEmbedder):
            raise ConfigurationError(
                "batches need an OpenAI model and a cache for what comes back; use "
                'polyvec.embedder("openai:MODEL", cache="vectors.sqlite")'
            )
        if embedder.embedder.azure:
            raise ConfigurationError("batches are sent to OpenAI only, not to Azure")
        if not 0 < max_inputs <= MAX_INPUTS or (max_tokens is not None and max_tokens < 1):
            raise InvalidInputError(f"max_inputs must be 1 to {MAX_INPUTS}, max_tokens at least 1")
        self._cache = embedder
        self._model = embedder.embedder
        self._max_inputs = max_inputs
        self._max_tokens = max_tokens
        self._space = json.dumps([str(embedder.space), embedder.variant])
        for statement in _SCHEMA:
            self._sql(statement)

    def submit(self, texts: Iterable[str]) -> list[BatchStatus]:
        """Ask for the vectors of texts that are neither in the cache nor asked for already.

        Args:
            texts: As they will be embedded, of any number; written to a temporary file, not kept in memory.

        Returns:
            The new batches.

        Raises:
            PolyvecError: OpenAI refuses or fails. What had been submitted stays so; call it again to go on.
        """
        return [self._send(draft) for draft in self._drafts(texts)]

    def poll(self) -> list[BatchStatus]:
        """Return how far the batches are; the vectors of those that have ended are put into the cache.

        A batch that has ended is reported once.
        """
        statuses = []
        rows = self._sql(
            "SELECT job, file, batch, made, texts, tokens FROM batches WHERE space = ? ORDER BY made",
            self._space,
        )
        for job, file, known, made, texts, tokens in rows:
            batch = self._found(job, file, known, made)
            if batch is None:
                self._forget(job)  # it was never begun: its texts are asked for by the next submit
                continue
            if batch.status in _ENDED:
                statuses.append(self._collect(batch, texts, tokens))
                self._forget(job)
            else:
                counts = batch.request_counts
                done, failed = (counts.completed, counts.failed) if counts else (0, 0)
                statuses.append(BatchStatus(batch.id, batch.status, texts, tokens, done, failed))
        return statuses

    # From texts to batches ---------------------------------------------------------------------------

    def _drafts(self, texts: Iterable[str]) -> Iterator[_Draft]:
        """Yield full batches, each in a file that is gone when the next one is asked for."""
        rest = self._requests(texts)
        request = next(rest, None)
        while request is not None:
            with tempfile.TemporaryFile() as file:
                draft = _Draft(file)
                while request is not None and self._fits(draft, request):
                    key, lines, tokens = request
                    file.writelines(lines)
                    draft.keys.append(key)
                    draft.inputs += len(lines)
                    draft.size += sum(map(len, lines))
                    draft.tokens += tokens
                    request = next(rest, None)
                yield draft

    def _fits(self, draft: _Draft, request: tuple[bytes, list[bytes], int]) -> bool:
        _, lines, tokens = request
        return not draft.keys or (
            draft.inputs + len(lines) <= self._max_inputs
            and draft.size + sum(map(len, lines)) <= MAX_BYTES
            and draft.tokens + tokens <= (self._max_tokens or float("inf"))
        )

    def _requests(self, texts: Iterable[str]) -> Iterator[tuple[bytes, list[bytes], int]]:
        """Yield for each text that is needed its key, the lines of its inputs, and its tokens."""
        for some in _windows(self._new(texts), _AT_ONCE):
            needed = set(self._cache.uncached(some))
            wanted = [text for text in some if text in needed]
            for row, pieces in groupby(self._model.pieces(wanted), key=lambda piece: piece.text):
                key = self._cache.key(wanted[row])
                yield key, *self._lines(key, list(pieces))

    def _new(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield each text once that is not asked for already."""
        seen: set[bytes] = {
            key
            for (key,) in self._sql(
                "SELECT key FROM asked_for WHERE job IN (SELECT job FROM batches WHERE space = ?)",
                self._space,
            )
        }
        for text in map(repair, texts):
            key = self._cache.key(text)
            if key not in seen:
                seen.add(key)
                yield text

    def _lines(self, key: bytes, pieces: list[Piece]) -> tuple[list[bytes], int]:
        lines = []
        for number, piece in enumerate(pieces):
            request = {
                "custom_id": f"{key.hex()}-{number}-{len(pieces)}-{piece.tokens}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": self._model.body(piece.content),
            }
            lines.append(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        return lines, sum(piece.tokens for piece in pieces)

    def _send(self, draft: _Draft) -> BatchStatus:
        job = uuid.uuid4().hex
        self._sql(
            "INSERT INTO batches VALUES (?, ?, NULL, NULL, ?, ?, ?)",
            job, self._space, time.time(), len(draft.keys), draft.tokens,
        )  # fmt: skip
        self._cache.file.execute_many(
            "INSERT INTO asked_for VALUES (?, ?)", [(key, job) for key in draft.keys]
        )
        try:
            file = self._model.call(lambda client: _upload(client, draft.file)).id
            self._sql("UPDATE batches SET file = ? WHERE job = ?", file, job)
        except PolyvecError:
            self._forget(job)
            raise
        batch = self._begin(job, file)
        return BatchStatus(batch.id, batch.status, len(draft.keys), draft.tokens)

    def _begin(self, job: str, file: str) -> Batch:
        """Begin a batch, and not twice if the answer is lost: then `poll` looks for it."""
        try:
            batch = self._model.call(
                lambda client: client.batches.create(
                    input_file_id=file,
                    endpoint="/v1/embeddings",
                    completion_window="24h",
                    metadata={_METADATA: job},
                ),
                again=False,
            )
        except PolyvecError as error:
            if not error.retryable:  # it was refused, so it has not begun
                self._forget(job)
            raise
        self._sql("UPDATE batches SET batch = ? WHERE job = ?", batch.id, job)
        return batch

    # From batches to vectors -------------------------------------------------------------------------

    def _found(self, job: str, file: str | None, known: str | None, made: float) -> Batch | None:
        """Return a batch; one whose id we never learned is looked for, and begun if it was not."""
        if known is not None:
            return self._model.call(lambda client: client.batches.retrieve(known))
        if file is None:
            return None
        for batch in self._model.call(lambda client: _recent(client, made - _CLOCKS_DIFFER_S)):
            if (batch.metadata or {}).get(_METADATA) == job:
                self._sql("UPDATE batches SET batch = ? WHERE job = ?", batch.id, job)
                return batch
        return self._begin(job, file)

    def _collect(self, batch: Batch, texts: int, tokens: int) -> BatchStatus:
        """Put the vectors of a batch that has ended into the cache; doing it again changes nothing."""
        reasons = [error.message or error.code or "" for error in (batch.errors and batch.errors.data) or ()]
        parts: dict[str, dict[int, tuple[int, Outcome]]] = {}
        ready: dict[bytes, FloatArray] = {}
        done = 0
        for line in self._results(batch):
            key, number, count, weight, outcome = self._read(line)
            if isinstance(outcome, PolyvecError):
                reasons.append(str(outcome))
            got = parts.setdefault(key, {})
            got[number] = (weight, outcome)
            if len(got) < count:
                continue
            whole = combined([got[part] for part in sorted(got)])
            del parts[key]
            if not isinstance(whole, PolyvecError):
                ready[bytes.fromhex(key)] = whole
                done += 1
            if len(ready) == _AT_ONCE:
                self._keep(ready)
                ready = {}
        self._keep(ready)
        unique = tuple(dict.fromkeys(reasons))[:_REASONS]
        return BatchStatus(batch.id, batch.status, texts, tokens, done, texts - done, unique)

    def _results(self, batch: Batch) -> Iterator[bytes]:
        """Yield what became of each input, in no order."""
        for name in (batch.output_file_id, batch.error_file_id):
            if name is not None:
                with tempfile.TemporaryFile() as file:
                    self._model.call(partial(_download, name=name, file=file))
                    file.seek(0)
                    yield from file

    def _keep(self, vectors: dict[bytes, FloatArray]) -> None:
        try:
            self._cache.file.keep(vectors)
        except sqlite3.Error as error:
            raise BackendError(f"the cache {self._cache.file.path}: {error}") from error

    def _read(self, line: bytes) -> tuple[str, int, int, int, Outcome]:
        """Return the key, the part, how many parts, the tokens and the outcome of an input."""
        answer = json.loads(line)
        key, number, count, weight = answer["custom_id"].split("-")
        response = answer.get("response") or {}
        outcome: Outcome
        try:
            if response.get("status_code") != 200:  # noqa: PLR2004
                raise BackendError(_reason(answer))
            outcome = self._model.vector_in(response.get("body"))
        except PolyvecError as error:
            outcome = error
        return key, int(number), int(count), int(weight), outcome

    def _forget(self, job: str) -> None:
        self._sql("DELETE FROM asked_for WHERE job = ?", job)
        self._sql("DELETE FROM batches WHERE job = ?", job)

    def _sql(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._cache.file.execute(statement, values)
        except sqlite3.Error as error:
            raise BackendError(f"the cache {self._cache.file.path}: {error}") from error


def _upload(client: Any, file: IO[bytes]) -> Any:
    file.seek(0)  # of what was written, or sent by an attempt before
    return client.files.create(file=("polyvec.jsonl", file), purpose="batch")


def _download(client: Any, name: str, file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()
    with client.files.with_streaming_response.content(name) as response:
        for data in response.iter_bytes():
            file.write(data)


def _recent(client: Any, since: float) -> list[Batch]:
    """Return the batches begun since then; the newest come first."""
    found: list[Batch] = []
    for batch in client.batches.list(limit=100):
        if batch.created_at < since:
            break
        found.append(batch)
    return found


def _reason(answer: dict[str, Any]) -> str:
    body = (answer.get("response") or {}).get("body") or {}
    error = answer.get("error") or body.get("error") or {}
    return str(error.get("message") or error.get("code") or "no reason was given")


def _windows(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while some := list(islice(texts, size)):
        yield some
