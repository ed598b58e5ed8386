"""No secret is printed, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]

SECRET = "hunter2-s3cret"  # noqa: S105  # that is the point
COMMANDS = [("check",), ("check", "--json"), ("count", "--json"), ("describe",), ("collections", "--debug")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_of_a_url(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--store", f"qdrant://:{SECRET}@127.0.0.1:1?timeout_s=0.2", expect=1)
    assert "refused" in result.output
    assert SECRET not in result.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_of_the_configuration(run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    Path("polyvec.toml").write_text(
        '[stores.db]\nurl = "qdrant://127.0.0.1:1"\napi_key = "${DB_KEY}"\ntimeout_s = 0.2\n'
        '[defaults]\nstore = "db"\n',
        "utf-8",
    )
    assert "the environment variable DB_KEY is not set" in run(*command, expect=2).output
    monkeypatch.setenv("DB_KEY", SECRET)
    result = run(*command, expect=1)
    assert "refused" in result.output
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "url",
    [
        f"qdrant://:{SECRET}@127.0.0.1:1x",
        f"qdrant://:{SECRET}@127.0.0.1:99999",
        f"qdrant://user:{SECRET}@127.0.0.1:1?api_kye={SECRET}",
        f"qdrant://127.0.0.1:1?api_key={SECRET}&api_key=2",
        f"qdrant://127.0.0.1:1?api_key={SECRET}&x",
        f"qdrnt://:{SECRET}@127.0.0.1",
        f"qdrant://:a/{SECRET}@127.0.0.1:1",
        f"qdrant://:{SECRET}/b@127.0.0.1:1",
        f"qdrant://:12345/{SECRET}@127.0.0.1:1",
        f"qdrant://:a?{SECRET}@127.0.0.1:1",
        f"qdrant://:{SECRET}?a@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json", "--debug")], ids=["plain", "debug"])
def test_of_a_wrong_url(run: Run, url: str, flags: tuple[str, ...]) -> None:
    result = run("count", "--store", url, *flags, expect=2)
    assert result.stderr
    assert SECRET not in result.output


def test_of_a_store_that_is_described(run: Run, url: str) -> None:
    import polyvec

    polyvec.connect(url).create_collection("docs", 2)
    secretive = url.replace("memory://", f"memory://me:{SECRET}@") + f"?api_key={SECRET}"
    for command in (
        ("describe",),
        ("describe", "--json"),
        ("check",),
        ("check", "--json"),
        ("collections", "--json"),
    ):
        result = run(*command, "-s", secretive)
        assert "***" in result.output
        assert SECRET not in result.output
