"""Random programs, a few of them in every run."""

from __future__ import annotations

from polyvec.protocol import VectorStore
from polyvec.testing.programs import play


class TestPrograms:
    """Random programs give the same answers as the memory store; see `polyvec.testing.programs`."""

    def test_random_programs(self, store: VectorStore) -> None:
        played, steps = play(store, 40, seed=1)
        assert played >= 30
        assert steps >= 100
