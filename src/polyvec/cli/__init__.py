"""The command `polyvec`: parses, calls the public API, prints."""


def main() -> None:
    """Run the command line."""
    from polyvec.cli.app import app

    app()
