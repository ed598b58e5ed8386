"""Several calls under way at once, their results in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def in_order(jobs: Iterable[Callable[[], T]], workers: int, stop: Event, name: str) -> Iterator[T]:
    """Yield what each job returns, in the order of the jobs, with `workers` of them under way.

    Jobs are read in the calling thread, up to twice `workers` ahead of what was yielded, so that a slow one
    does not keep the others waiting at once. A single job runs in the calling thread. When a job raises, its
    error is raised here at once, `stop` is set and no further job is begun; likewise when the caller closes
    the iterator. A job may end early with CancelledError when it finds `stop` set.
    """
    source = iter(jobs)
    first = list(islice(source, 2))
    if len(first) < 2:  # noqa: PLR2004  # one job is not worth a thread
        for job in first:
            yield job()
        return
    failures: list[BaseException] = []

    def guarded(job: Callable[[], T]) -> T:
        if stop.is_set():
            raise CancelledError
        try:
            return job()
        except BaseException as error:
            if not isinstance(error, CancelledError):
                failures.append(error)
            stop.set()
            raise

    def oldest() -> T:
        try:
            return pending.popleft().result()
        except CancelledError:
            raise failures[0] from failures[0].__cause__

    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, name) as pool:
        try:
            for job in chain(first, source):
                while pending and (len(pending) == 2 * workers or pending[0].done()):
                    yield oldest()
                pending.append(pool.submit(guarded, job))
            while pending:
                yield oldest()
        finally:  # also when the caller stops, or is interrupted
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
