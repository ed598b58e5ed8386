"""A real process, a database on disk, and SIGKILL in the middle of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import polyvec
from polyvec import Document, Pipeline, Progress
from polyvec.embed.hashing import HashEmbedder
from tests.pipeline.test_kill import AFTER, BEFORE
from tests.pipeline.tools import State, state

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")]


def many(documents: list[Document]) -> list[Document]:
    return [Document(f"{d.source}-{n}", d.text, d.metadata) for n in range(12) for d in documents]


def run(url: str, documents: list[Document]) -> State:
    """Ingest, saying after each step how far it is, and return what the collection holds."""
    embedder = HashEmbedder(16)
    embedder.batch_size = 8

    def show(progress: Progress) -> None:
        print(progress.documents, flush=True)  # noqa: T201  # read by the test

    with polyvec.connect(url) as store:
        pipeline = Pipeline.open(store, "docs", embedder, chunk_tokens=32, overlap_tokens=0)
        pipeline.ingest(many(documents), prune=True, on_progress=show)
        return state(pipeline.collection)


def assert_same(found: State, expected: State) -> None:
    """Compare all, the vectors as exactly as a database has to keep them."""
    assert {id: row[:2] for id, row in found.items()} == {id: row[:2] for id, row in expected.items()}
    for id, (_, _, vector) in expected.items():
        got = np.frombuffer(found[id][2], np.float32)
        np.testing.assert_allclose(got, np.frombuffer(vector, np.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [1, 6, 12, 18])
def test_killed_and_run_again(step: int, tmp_path: Path) -> None:
    pytest.importorskip("chromadb")
    expected = run("memory://", AFTER)
    url = f"chroma:{tmp_path / 'data'}"
    assert_same(run(url, BEFORE), run("memory://", BEFORE))
    code = f"from tests.pipeline.test_sigkill import *; run({url!r}, AFTER)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(step):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert_same(run(url, AFTER), expected)
