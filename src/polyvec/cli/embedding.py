"""The commands about embedding itself: tokens and batch."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from polyvec.cli.common import (
    FAILED,
    DebugOption,
    EmbedderOption,
    JsonOption,
    examples,
    print_json,
    print_table,
    say,
)
from polyvec.errors import PolyvecError

if TYPE_CHECKING:
    from polyvec.embed.batch import BatchStatus

app = typer.Typer()

STDIN: Final = "-"
SECONDS_BETWEEN_POLLS: Final = 60.0

TextFieldOption = Annotated[
    str, typer.Option("--text-field", metavar="FIELD", help="Where .jsonl and .csv have the text.")
]
IdFieldOption = Annotated[
    str, typer.Option("--id-field", metavar="FIELD", help="Where .jsonl and .csv have the id.")
]


@app.command(
    epilog=examples(
        "polyvec tokens handbook/", "polyvec tokens notes.md --json", "cat notes.md | polyvec tokens -"
    )
)
def tokens(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders and globs: .txt .md .jsonl .csv; - is stdin."),
    ],
    text_field: TextFieldOption = "text",
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Count the tokens of documents, and what they would cost.

    They are counted as OpenAI's embedding models count them (cl100k_base), without a network. Chunks
    that overlap have more tokens than their document: `polyvec ingest --dry-run` counts those.
    """
    from polyvec import tokenizer
    from polyvec.embed import prices

    rows: list[dict[str, Any]] = []
    failed = 0
    for path in paths:
        row: dict[str, Any] = {"path": path, "documents": 0, "characters": 0, "tokens": 0}
        for text in _texts(path, text_field):
            if isinstance(text, PolyvecError):
                say(f"error: {text}")
                failed += 1
                continue
            row["documents"] += 1
            row["characters"] += len(text)
            row["tokens"] += tokenizer.count(text)
        rows.append(row)
    total = sum(row["tokens"] for row in rows)
    costs = {model: price * total / 1e6 for model, price in prices.USD_PER_MILLION_TOKENS.items()}
    if as_json:
        print_json(
            {"encoding": "cl100k_base", "files": rows, "tokens": total, "failed": failed}
            | {"cost_usd": costs, "prices_of": prices.DATE}
        )
    else:
        print_table(
            ["path", "documents", "characters", "tokens"],
            [
                [row["path"], *(f"{row[name]:,}" for name in ("documents", "characters", "tokens"))]
                for row in rows
            ],
            right=["documents", "characters", "tokens"],
        )
        amounts = ", ".join(f"{model} ${cost:.6f}" for model, cost in costs.items())
        print(f"{total:,} tokens; to embed them once, at the prices of {prices.DATE}: {amounts}")
    if failed:
        raise typer.Exit(FAILED)


def _texts(path: str, text_field: str) -> Iterator[str | PolyvecError]:
    from polyvec.readers import UnreadableDocument, read

    if path == STDIN:
        yield sys.stdin.buffer.read().decode("utf-8", "replace")
        return
    for document in read(path, text_field=text_field, on_skip=_say_skipped):
        yield document.error if isinstance(document, UnreadableDocument) else document.text


def _say_skipped(path: Path, reason: str) -> None:
    say(f"skipped {path}: {reason}")


@app.command(
    epilog=examples(
        "polyvec batch handbook/ --embedder openai:text-embedding-3-small --cache vectors.sqlite",
        "polyvec batch --embedder small --wait      # small has a cache in polyvec.toml",
        "polyvec ingest handbook/ --embedder small  # finds the vectors in the cache",
    )
)
def batch(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="What is to be ingested later; nothing: only look after batches."
        ),
    ] = None,
    embedder: EmbedderOption = None,
    cache: Annotated[
        str | None, typer.Option("--cache", metavar="FILE", help="Of the embedder, if it names none itself.")
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", metavar="N", help="As for ingest.  [default: 200]"),
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option("--overlap-tokens", metavar="N", help="As for ingest.  [default: 20]")
    ] = None,
    text_field: TextFieldOption = "text",
    id_field: IdFieldOption = "id",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Most tokens of a batch.  [default: no limit]"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until all batches have ended.")] = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Embed documents at half the price, within a day.

    They are sent to OpenAI's Batch API. The vectors go into the cache of the embedder, where ingest
    finds them. Chunks that the cache has, or that
    were asked for already, are not asked for again: run it as often as you like. The exit code is 1 if
    something failed.
    """
    from polyvec.embed import embedder as make_embedder
    from polyvec.embed.batch import BatchJobs
    from polyvec.embed.prices import cost_usd

    options = {"cache": cache} if cache is not None else {}
    with make_embedder(embedder, **options) as model:
        jobs = BatchJobs(model, **({"max_tokens": max_tokens} if max_tokens is not None else {}))
        failed = 0

        def chunks() -> Iterator[str]:
            nonlocal failed
            for text in _chunks(paths or [], chunk_tokens, overlap_tokens, text_field, id_field):
                if isinstance(text, PolyvecError):
                    say(f"error: {text}")
                    failed += 1
                else:
                    yield text

        statuses = {status.id: status for status in jobs.poll()}
        submitted = jobs.submit(chunks()) if paths else []
        statuses |= {status.id: status for status in submitted}
        open_ = [status for status in statuses.values() if not status.ended]
        while wait and open_:
            _say_open(open_)
            time.sleep(SECONDS_BETWEEN_POLLS)
            latest = jobs.poll()
            statuses |= {status.id: status for status in latest}
            open_ = [status for status in latest if not status.ended]
        space = model.space
    costs = {status.id: cost_usd(space, status.tokens, batch=True) for status in statuses.values()}
    if as_json:
        print_json(
            {
                "embedding": str(space),
                "submitted": [status.id for status in submitted],
                "batches": [
                    dataclasses.asdict(status) | {"cost_usd": costs[status.id]}
                    for status in statuses.values()
                ],
                "failed_documents": failed,
            }
        )
    else:
        _print_statuses(list(statuses.values()), costs)
    if failed or any(status.ended and status.failed for status in statuses.values()):
        raise typer.Exit(FAILED)


def _chunks(
    paths: list[str], chunk_tokens: int | None, overlap_tokens: int | None, text_field: str, id_field: str
) -> Iterator[str | PolyvecError]:
    """Yield the texts that ingest would embed."""
    from polyvec.chunking import CHUNK_TOKENS, check_sizes
    from polyvec.pieces import make_pieces
    from polyvec.readers import read

    size = CHUNK_TOKENS if chunk_tokens is None else chunk_tokens
    overlap = check_sizes(size, overlap_tokens)
    for document in read(*paths, text_field=text_field, id_field=id_field, on_skip=_say_skipped):
        try:
            _, pieces = make_pieces(document, size, overlap)
        except PolyvecError as error:
            yield error
            continue
        yield from (piece.text for piece in pieces if piece.text)


def _say_open(statuses: list[BatchStatus]) -> None:
    for status in statuses:
        say(f"{status.id}: {status.status}, {status.done} of {status.texts} done")


def _print_statuses(statuses: list[BatchStatus], costs: dict[str, float | None]) -> None:
    if not statuses:
        say("there are no batches")
        return
    print_table(
        ["batch", "status", "texts", "tokens", "done", "failed", "cost"],
        [
            [
                status.id, status.status, f"{status.texts:,}", f"{status.tokens:,}", f"{status.done:,}",
                f"{status.failed:,}", "?" if (cost := costs[status.id]) is None else f"${cost:.4f}",
            ]
            for status in statuses
        ],
        right=["texts", "tokens", "done", "failed", "cost"],
    )  # fmt: skip
    for status in statuses:
        for reason in status.reasons:
            say(f"{status.id}: {reason}")
