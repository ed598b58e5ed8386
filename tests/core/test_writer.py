"""Sending batches: reports in order, as many under way as allowed, equal ids one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from polyvec import RecordBatch, WriteReport
from polyvec.writer import send_all


def batch(*ids: str) -> RecordBatch:
    return RecordBatch(list(ids), None)


def count(sent: RecordBatch) -> WriteReport:
    return WriteReport(len(sent))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_reports_are_in_order(workers: int) -> None:
    parts = [batch(*(f"{size}-{i}" for i in range(size))) for size in (3, 1, 4, 1, 5, 9, 2, 6)]
    assert [report.written for report in send_all(iter(parts), count, workers)] == [3, 1, 4, 1, 5, 9, 2, 6]
    assert list(send_all(iter([]), count, workers)) == []


def test_reports_are_in_order_even_if_a_later_batch_is_faster() -> None:
    done = threading.Event()

    def send(part: RecordBatch) -> WriteReport:
        if part.ids == ["slow"]:
            assert done.wait(10)
            return WriteReport(1)
        done.set()
        return WriteReport(2)

    assert [r.written for r in send_all(iter([batch("slow"), batch("fast")]), send, 2)] == [1, 2]


def test_one_worker_reads_and_sends_in_turn() -> None:
    log: list[str] = []

    def parts() -> Iterator[RecordBatch]:
        for id in "ab":
            log.append(f"read {id}")
            yield batch(id)

    def send(part: RecordBatch) -> WriteReport:
        log.append(f"send {part.ids[0]}")
        return WriteReport(1)

    list(send_all(parts(), send, 1))
    assert log == ["read a", "send a", "read b", "send b"]


def test_no_more_is_read_than_can_be_under_way() -> None:
    gate = threading.Event()
    read: list[str] = []
    full = threading.Event()

    def parts() -> Iterator[RecordBatch]:
        for i in range(10):
            read.append(str(i))
            if len(read) == 3:
                full.set()
            yield batch(str(i))

    def send(part: RecordBatch) -> WriteReport:
        assert gate.wait(10)
        return WriteReport(1)

    reports: list[WriteReport] = []
    thread = threading.Thread(target=lambda: reports.extend(send_all(parts(), send, 2)))
    thread.start()
    assert full.wait(10)
    assert read == ["0", "1", "2"], "two under way, and the next one in hand"
    gate.set()
    thread.join(10)
    assert len(reports) == 10


def test_a_batch_waits_for_those_that_share_an_id() -> None:
    log: list[str] = []
    lock = threading.Lock()
    release: dict[str, threading.Event] = {"a": threading.Event(), "b": threading.Event()}

    def send(part: RecordBatch) -> WriteReport:
        name = "+".join(part.ids)
        if name in release:
            assert release[name].wait(10)
        else:
            # its turn came only when both that share an id with it were done
            assert set(log) >= {"a", "b"}
        with lock:
            log.append(name)
        if name == "b":
            release["a"].set()
        return WriteReport(len(part))

    release["b"].set()
    reports = list(send_all(iter([batch("a"), batch("b"), batch("b", "a"), batch("c")]), send, 4))
    assert [report.written for report in reports] == [1, 1, 2, 1]
    assert log[:2] == ["b", "a"]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_after_those_under_way_have_ended(workers: int) -> None:
    ended: list[str] = []
    begun = threading.Barrier(workers, timeout=10)

    def send(part: RecordBatch) -> WriteReport:
        [id] = part.ids
        if int(id) < workers:
            begun.wait()
        if id == "0":
            raise RuntimeError("no")
        ended.append(id)
        return WriteReport(1)

    parts = [batch(str(i)) for i in range(20)]
    with pytest.raises(RuntimeError, match="no"):
        list(send_all(iter(parts), send, workers))
    assert sorted(ended)[: workers - 1] == [str(i) for i in range(1, workers)]
    assert len(ended) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_a_caller_may_stop_early(workers: int) -> None:
    sent: list[str] = []
    lock = threading.Lock()

    def send(part: RecordBatch) -> WriteReport:
        with lock:
            sent.extend(part.ids)
        return WriteReport(1)

    reports = send_all(iter([batch(str(i)) for i in range(10)]), send, workers)
    next(reports)
    close: Callable[[], None] = reports.close  # type: ignore[attr-defined]  # a generator, where workers > 1
    if workers > 1:
        close()
    assert len(sent) <= workers
