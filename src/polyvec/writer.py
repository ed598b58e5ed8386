"""Sending batches with bounded concurrency, so that equal ids of two batches keep their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from polyvec.types import RecordBatch, WriteReport


def send_all(
    batches: Iterator[RecordBatch], send: Callable[[RecordBatch], WriteReport], workers: int
) -> Iterator[WriteReport]:
    """Send batches and yield their reports in order, with at most `workers` batches under way.

    A batch that holds an id of a batch under way waits for it, so the last of equal ids wins. When the
    caller stops early no further batch is begun, and those under way are waited for.
    """
    if workers == 1:
        yield from map(send, batches)
        return
    under_way: deque[tuple[Future[WriteReport], frozenset[str]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="polyvec-write") as pool:
        for batch in batches:
            ids = frozenset(batch.ids)
            while under_way and (
                len(under_way) == workers or not all(ids.isdisjoint(other) for _, other in under_way)
            ):
                yield under_way.popleft()[0].result()
            under_way.append((pool.submit(send, batch), ids))
        while under_way:
            yield under_way.popleft()[0].result()
