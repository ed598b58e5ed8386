"""The command `polyvec`: parses, calls the public API, prints."""

import io
import sys


def main() -> None:
    """Run the command line."""
    from polyvec.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    app()
