"""collections, describe, drop, backends, and what all commands share: defaults and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import polyvec
from polyvec import registry
from polyvec.config import StoreConfig
from polyvec.registry import Adapter

Run = Callable[..., Result]
Document = Callable[[Result], Any]


def test_collections(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    polyvec.connect(url).create_collection("other", 3, "euclidean")
    out = run("collections", "-s", url).stdout
    assert out.splitlines()[-2].split() == ["docs", "3", "2", "cosine", "hash:test", "(2", "dimensions)"]
    assert out.splitlines()[-1].split() == ["other", "0", "3", "euclidean", "-"]
    found = document(run("collections", "-s", url, "--json"))
    assert (found["store"], found["backend"]) == (url, "memory")
    assert [(item["name"], item["count"], item["metric"]) for item in found["collections"]] == [
        ("docs", 3, "cosine"),
        ("other", 0, "euclidean"),
    ]


def test_no_collections(run: Run, url: str, document: Document) -> None:
    result = run("collections", "-s", url)
    assert (result.stdout, result.stderr) == ("", "no collections on memory\n")
    assert document(run("collections", "-s", url, "--json"))["collections"] == []


def test_describe(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    out = run("describe", "-s", url).stdout
    shown = dict(line.rstrip().split(maxsplit=1) for line in out.splitlines())
    assert (shown["records"], shown["dimension"], shown["metric"]) == ("3", "2", "cosine")
    assert shown["embedding"] == "hash:test (2 dimensions)"
    described = document(run("describe", "-s", url, "-n", "tenant", "--json"))
    assert described["backend"] == "memory"
    assert described["version"].startswith("numpy ")
    assert (described["namespace"], described["count"], described["store"]) == ("tenant", 1, url)
    assert described["collection"] == {
        "name": "docs",
        "dimension": 2,
        "metric": "cosine",
        "indexes": {},
        "index": None,
        "embedding": {"provider": "hash", "model": "test", "dimensions": 2},
        "format_version": 1,
    }


def test_drop(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    refused = run("drop", "docs", "-s", url, expect=2)
    assert "Drop 'docs' on memory with all its records and namespaces?" in refused.stderr
    assert polyvec.connect(url).list_collections() == ["docs"]
    assert document(run("drop", "docs", "-s", url, "--yes", "--json")) == {"dropped": "docs"}
    assert polyvec.connect(url).list_collections() == []
    missing = run("drop", "docs", "-s", url, "--yes", expect=3)
    assert missing.stderr == "error: memory: collection('docs'): there is no such collection\n"


class FakeConfig(StoreConfig):
    environment = {"api_key": "FAKEDB_API_KEY"}  # noqa: RUF012  # as adapters write it


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Adapter:
    """An adapter whose driver is not installed."""
    adapter = Adapter(
        name="fakedb",
        title="FakeDB",
        schemes=("fakedb",),
        capabilities=polyvec.Capabilities(
            exact_query=True,
            max_dimension=2048,
            reasons={"flat_index": "it has a graph only"},
            emulated={"replace": "deletes first"},
        ),
        config=FakeConfig,
        store="nowhere:Store",
        driver=("no_such_driver_module",),
        requires="polyvec[fakedb]",
        examples={"fakedb://host:1234": "a server"},
    )
    known: Mapping[str, Adapter] = {**registry.adapters(), "fakedb": adapter}
    monkeypatch.setattr("polyvec.cli.stores.adapters", lambda: known)
    monkeypatch.setattr("polyvec.registry.adapters", lambda: known)
    return adapter


def test_backends_lists_what_is_installed_and_how_to_install_the_rest(
    run: Run, fake: Adapter, document: Document
) -> None:
    out = run("backends").stdout
    assert 'FakeDB is not installed: pip install "polyvec[fakedb]"\n' in out
    assert "Memory is not installed" not in out
    for part in ("memory://name", "fakedb://host:1234", "2,048", "replace", "native_filters"):
        assert part in out
    found = {item["name"]: item for item in document(run("backends", "--json"))["backends"]}
    assert {"chroma", "fakedb", "memory", "qdrant"} <= found.keys()
    assert (found["fakedb"]["installed"], found["memory"]["installed"]) == (False, True)
    assert found["fakedb"]["install_command"] == 'pip install "polyvec[fakedb]"'
    assert found["fakedb"]["capabilities"]["reasons"] == {"flat_index": "it has a graph only"}


def test_backends_of_one_name_shows_reasons_and_options(run: Run, fake: Adapter, document: Document) -> None:
    out = run("backends", "fakedb").stdout
    for part in (
        "it has a graph only",
        "deletes first",
        "FAKEDB_API_KEY",
        "timeout_s",
        "30.0",
        "max_dimension",
    ):
        assert part in out
    [found] = document(run("backends", "fakedb", "--json"))["backends"]
    assert {
        "name": "api_key",
        "type": "str | None",
        "default": None,
        "environment": "FAKEDB_API_KEY",
    } in found["options"]
    unknown = run("backends", "fakedbs", expect=2)
    assert "there is no backend 'fakedbs' (did you mean 'fakedb'?)" in unknown.stderr


def test_a_missing_driver_says_how_to_install_it(run: Run, fake: Adapter, document: Document) -> None:
    result = run("count", "-s", "fakedb://host", "--json", expect=2)
    message = 'fakedb: the driver of FakeDB is not installed; run: pip install "polyvec[fakedb]"'
    assert result.stderr == f"error: {message}\n"
    assert document(result)["error"]["type"] == "MissingDriverError"
    assert document(result)["error"]["message"] == message


CONFIGURATION = """
[stores.mine]
url = "{url}"
[defaults]
store = "mine"
collection = "docs"
"""


def test_defaults_come_from_the_configuration(
    run: Run, url: str, docs: polyvec.Collection, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("polyvec.toml").write_text(CONFIGURATION.format(url=url), "utf-8")
    assert run("count").stdout == "3\n"
    assert document(run("describe", "--json"))["store"] == "mine"
    assert run("count", "--store", "mine", "--collection", "docs").stdout == "3\n"
    assert run("count", "--store", "memory://other", expect=3).stdout == ""
    monkeypatch.setenv("POLYVEC_STORE", "memory://other")
    assert run("count", expect=3).stdout == ""


@pytest.mark.parametrize("namespace", ["", "a/b"])
def test_a_wrong_namespace_is_refused(run: Run, url: str, docs: polyvec.Collection, namespace: str) -> None:
    assert "a namespace" in run("count", "-s", url, "-n", namespace, expect=2).stderr


ERRORS = {
    "no collection": (("count", "-c", "dosc"), 3, "CollectionNotFoundError"),
    "filter": (("count", "-f", "year >="), 2, "InvalidFilterError"),
    "scheme": (("count", "-s", "memroy://x"), 2, "ConfigurationError"),
    "option": (("count", "-s", "memory://x?timeuot_s=1"), 2, "ConfigurationError"),
    "store name": (("count", "-s", "unknown"), 2, "ConfigurationError"),
    "id": (("get", "x" * 513), 2, "InvalidInputError"),
}


@pytest.mark.parametrize(("arguments", "code", "kind"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_on_stderr_and_one_document_on_stdout(
    run: Run,
    url: str,
    docs: polyvec.Collection,
    document: Document,
    arguments: tuple[str, ...],
    code: int,
    kind: str,
) -> None:
    store = () if "-s" in arguments else ("-s", url)
    plain = run(*arguments, *store, expect=code)
    assert plain.stdout == ""
    assert plain.stderr.startswith("error: ")
    assert plain.stderr.count("\n") == 1
    result = run(*arguments, *store, "--json", expect=code)
    assert result.stderr == plain.stderr
    error = document(result)["error"]
    assert (error["type"], error["retryable"]) == (kind, False)
    assert plain.stderr == f"error: {error['message']}\n"
    assert "Traceback" in run(*arguments, *store, "--debug", expect=code).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuont",), "No such command 'cuont'. Did you mean 'count'?"),
        (("get",), "Missing argument 'ID'"),
        (("count", "--fliter", "x"), "No such option: --fliter"),
    ],
)
def test_usage_errors_are_one_line_too(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments, expect=2)
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_an_interrupted_command_says_how_to_go_on(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(target: str | None) -> polyvec.VectorStore:
        raise KeyboardInterrupt

    monkeypatch.setattr("polyvec.cli.common.connect", interrupted)
    result = run("count", "-s", url, expect=130)
    assert result.stderr == "interrupted; what was written stays: run the same command again to go on\n"


def test_a_bug_is_told_without_a_traceback(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, document: Document
) -> None:
    def broken(target: str | None) -> polyvec.VectorStore:
        raise RuntimeError("at redis://me:hush@host:1\nbroken")

    monkeypatch.setattr("polyvec.cli.common.connect", broken)
    result = run("count", "-s", url, "--json", expect=1)
    assert result.stderr == "error: RuntimeError: at redis://me:***@host:1 broken (--debug shows where)\n"
    assert document(result)["error"]["type"] == "RuntimeError"


def test_every_command_has_help_with_examples(run: Run) -> None:
    listed = run("--help").stdout.split("Commands:")[1].split("Exit codes:")[0]
    commands = [line.split()[0] for line in listed.strip().splitlines()]
    assert {
        "ingest",
        "search",
        "tokens",
        "batch",
        "get",
        "delete",
        "count",
        "collections",
        "describe",
        "drop",
        "backends",
        "check",
    } == set(commands)
    assert "..." not in listed  # each summary fits its line
    for command in commands:
        out = run(command, "--help").stdout
        assert f"Examples:\n    polyvec {command}" in out
        assert "--json" in out
    assert "130 interrupted" in " ".join(run("--help").stdout.split())


def test_version(run: Run) -> None:
    assert run("--version").stdout.split()[0] == "polyvec"
