"""Services of docker-compose.yml for the tests: on free ports, and gone with the run, even a killed one."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from tests.servers.ports import COMPOSE_URLS
from tests.servers.process import ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
_PUBLISHED: Final = re.compile(r"\$\{(?P<variable>\w+):-(?P<port>\d+)\}:")
_START_S: Final = 600  # the image may have to be fetched
_STOP_S: Final = 30


@cache
def docker_answers() -> bool:
    """Return whether Docker Compose can be used; `POLYVEC_TEST_DOCKER=0` says that it must not be."""
    if os.environ.get("POLYVEC_TEST_DOCKER") == "0":
        return False
    try:
        commands = (["docker", "info"], ["docker", "compose", "version"])
        return all(subprocess.run(c, capture_output=True, check=False).returncode == 0 for c in commands)
    except OSError:
        return False


def published(service: str) -> tuple[dict[str, str], str]:
    """Return the variables that move a service to free ports, and its URL there."""
    url, variables = COMPOSE_URLS[service], {}
    for port in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["ports"]:
        if found := _PUBLISHED.search(port):
            variables[found["variable"]] = str(free_port())
            url = re.sub(rf"([:=]){found['port']}\b", rf"\g<1>{variables[found['variable']]}", url)
    return variables, url


@contextmanager
def start_service(service: str, log: Path) -> Iterator[str]:
    """Run a service and yield its URL.

    Args:
        service: A name in docker-compose.yml.
        log: File that gets what Docker and the service print.

    Raises:
        ServerStartError: It is not healthy after 10 minutes.
    """
    variables, url = published(service)
    project = f"polyvec-test-{uuid.uuid4().hex[:8]}"
    compose = ["docker", "compose", "--project-name", project, "--project-directory", str(ROOT)]

    def healthy() -> bool:
        asked = [*compose, "ps", "--format", "{{.Health}}", service]
        return subprocess.run(asked, capture_output=True, check=False).stdout.strip() == b"healthy"

    # in the foreground, where SIGTERM stops the containers: so they end with a run that is killed, too
    up = ServerProcess(
        [*compose, "up", "--no-color", service],
        env=variables,
        ready=healthy,
        timeout_s=_START_S,
        log=log,
        grace_s=_STOP_S,
    )
    try:
        with up:
            yield url
    finally:
        subprocess.run([*compose, "down", "--volumes"], capture_output=True, check=False)
