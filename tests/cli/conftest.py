"""The command line, run in this process against a memory store of the test's own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import polyvec
from polyvec import Record
from polyvec.cli.app import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A working directory without configuration, and a terminal of a known width."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("POLYVEC_STORE", "POLYVEC_CONFIG", "QDRANT_API_KEY", "CHROMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    def run(*arguments: str, expect: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=input)
        assert result.exit_code == expect, (result.stdout, result.stderr, result.exception)
        return result

    return run


@pytest.fixture
def url() -> str:
    return f"memory://cli-{uuid.uuid4().hex}"


@pytest.fixture
def docs(url: str) -> polyvec.Collection:
    docs = polyvec.connect(url).create_collection(
        "docs", 2, embedding=polyvec.EmbeddingSpace("hash", "test", 2)
    )
    docs.upsert(
        [
            Record(
                "a",
                [1, 0],
                "first text",
                {
                    "year": 2020,
                    "lang": "en",
                    "at": datetime(2024, 5, 1, tzinfo=UTC),
                    "nested": {"tags": ["x", 1, 1.0, True, None]},
                    "_hash": "reserved",
                },
            ),
            Record("b", [0, 1], "두 번째 글", {"year": 2024, "lang": "ko"}),
            Record("c", [1, 1]),
        ]
    )
    docs.scoped("tenant").upsert(Record("a", [3, 4], "elsewhere"))
    return docs


def document(result: Result) -> Any:
    """Return the one JSON document that stdout must be."""
    return json.loads(result.stdout)


@pytest.fixture(name="document")
def document_fixture() -> Callable[[Result], Any]:
    return document
