"""Options and fixtures of the whole test suite.

--backend chroma --backend qdrant    only these; one that cannot be had fails the run
--backend all                        every backend that can be had without a server from elsewhere
(nothing)                            every backend that this machine can start; the header names the rest
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.backends import BACKENDS, Backend, OpenStore
from tests.testing.mutants import MUTANTS, open_mutant

pytest.register_assert_rewrite("polyvec.testing")
pytest_plugins = ["polyvec.testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help=f"run the contract on this backend only (repeatable, or all): {', '.join(BACKENDS)}",
    )
    parser.addoption("--mutant", default=None, metavar="NAME", help="break the memory backend in one way")


def chosen(config: pytest.Config) -> list[Backend]:
    """Return the backends to run; a named one that cannot be had is a usage error."""
    named = [part for value in config.getoption("--backend") for part in value.split(",")]
    if not named:
        return [backend for backend in BACKENDS.values() if backend.missing is None]
    if "all" in named:
        named += [b.name for b in BACKENDS.values() if b.kind != "elsewhere" or b.missing is None]
    for name in named:
        if name != "all" and name not in BACKENDS:
            raise pytest.UsageError(f"there is no backend {name!r}; known are {', '.join(BACKENDS)} and all")
    backends = [backend for name, backend in BACKENDS.items() if name in named]
    for backend in backends:
        if backend.missing is not None:
            raise pytest.UsageError(f"--backend {backend.name}: {backend.missing}")
    return backends


def pytest_configure(config: pytest.Config) -> None:
    mutant = config.getoption("--mutant")
    if mutant is not None and (mutant not in MUTANTS or config.getoption("--backend") != ["memory"]):
        raise pytest.UsageError(f"--mutant {mutant}: needs --backend memory and one of {', '.join(MUTANTS)}")
    chosen(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.getoption("--mutant") is not None:
        return [f"mutant {config.getoption('--mutant')}"]
    running = chosen(config)
    lines = [f"backend {backend.name}: {backend.source}" for backend in running]
    return lines + [
        f"backend {backend.name}: NOT RUN: {backend.missing or 'not chosen'}"
        for backend in BACKENDS.values()
        if backend not in running
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        parameters = [
            pytest.param(
                backend, id=backend.name, marks=() if backend.name == "memory" else pytest.mark.server
            )
            for backend in chosen(metafunc.config)
        ]
        metafunc.parametrize("backend", parameters, scope="session", indirect=True)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what needs no server, then each backend in turn, then what is slow.

    With several workers (`-n`), all tests of a backend go to one of them, so that its engine is started once;
    so do the tests of a file, which share what they start.
    """
    items.sort(
        key=lambda item: (bool(item.get_closest_marker("slow")), bool(item.get_closest_marker("server")))
    )
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        group = parameters["backend"].name if "backend" in parameters else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend that the test runs on."""
    found: Backend = request.param
    return found


@pytest.fixture(scope="session")
def open_store(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[OpenStore]:
    """Open a new connection to the backend, whose engine runs as long as the tests need it."""
    mutant = pytestconfig.getoption("--mutant")
    if mutant is not None:
        yield lambda: open_mutant(mutant, "mutant")
        return
    data: Path = tmp_path_factory.mktemp(backend.name)
    with backend.running(data) as opener:
        with opener() as store:
            _VERSIONS[backend.name] = store.version
        yield opener


@pytest.fixture(scope="session")
def collections_ahead(backend: Backend) -> int:
    """How many collections are made ahead of need."""
    return backend.ahead


_VERSIONS: dict[str, str] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of `-n` saw."""
    _VERSIONS.update(getattr(node, "workeroutput", {}).get("versions", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["versions"] = _VERSIONS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, version in sorted(_VERSIONS.items()):
        terminalreporter.write_line(f"backend {name}: engine version {version}")
