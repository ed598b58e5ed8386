"""Trying again: how often, how long the pauses are, and when it ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from polyvec.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
)
from polyvec.retry import RetryPolicy


class Clock:
    """A clock that moves when somebody sleeps, or by `step` at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, jitter: float = 1.0, call_s: float = 0.0) -> None:
        self.now = 1000.0
        self.call_s = call_s
        self.sleeps: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) * jitter)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.sleeps.append(seconds)
        self.now += seconds

    def failing(self, *errors: Exception) -> Callable[[], str]:
        """A call that raises one error after the other and then answers."""
        rest = list(errors)

        def call() -> str:
            self.now += self.call_s
            if rest:
                raise rest.pop(0)
            return "answer"

        return call

    def run(self, policy: RetryPolicy, *errors: Exception) -> str:
        return policy.run(self.failing(*errors), self.sleep)


DOWN = BackendUnavailableError("down")


def test_without_an_error_it_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert clock.run(RetryPolicy()) == "answer"
    assert clock.sleeps == []


@pytest.mark.parametrize(("jitter", "expected"), [(1.0, [0.1, 0.2, 0.4]), (0.0, [0.05, 0.1, 0.2])])
def test_pauses_double(monkeypatch: pytest.MonkeyPatch, jitter: float, expected: list[float]) -> None:
    clock = Clock(monkeypatch, jitter)
    assert clock.run(RetryPolicy(), DOWN, BackendTimeoutError("slow"), RateLimitedError("x")) == "answer"
    assert clock.sleeps == pytest.approx(expected)


def test_pauses_have_an_upper_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    policy = RetryPolicy(attempts=8, first_delay_s=1, max_delay_s=3)
    assert clock.run(policy, *[DOWN] * 7) == "answer"
    assert clock.sleeps == [1, 2, 3, 3, 3, 3, 3]


def test_the_last_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    errors = [BackendUnavailableError(str(i)) for i in range(1, 6)]
    with pytest.raises(BackendUnavailableError, match="4") as caught:
        clock.run(RetryPolicy(), *errors)
    assert caught.value is errors[3]
    assert len(clock.sleeps) == 3


@pytest.mark.parametrize("error", [BackendError("x"), InvalidInputError("x"), ValueError("x")])
def test_other_errors_pass_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(type(error)):
        clock.run(RetryPolicy(), error)
    assert clock.sleeps == []


def test_a_single_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(BackendUnavailableError):
        clock.run(RetryPolicy(attempts=1), DOWN)
    assert clock.sleeps == []


def test_no_attempt_is_begun_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, call_s=4.0)
    policy = RetryPolicy(attempts=10, first_delay_s=1, budget_s=12)
    with pytest.raises(BackendUnavailableError):
        clock.run(policy, *[DOWN] * 9)
    # calls end at 4, 9 (= 4 + 1 + 4); 9 + 2 is within 12, its call ends at 15
    assert clock.sleeps == [1, 2]
    with pytest.raises(BackendUnavailableError):
        clock.run(replace(policy, budget_s=11), *[DOWN] * 9)
    assert clock.sleeps == [1, 2, 1], "the pause counts too"


def test_a_slow_call_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, call_s=30.0)
    with pytest.raises(BackendTimeoutError):
        clock.run(RetryPolicy(), BackendTimeoutError("slow"))
    assert clock.sleeps == []


@pytest.mark.parametrize(
    ("asked", "paused"), [(0.0, [0.0]), (2.5, [2.5]), (60.0, [60.0]), (-5.0, [0.0]), (None, [0.1])]
)
def test_retry_after(monkeypatch: pytest.MonkeyPatch, asked: float | None, paused: list[float]) -> None:
    clock = Clock(monkeypatch)
    assert clock.run(RetryPolicy(), RateLimitedError("slow", retry_after_s=asked)) == "answer"
    assert clock.sleeps == paused


def test_retry_after_is_honoured_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert clock.run(RetryPolicy(budget_s=1), RateLimitedError("slow", retry_after_s=50)) == "answer"
    assert clock.sleeps == [50]


def test_retry_after_counts_as_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(RateLimitedError):
        clock.run(RetryPolicy(attempts=3), *[RateLimitedError("slow", retry_after_s=1)] * 3)
    assert clock.sleeps == [1, 1]


@pytest.mark.parametrize("asked", [60.1, float("inf")])
def test_a_retry_after_that_is_too_long_ends_it(monkeypatch: pytest.MonkeyPatch, asked: float) -> None:
    clock = Clock(monkeypatch)
    result: list[Any] = []
    with pytest.raises(PolyvecError):
        result.append(clock.run(RetryPolicy(), RateLimitedError("slow", retry_after_s=asked)))
    assert clock.sleeps == []
