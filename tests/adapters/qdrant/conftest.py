from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.qdrant.engine import Engine
from tests.adapters.qdrant.servers import FACES, Server, rest


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Qdrant's engine in this process."""
    found = Engine(tmp_path)
    yield found
    found.close()


@pytest.fixture(params=FACES)
def server(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Server]:
    """A stand-in for a server, over REST and then over gRPC."""
    with FACES[request.param](engine) as face:
        yield face


@pytest.fixture
def rest_server(engine: Engine) -> Iterator[Server]:
    """A stand-in for a server, over REST."""
    with rest(engine) as face:
        yield face
