"""`polyvec check`: can the store be reached, may it be written, does it answer right."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Final, TypeVar

import numpy as np

from polyvec import scores
from polyvec.cli.common import plain_metadata
from polyvec.config import redact
from polyvec.errors import ConfigurationError, PolyvecError
from polyvec.filter_text import parse
from polyvec.filters import matches
from polyvec.protocol import Collection, VectorStore
from polyvec.registry import connect
from polyvec.types import Record

T = TypeVar("T")

PREFIX: Final = "polyvec_check_"
SCORE_TOLERANCE: Final = 1e-3
VECTOR_TOLERANCE: Final = 1e-5

HOSTILE: Final = "\"quotes\" 'and' \\ } ] $ * / ; -- \n\t\x00\x01 한국어 é 😀 "
QUERY: Final = (1.0, 0.5, 0.25, -0.25)
RECORDS: Final = (
    Record("plain", (1.0, 0.0, 0.0, 0.0), "text", {"year": 2024, "lang": "en", "tags": ["a", "b"]}),
    Record("older", (0.6, 0.8, 0.0, 0.0), "another", {"year": 2019.5, "lang": "ko", "tags": ["b"]}),
    Record("bare", (0.0, 3.0, 4.0, 0.0)),
    Record(
        HOSTILE.replace("\x00", ""),
        (-0.1, 0.2, -0.3, 0.4),
        HOSTILE.replace("\x00", ""),
        {
            HOSTILE: HOSTILE,
            "year": 2**53 + 1,
            "lang": " en",
            "tags": [],
            "flag": True,
            "none": None,
            "minus zero": -0.0,
            "one": 1.0,
            "at": datetime(2024, 5, 1, 12, 0, 0, 1, timezone(timedelta(hours=9))),
            "tagged": {"$datetime": "is text"},
            "nested": {"list": [1, 1.0, True, None, {"": datetime(1, 1, 1, tzinfo=UTC)}], "empty": {}},
        },
    ),
)  # fmt: skip
FILTERS: Final = (
    "year >= 2020",
    "year < 2020",
    'lang = "en"',
    'lang != "en"',
    'not lang in ["ko", "fr"]',
    'tags contains "b"',
    "not tags exists",
    "flag = true or year = 2024",
    'at >= datetime("2024-05-01T03:00:00Z")',
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a check.

    Attributes:
        name: What was tried.
        ok: Whether it went well.
        seconds: How long it took.
        detail: What was found; the error if it is not ok.
    """

    name: str
    ok: bool
    seconds: float
    detail: str


class WrongAnswer(Exception):  # noqa: N818  # not an error of the store's, but a finding about it
    """The store answered, but not what it must."""


def expect(what: str, got: object, expected: object) -> None:
    """Raise WrongAnswer if the two differ."""
    if got != expected:
        raise WrongAnswer(f"{what}: expected {expected!r:.300}, got {got!r:.300}")


def check(target: str | None, *, write: bool, report: Callable[[Step], None]) -> bool:
    """Try a store step by step and return whether all went well.

    Args:
        target: As in `polyvec.connect`.
        write: Also create a collection of its own, check its answers, and drop it.
        report: Is called after each step.

    Raises:
        ConfigurationError: It is not known which store is meant.
    """
    run = _Run(report)
    if (store := run.step("connect", lambda: connect(target), lambda store: store.name)) is None:
        return False
    with store:
        run.step("version", lambda: store.version)
        run.step("collections", store.list_collections, lambda names: ", ".join(names) or "none")
        if write:
            _check_answers(run, store)
    return run.ok


class _Run:
    """The steps so far."""

    def __init__(self, report: Callable[[Step], None]) -> None:
        self.report = report
        self.ok = True

    def step(self, name: str, call: Callable[[], T], show: Callable[[T], str] = str) -> T | None:
        """Make a call, report how it went, and return its answer; None if it failed."""
        started = time.perf_counter()
        answer: T | None = None
        try:
            answer = call()
            ok, detail = True, show(answer)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # every failure is a finding
            ours = isinstance(error, PolyvecError | WrongAnswer)
            ok, detail = False, redact(str(error) if ours else repr(error))
        self.ok &= ok
        self.report(Step(name, ok, time.perf_counter() - started, detail))
        return answer


def _check_answers(run: _Run, store: VectorStore) -> None:
    """Check the answers of a collection that is made for it, and dropped also when this is interrupted."""
    name = PREFIX + secrets.token_hex(6)
    try:
        docs = run.step("create", lambda: store.create_collection(name, 4, "cosine"), lambda _: name)
        if docs is None or run.step("write", partial(_write, docs)) is None:
            return
        for title, test in ANSWERS.items():
            run.step(title, partial(test, docs))
    finally:
        run.step("drop", lambda: store.drop_collection(name, missing_ok=True), lambda _: name)


def _write(docs: Collection) -> str:
    return f"{docs.upsert(RECORDS).written} records"


def _round_trip(docs: Collection) -> str:
    for wrote, read in zip(RECORDS, docs.get([record.id for record in RECORDS]), strict=True):
        if read is None or read.vector is None:
            raise WrongAnswer(f"the record {wrote.id!r} or its vector is missing")
        expect(f"the text of {wrote.id!r}", read.text, wrote.text)
        expect(f"the metadata of {wrote.id!r}", _canonical(read), _canonical(wrote))
        if not np.allclose(read.vector, wrote.vector, rtol=VECTOR_TOLERANCE, atol=0):  # type: ignore[arg-type]
            raise WrongAnswer(f"the vector of {wrote.id!r}: expected {wrote.vector}, got {read.vector}")
    expect("a record that was never written", docs.get(["never"]), [None])
    return "texts, metadata and vectors as written"


def _canonical(record: Record) -> str:
    """Return metadata as JSON, which tells 1, 1.0 and True apart."""
    return json.dumps(plain_metadata(record.metadata), sort_keys=True)


def _scores(docs: Collection) -> str:
    vectors = np.array([record.vector for record in RECORDS], np.float32)
    exact = scores.exact("cosine", [QUERY], vectors)[0]
    best = np.argsort(-exact)
    found = docs.query(QUERY, limit=len(RECORDS) + 1)
    expect("the order", [match.id for match in found], [RECORDS[row].id for row in best])
    wrong = float(np.max(np.abs(np.array([match.score for match in found]) - exact[best])))
    if wrong > SCORE_TOLERANCE:
        raise WrongAnswer(f"a score is wrong by {wrong}")
    return f"right to {SCORE_TOLERANCE}"


def _filters(docs: Collection) -> str:
    for text in FILTERS:
        filter = parse(text)
        expected = sorted(record.id for record in RECORDS if matches(filter, record.metadata))
        found = docs.query(QUERY, limit=len(RECORDS), filter=filter)
        expect(f"query with {text}", sorted(match.id for match in found), expected)
        expect(f"count with {text}", docs.count(filter), len(expected))
    return f"{len(FILTERS)} right"


def _counts(docs: Collection) -> str:
    expect("count", docs.count(), len(RECORDS))
    expect("scan", sorted(record.id for record in docs.scan()), sorted(record.id for record in RECORDS))
    return f"{len(RECORDS)} counted and scanned"


def _namespaces(docs: Collection) -> str:
    other = docs.scoped("check")
    expect("count in a new namespace", other.count(), 0)
    other.upsert(Record("plain", (0.0, 0.0, 0.0, 1.0), "elsewhere"))
    expect("count in the namespace", other.count(), 1)
    expect("count outside it", docs.count(), len(RECORDS))
    expect(
        "texts of the id outside and within",
        [_text(docs, "plain"), _text(other, "plain")],
        ["text", "elsewhere"],
    )
    other.clear()
    expect("counts after clearing it", [other.count(), docs.count()], [0, len(RECORDS)])
    return "kept apart"


def _text(docs: Collection, id: str) -> str | None:
    [record] = docs.get([id])
    return None if record is None else record.text


def _changes(docs: Collection) -> str:
    docs.upsert(Record("plain", (0.0, 1.0, 0.0, 0.0), None, {"new": 1}))
    [record] = docs.get(["plain"])
    expect("a replaced record", record, Record("plain", (0.0, 1.0, 0.0, 0.0), None, {"new": 1}))
    docs.update_metadata(["plain"], set={"newer": True}, unset=["new"])
    [record] = docs.get(["plain"])
    expect("updated metadata", record and record.metadata, {"newer": True})
    docs.delete(["plain", "never"])
    docs.delete(filter='lang = "ko"')
    expect(
        "ids after deleting two", sorted(record.id for record in docs.scan()), sorted([RECORDS[3].id, "bare"])
    )
    return "replace, update and delete"


ANSWERS: Final[dict[str, Callable[[Collection], str]]] = {
    "round trip": _round_trip,
    "scores": _scores,
    "filters": _filters,
    "counts": _counts,
    "namespaces": _namespaces,
    "changes": _changes,
}
