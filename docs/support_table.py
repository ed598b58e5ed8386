"""Write the support table into README.md, from the capabilities that the adapters declare.

python docs/support_table.py           # write it
python docs/support_table.py --check   # exit with 1 if it is not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

import polyvec
from polyvec.registry import Adapter

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- support table: make matrix -->", "<!-- end of the support table -->"
HEAD = ("Database", "Open with", "Run in the tests", "Filters", "Namespaces", "`exact=True`", "Indexes")


def row(adapter: Adapter) -> tuple[str, ...]:
    """Return the cells of one adapter."""
    can = adapter.capabilities
    indexes = [name for name, has in (("HNSW", can.hnsw_index), ("flat", can.flat_index)) if has]
    return (
        adapter.title,
        "<br>".join(f"`{url}`" for url in adapter.examples),
        adapter.tested,
        "native" if can.native_filters else "exact, by tokens",
        "native" if can.native_namespaces else "by key and condition",
        "yes" if can.exact_query else "no",
        ", ".join(indexes),
    )


def table() -> str:
    """Return the table in Markdown."""
    rows = [HEAD, tuple("---" for _ in HEAD), *map(row, polyvec.adapters().values())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def with_table(text: str) -> str:
    """Return the README with the table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Write or check; see the module."""
    text = README.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        return int(with_table(text) != text)
    README.write_text(with_table(text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
