"""The command line, put together."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from polyvec.cli import embedding, pipeline, records, stores
from polyvec.cli.common import EXIT_CODES, Commands

app = typer.Typer(
    cls=Commands,
    help="Embeddings in any vector database, with the same answers in each.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    # plain help: texts may hold brackets, and importing rich for it takes longer than printing it
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for part in (pipeline, embedding, records, stores):
    app.registered_commands += part.app.registered_commands


def _print_version(value: bool) -> None:  # noqa: FBT001  # called by typer
    if value:
        print(f"polyvec {installed_version('polyvec')}")
        raise typer.Exit


@app.callback()
def polyvec(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Embeddings in any vector database, with the same answers in each."""
