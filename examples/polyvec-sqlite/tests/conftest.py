import pytest

import polyvec

pytest_plugins = ["polyvec.testing.plugin"]


@pytest.fixture(scope="session")
def open_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sqlite") / "test.db"
    return lambda: polyvec.connect(f"sqlite:{path}")
