"""The contract over REST and gRPC, against Qdrant's engine in this process instead of a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyvec
from polyvec.testing.contract import *  # noqa: F403  # the tests are what is imported
from polyvec.testing.plugin import OpenStore
from tests.adapters.qdrant.engine import Engine
from tests.adapters.qdrant.servers import FACES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", params=FACES)
def open_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenStore]:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    with FACES[request.param](engine) as face:
        yield lambda: polyvec.connect(face.url)
    engine.close()
