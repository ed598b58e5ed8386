"""Reading files: every kind, every way to name them, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from polyvec import Document, InvalidInputError, Pipeline, UnreadableDocument, read
from tests.pipeline.tools import WatchedEmbedder, new_collection


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def rows(*items: object) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def problems(documents: list[Document]) -> list[tuple[str, str]]:
    return [(item.source, str(item.error)) for item in documents if isinstance(item, UnreadableDocument)]


def sources(*patterns: str, **options: Any) -> list[str]:
    return [document.source for document in read(*patterns, **options)]


# Text and Markdown -------------------------------------------------------------------------------------


def test_text_files_are_one_document_each() -> None:
    write("a.txt", "Zeile\r\nüber 한국어\n")
    write("b.md", b"\xef\xbb\xbf# Title\n")
    write("c.MARKDOWN", "")
    assert list(read("a.txt", "b.md", "c.MARKDOWN")) == [
        Document("a.txt", "Zeile\r\nüber 한국어\n"),  # as it is, so that offsets fit the file
        Document("b.md", "# Title\n"),
        Document("c.MARKDOWN", ""),
    ]


def test_folders_globs_and_files_in_a_fixed_order_and_each_once() -> None:
    for name in ("docs/b.md", "docs/a.txt", "docs/sub/c.md", "docs/sub/.hidden/x.md", "docs/.y.md", "z.md"):
        write(name, "text")
    everything = ["docs/a.txt", "docs/b.md", "docs/sub/c.md"]
    assert sources("docs") == everything
    assert sources("./docs/") == everything
    assert sources("docs/**/*.md") == ["docs/b.md", "docs/sub/c.md"]
    assert sources("docs/sub/c.md", "docs", "docs/*.md", str(Path("docs/a.txt").absolute())) == [
        "docs/sub/c.md", "docs/a.txt", "docs/b.md",
    ]  # fmt: skip
    assert sources(Path("z.md")) == ["z.md"]  # type: ignore[arg-type]
    assert sources(str(Path("z.md").absolute())) == [Path("z.md").absolute().as_posix()]


def test_a_file_whose_name_looks_like_a_glob() -> None:
    write("notes[1].md", "text")
    assert sources("notes[1].md") == ["notes[1].md"]


def test_what_is_of_no_known_kind_is_skipped_and_told() -> None:
    write("docs/a.md", "text")
    write("docs/picture.png", "x")
    write("docs/README", "x")
    skipped: list[tuple[str, str]] = []
    on_skip = lambda path, reason: skipped.append((path.as_posix(), reason))  # noqa: E731
    assert sources("docs", on_skip=on_skip) == ["docs/a.md"]
    assert skipped == [
        ("docs/README", "unknown kind of file ''"),
        ("docs/picture.png", "unknown kind of file '.png'"),
    ]
    skipped.clear()
    assert sources("docs/*", on_skip=on_skip) == ["docs/a.md"]
    assert len(skipped) == 2


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        ((), "say what to read"),
        (("nowhere.md",), "nowhere.md: there is no such file or folder"),
        (("nowhere/*.md",), "nothing matches"),
        (("a.md", "picture.png"), r"picture.png: unknown kind of file '.png'; known are .txt, .md, "),
    ],
)
def test_a_wrong_name_is_an_error_at_once(patterns: tuple[str, ...], match: str) -> None:
    write("a.md", "text")
    write("picture.png", "x")
    with pytest.raises(InvalidInputError, match=match):
        read(*patterns)


def test_a_file_that_cannot_be_read_is_passed_on_as_such() -> None:
    write("docs/a.md", b"\xff")
    write("docs/b.md", "fine")
    Path("docs/c.md").symlink_to("nowhere")
    documents = list(read("docs"))
    assert [item.source for item in documents] == ["docs/a.md", "docs/b.md", "docs/c.md"]
    reason = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    assert problems(documents) == [
        ("docs/a.md", f"docs/a.md: cannot be read: {reason}"),
        ("docs/c.md", "docs/c.md: cannot be read: No such file or directory"),
    ]
    with pytest.raises(InvalidInputError, match="cannot be read"):
        _ = documents[0].text


def test_a_folder_that_cannot_be_listed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs/a.md", "text")
    write("docs/sub/b.md", "text")
    scandir = os.scandir

    def scan(path: str) -> Any:
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    documents = list(read("docs"))
    assert documents[0] == Document("docs/a.md", "text")
    assert problems(documents) == [("docs/sub", "docs/sub: cannot be read: Permission denied")]


# JSON lines --------------------------------------------------------------------------------------------


def test_jsonl() -> None:
    write(
        "rows.jsonl",
        "\ufeff"
        + rows(
            {"id": "a", "text": "one", "year": 2024, "nested": {"k": [1, None]}, "none": None},
            {"id": 7, "text": "두 번째", "empty": []},
        )
        + "\n  \r\n"
        + rows({"text": "no id"}, {"id": "", "text": "empty id"}, {"id": None, "text": "null id"}),
    )
    assert list(read("rows.jsonl")) == [
        Document("a", "one", {"year": 2024, "nested": {"k": [1, None]}, "none": None}),
        Document("7", "두 번째", {"empty": []}),
        Document("rows.jsonl#5", "no id"),
        Document("rows.jsonl#6", "empty id"),
        Document("rows.jsonl#7", "null id"),
    ]


def test_other_fields() -> None:
    write("rows.jsonl", rows({"key": "a", "body": "one", "text": "meta", "id": 5}))
    assert list(read("rows.jsonl", text_field="body", id_field="key")) == [
        Document("a", "one", {"text": "meta", "id": 5})
    ]


@pytest.mark.parametrize(
    ("line", "source", "reason"),
    [
        (b"{broken\n", "r.jsonl#1", "r.jsonl#1: Expecting property name"),
        (b'["a"]\n', "r.jsonl#1", "r.jsonl#1: expected an object, not ['a']"),
        (b'{"id": "x"}\n', "x", "r.jsonl#1: field 'text' is missing"),
        (b'{"id": "x", "text": null}\n', "x", "field 'text' is missing"),
        (b'{"id": "x", "text": 5}\n', "x", "field 'text' must be a str, not 5"),
        (b'{"id": true, "text": "t"}\n', "r.jsonl#1", "field 'id' must be a str or an int, not True"),
        (b'{"id": 1.5, "text": "t"}\n', "r.jsonl#1", "field 'id' must be a str or an int, not 1.5"),
        (b'{"id": ["x"], "text": "t"}\n', "r.jsonl#1", "field 'id' must be a str or an int, not ['x']"),
        (b'{"id": "x", "text": "\xff"}\n', "r.jsonl#1", "codec can't decode byte 0xff"),
        (b"[" * 100_000 + b"\n", "r.jsonl#1", "recursion"),
        (b'{"n": ' + b"9" * 5000 + b"}\n", "r.jsonl#1", "4300 digits"),
    ],
)
def test_a_bad_line_spoils_no_other(line: bytes, source: str, reason: str) -> None:
    write("r.jsonl", line + rows({"id": "good", "text": "fine"}).encode())
    documents = list(read("r.jsonl"))
    assert len(documents) == 2
    assert documents[1] == Document("good", "fine")
    [(found, message)] = problems(documents)
    assert found == source
    assert reason in message


# CSV ---------------------------------------------------------------------------------------------------


def test_csv() -> None:
    long = "x" * 200_000  # more than the module takes by itself
    write(
        "people.csv",
        "\ufeffid,text,year,score,active,born,note\r\n"
        'a,"one, ""two""\nthree",2024,1.5,yes,2024-05-01T12:00:00Z,\r\n'
        f",{long},,,,, \r\n",
    )
    types = {"year": int, "score": float, "active": bool, "born": datetime, "note": str}
    born = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert list(read("people.csv", types=types)) == [
        Document(
            "a",
            'one, "two"\nthree',
            {"year": 2024, "score": 1.5, "active": True, "born": born, "note": ""},
        ),
        Document(
            "people.csv#2", long, {"year": None, "score": None, "active": None, "born": None, "note": " "}
        ),
    ]
    assert next(read("people.csv")).metadata["year"] == "2024"


def test_types_of_jsonl_strings() -> None:
    write("r.jsonl", rows({"text": "t", "born": "2024-05-01T12:00:00+09:00", "n": 5, "m": "5"}))
    [document] = read("r.jsonl", types={"born": datetime, "n": int, "m": int})
    assert document.metadata == {"born": datetime.fromisoformat("2024-05-01T12:00:00+09:00"), "n": 5, "m": 5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,text,n\na,t,many\nb,t,1\n", [("a", "c.csv#1: field 'n' is no int: 'many'")]),
        ("id,text,n\na,t\nb,t,1\n", [("c.csv#1", "it has not as many fields as the header")]),
        ("id,text,n\na,t,1,2\nb,t,1\n", [("c.csv#1", "it has not as many fields as the header")]),
        (
            "id,texts\na,b\n",
            [("c.csv", "there is no column 'text' (did you mean 'texts'?); there are id, texts")],
        ),
        ("", [("c.csv", "there is no column 'text'; there are none")]),
        ('id,text,n\nb,t,1\na,"never closed', [("c.csv", "cannot be read: unexpected end of data")]),
        (b"id,text,n\nb,t,1\na,\xff,2\n", [("c.csv", "codec can't decode byte 0xff")]),
    ],
)
def test_wrong_csv(content: str | bytes, expected: list[tuple[str, str]]) -> None:
    write("c.csv", content)
    documents = list(read("c.csv", types={"n": int}))
    found = problems(documents)
    assert [source for source, _ in found] == [source for source, _ in expected]
    for (_, message), (_, part) in zip(found, expected, strict=True):
        assert part in message


def test_wrong_types() -> None:
    with pytest.raises(InvalidInputError, match=r"types\['n'\] must be int, float, bool, str or datetime"):
        read("x.csv", types={"n": list})


# Together with a pipeline ------------------------------------------------------------------------------


def test_a_pipeline_reports_what_could_not_be_read() -> None:
    write("docs/a.md", "Fine.")
    write("docs/b.md", b"\xff")
    write("docs/c.jsonl", rows({"id": "c", "text": "Fine, too."}) + "{broken\n" + rows({"id": "a"}))
    embedder = WatchedEmbedder()
    collection = new_collection(embedder)
    report = Pipeline(embedder, collection).ingest(read("docs"))
    assert [item.source for item in report.failures] == ["docs/b.md", "docs/c.jsonl#2", "a"]
    assert report.documents == 5
    assert sorted(record.id for record in collection.scan()) == ["c#0", "docs/a.md#0"]
    with pytest.raises(InvalidInputError, match=r"docs/b\.md: cannot be read"):
        Pipeline(embedder, collection).ingest(read("docs"), fail_fast=True)


def test_the_demo_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    documents = list(read("demo/corpus"))
    assert len(documents) == 480
    assert problems(documents) == []
    assert documents[0].source == "astronomy-en-01"
    assert set(documents[0].metadata) == {"topic", "lang", "year", "tags", "origin"}
