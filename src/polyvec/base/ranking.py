"""The order of matches: by score, then by id, and whole ties."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from polyvec.base.hooks import Hits
from polyvec.types import (
    Match,
)

T = TypeVar("T")


MOST_TIES: Final = 1000
"""A query fetches up to this many more matches to find all that tie with the last one."""


def cut_within_tie(scores: npt.NDArray[np.float64], wanted: int, fetched: int) -> bool:
    """Return whether the hit after the last wanted one, and all that were fetched beyond, tie with it."""
    if len(scores) < fetched or wanted >= fetched:
        return False
    ordered = np.sort(scores)[::-1]
    return bool(ordered[wanted - 1] == ordered[-1])


def ranked(hits: Hits) -> list[Match]:
    """Return the hits as matches, scores descending, equal scores by id."""
    records = hits.records
    scores = hits.scores.tolist()
    order = sorted(range(len(records)), key=lambda row: (-scores[row], records.ids[row]))
    return [
        Match(
            records.ids[row],
            scores[row],
            records.texts[row] if records.texts is not None else None,
            dict(records.metadatas[row]) if records.metadatas is not None else {},
            records.vectors[row] if records.vectors is not None else None,
        )
        for row in order
    ]
