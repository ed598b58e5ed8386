"""get, count and delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

import polyvec

Run = Callable[..., Result]
Document = Callable[[Result], Any]


def test_get_shows_records(run: Run, url: str, docs: polyvec.Collection) -> None:
    result = run("get", "a", "b", "-s", url)
    for part in ("first text", "year: 2020", "lang: en", "두 번째 글", "2024-05-01T00:00:00+00:00"):
        assert part in result.stdout
    assert "reserved" not in result.stdout
    assert "vector" not in result.stdout
    assert result.stderr == ""


def test_get_as_json_is_the_whole_record(
    run: Run, url: str, docs: polyvec.Collection, document: Document
) -> None:
    result = run("get", "a", "c", "-s", url, "--vectors", "--json")
    assert document(result) == {
        "records": [
            {
                "id": "a",
                "text": "first text",
                "metadata": {
                    "year": 2020,
                    "lang": "en",
                    "at": {"$datetime": "2024-05-01T00:00:00+00:00"},
                    "nested": {"tags": ["x", 1, 1.0, True, None]},
                    "_hash": "reserved",
                },
                "vector": [1.0, 0.0],
            },
            {"id": "c", "text": None, "metadata": {}, "vector": [1.0, 1.0]},
        ],
        "missing": [],
    }
    assert "두 번째 글" in run("get", "b", "-s", url, "--json").stdout  # not escaped
    assert "vector" not in run("get", "b", "-s", url, "--json").stdout


def test_get_says_what_is_missing(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    result = run("get", "b", "none", "-s", url, "--json", expect=3)
    assert [record["id"] for record in document(result)["records"]] == ["b"]
    assert document(result)["missing"] == ["none"]
    assert result.stderr == "not found: none\n"


def test_get_shows_control_characters_instead_of_sending_them(
    run: Run, url: str, docs: polyvec.Collection
) -> None:
    docs.upsert(
        polyvec.Record("esc", [1, 0], "\x1b[31mred [bold]not bold[/bold] :smile:", {"k\x07": "\x1b]0;title"})
    )
    out = run("get", "esc", "-s", url).stdout
    assert "\x1b" not in out
    assert "\x07" not in out
    assert r"\x1b[31mred [bold]not bold[/bold] :smile:" in out
    assert r"k\x07: \x1b]0;title" in out


def test_count(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    assert run("count", "-s", url).stdout == "3\n"
    assert run("count", "-s", url, "-f", 'year >= 2020 and lang in ["ko","en"]').stdout == "2\n"
    assert run("count", "-s", url, "-n", "tenant").stdout == "1\n"
    assert document(run("count", "-s", url, "--filter", "not year exists", "--json")) == {"count": 1}


def left(docs: polyvec.Collection) -> list[str]:
    return sorted(record.id for record in docs.scan())


def test_delete_by_id(run: Run, url: str, docs: polyvec.Collection) -> None:
    result = run("delete", "a", "a", "none", "-s", url, "--yes")
    assert (result.stdout, result.stderr) == ("", "deleted 1 record of 'docs' on memory\n")
    assert left(docs) == ["b", "c"]
    assert (
        run("delete", "none", "-s", url).stderr == "deleted 0 records of 'docs' on memory\n"
    )  # nothing to ask


def test_delete_by_filter(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    result = run("delete", "-f", "year >= 2024", "-s", url, "--yes", "--json")
    assert document(result) == {"deleted": 1, "matching": 1, "dry_run": False}
    assert left(docs) == ["a", "c"]


def test_delete_all_stays_in_the_namespace(run: Run, url: str, docs: polyvec.Collection) -> None:
    result = run("delete", "--all", "-s", url, "-n", "tenant", "-y")
    assert result.stderr == "deleted 1 record of 'docs' on memory, namespace 'tenant'\n"
    assert (left(docs), left(docs.scoped("tenant"))) == (["a", "b", "c"], [])
    run("delete", "--all", "-s", url, "-y")
    assert left(docs) == []


def test_a_dry_run_deletes_nothing(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    assert (
        run("delete", "--all", "-s", url, "--dry-run").stderr
        == "would delete 3 records of 'docs' on memory\n"
    )
    result = run("delete", "a", "c", "-s", url, "--dry-run", "--json")
    assert document(result) == {"deleted": 0, "matching": 2, "dry_run": True}
    assert left(docs) == ["a", "b", "c"]


def test_without_a_terminal_deleting_needs_yes(run: Run, url: str, docs: polyvec.Collection) -> None:
    result = run("delete", "--all", "-s", url, input="y\n", expect=2)
    assert result.stderr == (
        "error: Delete 3 records of 'docs' on memory? Nobody can be asked here: pass --yes if that is meant\n"
    )
    assert left(docs) == ["a", "b", "c"]


@pytest.mark.parametrize(("answer", "code", "remaining"), [("y", 0, []), ("n", 1, ["a", "b", "c"])])
def test_on_a_terminal_deleting_asks(
    run: Run,
    url: str,
    docs: polyvec.Collection,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    remaining: list[str],
) -> None:
    monkeypatch.setattr("polyvec.cli.common.on_terminal", lambda: True)
    result = run("delete", "--all", "-s", url, input=answer + "\n", expect=code)
    assert "Delete 3 records of 'docs' on memory? [y/N]" in result.stderr
    assert left(docs) == remaining


@pytest.mark.parametrize(
    "what", [[], ["a", "--all"], ["a", "--filter", "year = 1"], ["--all", "--filter", "year = 1"]], ids=str
)
def test_delete_wants_exactly_one_of_ids_filter_and_all(
    run: Run, url: str, docs: polyvec.Collection, what: list[str]
) -> None:
    result = run("delete", *what, "-s", url, "--yes", expect=2)
    assert result.stderr == "error: say what to delete: either ids, or --filter, or --all\n"
    assert left(docs) == ["a", "b", "c"]


def test_deleting_by_a_filter_that_holds_for_all_is_refused(
    run: Run, url: str, docs: polyvec.Collection
) -> None:
    result = run("delete", "-f", "not year in []", "-s", url, "--yes", expect=2)
    assert "this filter holds for every record" in result.stderr
    assert left(docs) == ["a", "b", "c"]
