"""What a provider's headers say about its rate limits, obeyed before it has to refuse.

They are `x-ratelimit-limit-tokens`, `-remaining-tokens` and `-reset-tokens`, and the same of requests: what a
full bucket holds, what is left in it, and in how long it is full again ("6m0s", "20ms"); see
https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers. Azure says -1 where it does not
know (https://github.com/openai/openai-dotnet/issues/838), and other servers say nothing: then only a refusal
tells.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_MINUTE: Final = 60.0
_TELLING: Final = 0.05
"""The part of a bucket that must be missing for the time until it is full to tell how fast it fills."""


@dataclass(slots=True)
class _Bucket:
    """What is left of a limit that refills steadily; nothing is known before the first answer.

    Attributes:
        limit: What a full one holds; 0 as long as nothing is known.
        left: What was left at `at`.
        per_s: How fast it fills.
        at: When.
        under_way: The cost of the requests that were not answered yet.
    """

    limit: float = 0.0
    left: float = 0.0
    per_s: float = 0.0
    at: float = 0.0
    under_way: float = 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """Return in how many seconds `cost` is there; a larger one than the limit needs a full bucket."""
        if not self.limit:
            return 0.0
        self.fill(now)
        return max(0.0, (min(cost, self.limit) - self.left) / self.per_s)

    def spend(self, cost: float) -> None:
        """Note that a request is sent."""
        self.left -= cost
        self.under_way += cost

    def fill(self, now: float) -> None:
        """Add what has come since the last time."""
        # the provider may have a full bucket until it counts what is under way, so that does not fill again
        full = self.limit - self.under_way
        self.left, self.at = min(full, self.left + self.per_s * (now - self.at)), now

    def learn(self, limit: float, left: float, reset_s: float, now: float) -> None:
        """Take over what an answer says, of a request that is not under way any more."""
        if reset_s and limit - left > _TELLING * limit:
            self.per_s = (limit - left) / reset_s
        elif not self.per_s:
            self.per_s = limit / _MINUTE
        known, self.limit = bool(self.limit), limit
        if known:
            # answers overtake each other, so an old one may know of more than is left; our own account, which
            # counts all that we sent, does not know what others use
            self.fill(now)
            self.left = min(left, self.left)
        else:
            self.left, self.at = left - self.under_way, now  # which may not be counted yet


class RateGate:
    """Lets requests pass as fast as the provider's headers allow; one for all threads of an embedder."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets = {"requests": _Bucket(), "tokens": _Bucket()}
        self._closed_until = 0.0

    def enter(self, tokens: int, *, anyway: bool = False) -> float:
        """Return 0.0 if a request may be sent now, and count it; else after how many seconds to ask again."""
        costs = {"requests": 1, "tokens": tokens}
        with self._lock:
            now = self._clock()
            waits = [bucket.wait_s(costs[name], now) for name, bucket in self._buckets.items()]
            wait = max(self._closed_until - now, *waits)
            if wait > 0 and not anyway:
                return wait
            for name, cost in costs.items():
                self._buckets[name].spend(cost)
            return 0.0

    def leave(self, tokens: int, headers: Mapping[str, str] | None = None) -> None:
        """Note that a request is over, and what its answer's headers say."""
        with self._lock:
            self._buckets["requests"].under_way -= 1
            self._buckets["tokens"].under_way -= tokens
            for name in self._buckets:
                self._learn(name, headers or {})

    def close(self, seconds: float) -> None:
        """Let nothing pass for so long."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _learn(self, name: str, headers: Mapping[str, str]) -> None:
        limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
        left = _number(headers.get(f"x-ratelimit-remaining-{name}"))
        reset_s = seconds(headers.get(f"x-ratelimit-reset-{name}", ""))
        if limit and left is not None and reset_s is not None and left <= limit:
            self._buckets[name].learn(limit, left, reset_s, self._clock())


def limit_of(headers: Mapping[str, str]) -> float | None:
    """Return how many tokens a request can have at most before every one is refused."""
    return _number(headers.get("x-ratelimit-limit-tokens"))


def seconds(text: str) -> float | None:
    """Return a duration as OpenAI writes it, e.g. "6m0s", "1h2m3.5s", "20ms", or a number of seconds."""
    if (number := _number(text)) is not None:
        return number
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[dhms])", text)
    if not parts or "".join(map("".join, parts)) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    """Return a number that is not negative, else None."""
    return float(text) if text is not None and re.fullmatch(r"\d{1,15}(\.\d+)?", text) else None
