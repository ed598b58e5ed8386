"""Trying again: only what is retryable, with jittered back-off, within the timeout of the call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from polyvec.errors import PolyvecError, RateLimitedError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is made again.

    Attributes:
        attempts: Most calls in all.
        first_delay_s: Longest pause before the second call; it doubles from call to call.
        max_delay_s: Longest pause that polyvec chooses.
        budget_s: No call is begun later than this after the first.
        max_retry_after_s: A server's `Retry-After` is honoured up to this, also beyond the budget.
    """

    attempts: int = 4
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    budget_s: float = 30.0
    max_retry_after_s: float = 60.0

    def run(self, call: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
        """Return what `call` returns, calling it again while its PolyvecError is retryable."""
        started = time.monotonic()
        for attempt in range(1, self.attempts + 1):
            try:
                return call()
            except PolyvecError as error:
                pause = self._pause(error, attempt, time.monotonic() - started)
                if pause is None:
                    raise
                sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pause(self, error: PolyvecError, attempt: int, elapsed_s: float) -> float | None:
        """Return how long to wait before the next attempt; None if there is none."""
        if not error.retryable or attempt == self.attempts:
            return None
        if isinstance(error, RateLimitedError) and error.retry_after_s is not None:
            pause = max(0.0, error.retry_after_s)  # the moment that a server names may be past
            return pause if pause <= self.max_retry_after_s else None
        longest = min(self.max_delay_s, self.first_delay_s * 2 ** (attempt - 1))
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        return pause if elapsed_s + pause < self.budget_s else None
