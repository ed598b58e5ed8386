"""The commands that embed: ingest and search."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from polyvec.cli.common import (
    FAILED,
    CollectionOption,
    DebugOption,
    EmbedderOption,
    FilterOption,
    JsonOption,
    NamespaceOption,
    StoreOption,
    collection_name,
    console,
    examples,
    place,
    plain_metadata,
    print_json,
    print_lines,
    print_table,
    say,
    scoped,
    shortened,
    shown_metadata,
    store_label,
)
from polyvec.errors import CollectionNotFoundError, InvalidInputError, PolyvecError
from polyvec.registry import connect

if TYPE_CHECKING:
    from polyvec.embed import Embedder
    from polyvec.pipeline import Pipeline
    from polyvec.protocol import VectorStore
    from polyvec.readers import Document
    from polyvec.reports import IngestFailure, IngestPlan, IngestReport, OnProgress, Progress

app = typer.Typer()

TYPES: Final = {"int": int, "float": float, "bool": bool, "datetime": datetime}
SHOWN_FAILURES: Final = 20
SHOWN_TEXT: Final = 200
SECONDS_BETWEEN_LINES: Final = 2.0


@app.command(
    epilog=examples(
        "polyvec ingest handbook/ --store chroma:./data --collection handbook",
        "polyvec ingest 'notes/**/*.md' more.jsonl --chunk-tokens 300 --prune",
        "polyvec ingest people.csv --text-field bio --id-field email --type born=int --dry-run",
    )
)
def ingest(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Files, folders and globs: .txt .md .jsonl .csv")
    ],
    store: StoreOption = None,
    collection: CollectionOption = None,
    embedder: EmbedderOption = None,
    namespace: NamespaceOption = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", metavar="N", help="Most tokens of a chunk.  [default: 200]"),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        typer.Option("--overlap-tokens", metavar="N", help="Tokens that a chunk repeats.  [default: 20]"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Of a new collection: cosine, dot or euclidean."),
    ] = None,
    text_field: Annotated[
        str, typer.Option("--text-field", metavar="FIELD", help="Where .jsonl and .csv have the text.")
    ] = "text",
    id_field: Annotated[
        str, typer.Option("--id-field", metavar="FIELD", help="Where .jsonl and .csv have the id.")
    ] = "id",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="FIELD=TYPE", help="Read a field of a .csv as int, float, bool or datetime."
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what was ingested once and is not among PATHS any more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first document that fails.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Read files, chunk and embed them, and write them to a store.

    The collection is made if there is none. What is in it already is not embedded again, so a run that was
    interrupted can be run again, and running it twice changes nothing. The exit code is 1 if a document
    failed; the others are written.
    """
    from polyvec.embed import embedder as make_embedder
    from polyvec.reports import IngestReport

    documents = _Documents(paths, text_field, id_field, _types(types or []))
    sizes = {"chunk_tokens": chunk_tokens, "overlap_tokens": overlap_tokens}
    options: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    with connect(store) as connected, make_embedder(embedder) as model:
        make = _planned if dry_run else _opened
        pipeline = make(connected, collection_name(collection), model, options | {"metric": metric})
        if namespace is not None:
            pipeline = type(pipeline)(model, scoped(pipeline.collection, namespace), **options)
        result: IngestPlan | IngestReport
        with _progress(len(documents), quiet=quiet) as on_progress:
            if dry_run:
                result = pipeline.plan(documents, on_progress=on_progress, prune=prune)
            else:
                try:
                    result = pipeline.ingest(
                        documents, on_progress=on_progress, prune=prune, fail_fast=fail_fast
                    )
                except PolyvecError as error:
                    if isinstance(error.report, IngestReport):
                        say(f"stopped after {error.report.written} records; run it again to go on")
                    raise
        where = place(connected, pipeline.collection)
    if as_json:
        print_json(
            {
                "store": store_label(store),
                "collection": pipeline.collection.name,
                "namespace": namespace or "",
            }
            | {"embedding": str(model.space), "dry_run": dry_run}
            | _result(result)
        )
    else:
        say(f"{'would be done' if dry_run else 'done'} for {where}, embedded by {model.space}:")
        _print_result(result)
    if result.failures or result.prune_refused:
        raise typer.Exit(FAILED)


def _types(given: list[str]) -> dict[str, type]:
    types = {}
    for item in given:
        field, _, name = item.rpartition("=")
        if not field or name not in TYPES:
            raise InvalidInputError(f"--type wants FIELD={'|'.join(TYPES)}, not {item!r}")
        types[field] = TYPES[name]
    return types


class _Documents:
    """The documents of some paths; counted before they are read, so that the remaining time can be told."""

    def __init__(self, paths: list[str], text_field: str, id_field: str, types: Mapping[str, type]) -> None:
        self.paths = paths
        self.options: dict[str, Any] = {"text_field": text_field, "id_field": id_field, "types": types}
        self.length = sum(1 for _ in self._read())

    def _read(self, **options: Any) -> Iterator[Document]:
        from polyvec.readers import read

        return read(*self.paths, **self.options, **options)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Document]:
        return self._read(on_skip=_say_skipped)


def _say_skipped(path: Path, reason: str) -> None:
    say(f"skipped {path}: {reason}")


def _opened(store: VectorStore, name: str, embedder: Embedder, options: Mapping[str, Any]) -> Pipeline:
    from polyvec.pipeline import Pipeline

    return Pipeline.open(store, name, embedder, **options)


def _planned(store: VectorStore, name: str, embedder: Embedder, options: Mapping[str, Any]) -> Pipeline:
    """Open a pipeline for a dry run: into an empty collection in memory where there is none."""
    from polyvec.pipeline import Pipeline

    try:
        collection = store.collection(name)
    except CollectionNotFoundError:
        return Pipeline.open(connect("memory://"), name, embedder, **options)
    return Pipeline(embedder, collection, **{key: options[key] for key in options if key != "metric"})


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[OnProgress | None]:
    """Show progress: a bar on a terminal, else a line now and then."""
    screen = console(stderr=True)
    if quiet:
        yield None
    elif screen.is_terminal:
        from rich import progress as bars

        columns = (
            bars.BarColumn(),
            bars.TextColumn("{task.completed:.0f}/{task.total:.0f} documents"),
            bars.TextColumn("{task.fields[rate]:.0f} chunks/s"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("left"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task("", total=total, rate=0.0)

            def advance(state: Progress) -> None:
                bar.update(task, completed=state.documents, rate=state.rate)

            yield advance
    else:
        yield _Lines().show


class _Lines:
    """Progress in lines, at most one in two seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def show(self, state: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES
        line = f"{state.documents}/{state.total} documents, {state.rate:.0f} chunks/s"
        if state.documents and state.total:
            left = state.elapsed_s / state.documents * (state.total - state.documents)
            line += f", {left:.0f} s left"
        say(line)


def _result(result: IngestPlan | IngestReport) -> dict[str, Any]:
    values = {item.name: getattr(result, item.name) for item in dataclasses.fields(result)}
    return values | {"failures": [_failure(failure) for failure in result.failures]}


def _failure(failure: IngestFailure) -> dict[str, str]:
    return {"source": failure.source, "type": type(failure.error).__name__, "reason": failure.reason}


def _print_result(result: IngestPlan | IngestReport) -> None:
    values = _result(result)
    removed = values["deleted"] + values["pruned"]
    shown: dict[str, object] = {
        "documents": values["documents"],
        "chunks": values["chunks"],
        "embedded": f"{values['embedded']} ({values['tokens']} tokens)",
        "reused": values["reused"],
        "skipped": values["skipped"],
        "removed": removed,
        "failed": len(result.failures),
    }
    if "elapsed_s" in values:
        shown["seconds"] = f"{values['elapsed_s']:.1f}"
    print_lines(shown)
    if result.prune_refused:
        say(f"nothing was pruned: {result.prune_refused}")
    if result.failures:
        rows = [(failure.source, failure.reason) for failure in result.failures]
        print_table(("failed", "reason"), rows[:SHOWN_FAILURES])
        if len(rows) > SHOWN_FAILURES:
            say(f"and {len(rows) - SHOWN_FAILURES} more; --json lists them all")


@app.command(
    epilog=examples(
        'polyvec search "who approves travel?"',
        'polyvec search "출장은 누가 승인하나요?" --filter \'year >= 2020 and lang in ["ko","en"]\'',
        'polyvec search "how to brew coffee" --store qdrant://localhost --limit 20 --min-score 0.3 --json',
    )
)
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    store: StoreOption = None,
    collection: CollectionOption = None,
    embedder: EmbedderOption = None,
    namespace: NamespaceOption = None,
    filter: FilterOption = None,
    limit: Annotated[int, typer.Option("--limit", "-l", metavar="N", help="Most matches to show.")] = 5,
    offset: Annotated[int, typer.Option("--offset", metavar="N", help="Skip so many of the best.")] = 0,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="X", help="Only matches of at least this score.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts and all metadata.")] = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Find the passages nearest in meaning to a text.

    The score is the metric's own and higher is better: under cosine 1 is the same direction.
    """
    from polyvec.embed import embedder as make_embedder
    from polyvec.pipeline import Pipeline

    with connect(store) as connected:
        docs = scoped(connected.collection(collection_name(collection)), namespace)
        with make_embedder(embedder) as model:
            matches = Pipeline(model, docs).search(
                text, limit=limit, filter=filter, min_score=min_score, offset=offset
            )
    if as_json:
        found = [
            {
                "rank": rank,
                "score": match.score,
                "id": match.id,
                "text": match.text,
                "metadata": plain_metadata(match.metadata),
            }
            for rank, match in enumerate(matches, offset + 1)
        ]
        print_json(
            {"store": store_label(store), "collection": docs.name, "namespace": docs.namespace}
            | {"embedding": str(model.space), "query": text, "filter": filter, "matches": found}
        )
    elif not matches:
        say("no matches")
    else:
        print_table(
            ("", "score", "id", "text", "metadata"),
            [
                (
                    rank,
                    f"{match.score:.4f}",
                    match.id,
                    (match.text or "") if full else shortened(match.text or "", SHOWN_TEXT),
                    shown_metadata(match.metadata, everything=full),
                )
                for rank, match in enumerate(matches, offset + 1)
            ],
            right=("", "score"),
            ruled=True,
        )
