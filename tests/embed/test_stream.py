"""Texts without end: what every embedder's stream promises, and how OpenAI's fills its requests."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from polyvec import (
    AuthenticationError,
    BackendError,
    ConfigurationError,
    InvalidInputError,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
)
from polyvec.embed import Outcome
from polyvec.embed.flight import in_order
from polyvec.embed.hashing import HashEmbedder
from polyvec.embed.limits import RateGate, seconds
from polyvec.embed.openai import OpenAIEmbedder
from polyvec.retry import RetryPolicy
from tests.servers.openai import FakeOpenAI, Reply

CORPUS = Path(__file__).parents[2] / "demo" / "corpus"
Make = Callable[..., OpenAIEmbedder]


def vectors(outcomes: Iterator[Outcome]) -> np.ndarray[Any, Any]:
    return np.stack([outcome for outcome in outcomes if not isinstance(outcome, PolyvecError)])


def errors(outcomes: list[Outcome]) -> dict[int, str]:
    return {row: str(outcome) for row, outcome in enumerate(outcomes) if isinstance(outcome, PolyvecError)}


# Every embedder ----------------------------------------------------------------------------------------


class Picky(HashEmbedder):
    """Refuses a batch with a text that holds "bad", and all of them with `broken`."""

    def __init__(self, broken: PolyvecError | None = None) -> None:
        super().__init__(8)
        self.batch_size = 8
        self.broken = broken
        self.batches: list[int] = []

    def _do_embed(self, texts: list[str]) -> Any:
        self.batches.append(len(texts))
        if self.broken is not None:
            raise self.broken
        if any("bad" in text for text in texts):
            raise BackendError("a bad one")
        return super()._do_embed(texts)


def test_a_stream_is_the_same_as_documents() -> None:
    texts = [f"text {n}" for n in range(20)]
    embedder = Picky()
    np.testing.assert_array_equal(vectors(embedder.embed_stream(texts)), embedder.embed_documents(texts))
    assert embedder.batches == [8, 8, 4, 20]
    assert embedder.usage.texts == 40
    assert list(embedder.embed_stream([])) == []
    assert embedder.uncached(texts) == texts


def test_a_stream_is_read_as_it_is_needed() -> None:
    stream = Picky().embed_stream(f"text {n}" for n in itertools.count())
    assert len(list(itertools.islice(stream, 100))) == 100


def test_a_refused_text_costs_no_other_one_its_vector() -> None:
    texts = [f"text {n}" if n not in (3, 17) else f"bad {n}" for n in range(20)]
    embedder = Picky()
    outcomes = list(embedder.embed_stream(texts))
    assert errors(outcomes) == {3: "a bad one", 17: "a bad one"}
    expected = embedder.embed_documents([text for text in texts if "bad" not in text])
    np.testing.assert_array_equal(vectors(iter(outcomes)), expected)


def test_no_text_is_looked_for_where_all_are_refused() -> None:
    embedder = Picky(BackendError("broken"))
    with pytest.raises(BackendError, match="broken"):
        list(embedder.embed_stream(["a"] * 100))
    assert embedder.batches == [8, 1]
    embedder = Picky(ConfigurationError("no such model"))
    with pytest.raises(ConfigurationError):
        list(embedder.embed_stream(["a"] * 100))
    assert embedder.batches == [8]


def test_wrong_texts() -> None:
    with pytest.raises(InvalidInputError, match="not one str"):
        list(Picky().embed_stream("hello"))
    with pytest.raises(InvalidInputError, match="not int"):
        list(Picky().embed_stream(["a", 5]))  # type: ignore[list-item]


# Several calls at once ---------------------------------------------------------------------------------


def test_results_come_in_order_from_several_threads() -> None:
    everyone = threading.Barrier(3, timeout=10)

    def job(n: int) -> int:
        everyone.wait()
        return n

    jobs = [lambda n=n: job(n) for n in range(30)]
    assert list(in_order(jobs, 3, Event(), "test")) == list(range(30))


def test_few_are_begun_ahead_of_what_was_taken() -> None:
    begun = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal begun
        for n in itertools.count():
            begun += 1
            yield lambda n=n: n  # type: ignore[misc]

    results = in_order(jobs(), 4, Event(), "test")
    for n in range(50):
        assert next(results) == n
        assert begun <= n + 1 + 8 + 1
    results.close()  # type: ignore[attr-defined]


def test_the_first_error_ends_everything_at_once() -> None:
    stop, both = Event(), threading.Barrier(2, timeout=10)
    begun: list[int] = []

    def job(n: int) -> int:
        begun.append(n)
        both.wait()
        if n == 1:
            raise ValueError(n)
        assert stop.wait(10)  # as a request does that waits for its turn
        raise CancelledError

    with pytest.raises(ValueError, match="1"):
        list(in_order([lambda n=n: job(n) for n in range(9)], 2, stop, "test"))  # type: ignore[misc]
    assert sorted(begun) == [0, 1]


def test_no_job_is_begun_after_an_error() -> None:
    begun: list[int] = []
    more = Event()

    def job(n: int) -> int:
        begun.append(n)
        assert more.wait(10)
        raise ValueError(n)

    def jobs() -> Iterator[Callable[[], int]]:
        for n in range(9):
            yield lambda n=n: job(n)  # type: ignore[misc]
            if n == 1:  # it waits for the same thread, which would begin it before anybody could stop it
                more.set()

    for _ in range(20):
        begun.clear()
        more.clear()
        with pytest.raises(ValueError, match="0"):
            list(in_order(jobs(), 1, Event(), "test"))
        assert begun == [0]


def test_a_caller_that_stops_ends_everything() -> None:
    stop = Event()
    results = in_order([lambda n=n: n for n in range(100)], 2, stop, "test")  # type: ignore[misc]
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert stop.is_set()
    assert threading.active_count() == 1 or not [
        t for t in threading.enumerate() if t.name.startswith("test")
    ]


# OpenAI's requests -------------------------------------------------------------------------------------


def passages() -> list[str]:
    """Return the texts of the demonstration corpus: real ones, English and Korean, 30 to 150 tokens long."""
    files = sorted(CORPUS.glob("*.jsonl"))
    return [json.loads(line)["text"] for file in files for line in file.read_text("utf-8").splitlines()]


def test_requests_are_full_on_real_text(server: FakeOpenAI, make: Make) -> None:
    texts = passages()
    texts = [" ".join([*texts[n % 470 : n % 470 + 3], str(n)]) for n in range(6000)]
    list(make().embed_stream(iter(texts)))
    totals = sorted(sum(map(len, request["input"])) for request in server.requests)
    counts = [len(request["input"]) for request in server.requests]
    assert sum(counts) == len(texts)
    assert len(totals) >= 4
    assert totals[-1] <= 300_000
    assert max(counts) < 2048  # so that tokens are what fills them
    assert totals[1] >= 0.95 * 300_000  # all but the last one


def test_long_texts_fill_requests_too(server: FakeOpenAI, make: Make) -> None:
    texts = [f"word{n} " * 9000 for n in range(8)]  # each of which is cut into several inputs
    embedder = make(max_request_tokens=50_000)
    found = vectors(embedder.embed_stream(texts))
    totals = sorted(sum(map(len, request["input"])) for request in server.requests)
    assert totals[1] > 0.83 * 50_000  # one more piece of 8,191 tokens would not fit
    np.testing.assert_allclose(found, make().embed_documents(texts), atol=1e-6)


def test_one_refused_text_in_a_request(server: FakeOpenAI, make: Make) -> None:
    server.refused_text, server.wrong_text = "text 70", "text 71"
    texts = [f"text {n}" for n in range(100)]
    outcomes = list(make(max_items=50).embed_stream(texts))
    assert sorted(errors(outcomes)) == [70, 71]
    assert "this text is refused" in errors(outcomes)[70]
    assert "NaN" in errors(outcomes)[71]
    assert len(server.requests) < 25
    server.refused_text = server.wrong_text = None
    rest = [text for text in texts if text not in ("text 70", "text 71")]
    np.testing.assert_array_equal(vectors(iter(outcomes)), make().embed_documents(rest))


def test_a_server_that_refuses_everything_is_not_asked_for_each_text(server: FakeOpenAI, make: Make) -> None:
    server.refuse_all = True
    with pytest.raises(BackendError, match="no"):
        list(make(concurrency=1).embed_stream([f"text {n}" for n in range(100)]))
    assert len(server.requests) == 2


def test_a_wrong_answer_that_is_not_repeated_heals(server: FakeOpenAI, make: Make) -> None:
    server.replies = [Reply(change=lambda answer: answer["data"].pop())]
    texts = [f"text {n}" for n in range(10)]
    np.testing.assert_array_equal(vectors(make().embed_stream(texts)), make().embed_documents(texts))


def test_an_input_that_only_the_server_finds_too_long_is_cut(server: FakeOpenAI, make: Make) -> None:
    server.max_item_tokens = 20
    texts = ["short", "word " * 50, "also short"]
    found = vectors(make().embed_stream(texts))
    assert max(len(item) for request in server.requests[-8:] for item in request["input"]) <= 51
    server.max_item_tokens = 8191
    np.testing.assert_array_equal(found[[0, 2]], make().embed_documents(["short", "also short"]))
    assert abs(np.linalg.norm(found[1]) - 1) < 1e-6
    assert errors(list(make().embed_stream(texts))) == {}


def test_a_stream_that_is_not_finished_sends_little(server: FakeOpenAI, make: Make) -> None:
    stream = make(max_items=2, concurrency=2).embed_stream(f"text {n}" for n in itertools.count())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(server.requests) <= 6


def test_a_fatal_error_ends_a_stream(server: FakeOpenAI, make: Make) -> None:
    server.replies = [Reply(), Reply(429, "insufficient_quota")]
    stream = make(max_items=1, concurrency=1).embed_stream([f"text {n}" for n in range(50)])
    with pytest.raises(QuotaExceededError):
        list(stream)
    assert len(server.requests) <= 3
    server.replies = [Reply(401)]
    with pytest.raises(AuthenticationError):
        list(make().embed_stream(["a"]))


# Rate limits -------------------------------------------------------------------------------------------


def test_the_headers_keep_requests_from_being_refused(server: FakeOpenAI, make: Make) -> None:
    server.bucket, server.refill_s = 60, 0.2
    texts = [f"text {n}" for n in range(90)]  # some 270 tokens: the bucket is filled four times more
    embedder = make(max_items=5, concurrency=4, retry=RetryPolicy(attempts=1))
    embedder.embed_query("what the limits are")
    assert len(list(embedder.embed_stream(texts))) == 90
    assert server.refusals == 0


def test_a_request_larger_than_the_limit_is_halved(server: FakeOpenAI, make: Make) -> None:
    server.bucket = 40
    texts = [f"text {n}" for n in range(30)]
    assert len(list(make().embed_stream(texts))) == 30


def test_a_retry_after_beyond_what_the_sdk_accepts(
    server: FakeOpenAI, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("polyvec.embed.openai._pause", lambda stop, seconds: waits.append(seconds))
    server.replies = [Reply(429, None, {"retry-after": "300"})]
    embedder = make(retry=RetryPolicy(attempts=2, max_retry_after_s=600))
    embedder._gate = RateGate(lambda: sum(waits))  # a clock that only waiting moves
    assert embedder.embed_query("x").shape == (32,)
    assert 300 <= sum(waits) <= 302
    server.replies = [Reply(429, None, {"retry-after": "700"})]
    with pytest.raises(RateLimitedError) as caught:
        embedder.embed_query("x")
    assert caught.value.retry_after_s == 700
    assert embedder.embed_query("x").shape == (32,)  # which does not wait


def test_a_retry_after_holds_all_requests(server: FakeOpenAI, make: Make) -> None:
    server.replies = [Reply(429, None, {"retry-after": "300"})]
    embedder = make(retry=RetryPolicy(attempts=1, max_retry_after_s=600))
    with pytest.raises(RateLimitedError):
        embedder.embed_query("x")
    assert 200 < embedder._gate.enter(1) <= 300


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def headers(limit: int, left: int, reset: str, name: str = "tokens") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(limit),
        f"x-ratelimit-remaining-{name}": str(left),
        f"x-ratelimit-reset-{name}": reset,
    }


def test_the_gate_waits_until_the_bucket_has_enough() -> None:
    gate = RateGate(clock := Clock())
    assert gate.enter(1000) == 0  # nothing is known yet
    gate.leave(1000, headers(1000, 100, "9s"))  # 100 a second
    assert gate.enter(50) == 0
    assert gate.enter(250) == pytest.approx(2.0)
    clock.now += 2
    assert gate.enter(250) == 0
    assert gate.enter(5000) == pytest.approx(10.0)  # a full bucket has to do
    assert gate.enter(5000, anyway=True) == 0


def test_the_gate_counts_what_is_under_way() -> None:
    gate = RateGate(Clock())
    assert gate.enter(300) == gate.enter(600) == 0
    gate.leave(300, headers(1000, 700, "3s"))  # said before the other one was counted
    assert gate.enter(200) > 0
    assert gate.enter(90) == 0
    gate.leave(600, headers(1000, 700, "3s"))  # said before the last one came
    assert gate.enter(20) > 0
    gate.leave(90, headers(1000, 5, "9s"))  # somebody else uses the key, too
    assert gate.enter(10) > 0


def test_what_is_under_way_does_not_fill_again_before_it_is_counted() -> None:
    gate = RateGate(clock := Clock())
    gate.enter(1)
    gate.leave(1, headers(100, 90, "1s"))
    clock.now += 10
    assert gate.enter(60) == 0
    clock.now += 10  # for all we know the provider has not seen it yet, and its bucket is full, not fuller
    assert gate.enter(60) > 0
    gate.leave(60, headers(100, 40, "6s"))
    clock.now += 2
    assert gate.enter(60) == 0


def test_the_gate_knows_limits_of_requests() -> None:
    gate = RateGate(Clock())
    assert gate.enter(1) == 0
    gate.leave(1, headers(10, 0, "1m0s", "requests"))
    assert gate.enter(1) == pytest.approx(6.0)


@pytest.mark.parametrize("wrong", [headers(-1, -1, "0"), headers(10, 0, "soon"), headers(0, 0, "1s"), {}])
def test_the_gate_ignores_what_it_does_not_understand(wrong: dict[str, str]) -> None:
    gate = RateGate(Clock())
    gate.enter(1)
    gate.leave(1, wrong)
    assert gate.enter(10**6) == 0


def test_a_closed_gate_opens_by_itself() -> None:
    gate = RateGate(clock := Clock())
    gate.close(30)
    gate.close(20)
    assert gate.enter(1) == pytest.approx(30)
    clock.now += 30
    assert gate.enter(1) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7", 7.0), ("0", 0.0), ("1d", 86400.0),
        ("", None), ("soon", None), ("-1", None), ("5 s", None), ("nan", None),
    ],
)  # fmt: skip
def test_durations(text: str, expected: float | None) -> None:
    assert seconds(text) == (None if expected is None else pytest.approx(expected))
