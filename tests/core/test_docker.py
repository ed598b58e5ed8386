"""Services of docker-compose.yml for the tests, with a script in place of Docker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.backends import Backend
from tests.servers.docker import docker_answers, published, start_service
from tests.servers.ports import COMPOSE_URLS

# writes down how it is called; healthy once it is up, until SIGTERM
DOCKER = """#!/bin/sh
echo "$@" >> "$DOCKER_CALLS"
case "$*" in
    info) exit "${DOCKER_INFO:-0}" ;;
    *" ps "*) cat "$DOCKER_CALLS.health" 2>/dev/null ;;
    *" up "*)
        trap 'echo stopped >> "$DOCKER_CALLS"; exit 0' TERM
        echo "port $POLYVEC_QDRANT_PORT, $POLYVEC_QDRANT_GRPC_PORT" >> "$DOCKER_CALLS"
        echo healthy > "$DOCKER_CALLS.health"
        while :; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What was asked of Docker, a line each."""
    program = tmp_path / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("POLYVEC_TEST_DOCKER", raising=False)
    docker_answers.cache_clear()
    yield tmp_path / "calls"
    docker_answers.cache_clear()


def test_it_is_used_where_it_answers(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Backend("qdrant-server", "elsewhere", "qdrant", service="qdrant")
    assert elsewhere.missing is None
    assert elsewhere.source == "docker compose up qdrant"
    assert Backend("chroma", "embedded", "chromadb").docker is False
    monkeypatch.setenv("DOCKER_INFO", "1")
    docker_answers.cache_clear()
    assert elsewhere.missing == "no package has its server; start Docker, or set POLYVEC_TEST_QDRANT_URL"


def test_it_is_left_alone_where_that_is_asked(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_TEST_DOCKER", "0")
    assert docker_answers() is False
    assert not calls.exists()


@pytest.mark.parametrize("service", COMPOSE_URLS)
def test_each_service_moves_to_free_ports(service: str) -> None:
    variables, url = published(service)
    assert variables
    assert all(port in url for port in variables.values())
    assert url != COMPOSE_URLS[service]


def test_a_service_runs_and_ends(calls: Path, tmp_path: Path) -> None:
    with start_service("qdrant", tmp_path / "log") as url:
        [up] = [line for line in calls.read_text().splitlines() if line.startswith("port ")]
        port, grpc_port = up.removeprefix("port ").split(", ")
        assert url == f"qdrant://127.0.0.1:{port}?grpc_port={grpc_port}"
        assert "stopped" not in calls.read_text()
    lines = calls.read_text().splitlines()
    assert "stopped" in lines
    assert lines[-1].endswith("down --volumes")
