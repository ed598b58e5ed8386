"""docs/architecture.md names files that are there, and counts the outside adapter's lines."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
CORE = ROOT / "src" / "polyvec"


def test_every_file_that_it_names_is_there() -> None:
    table = PAGE[PAGE.index("## Where is what") : PAGE.index("## Four decisions")]
    named = re.findall(r"`([\w/.]+(?:\.py|\.md|/))`", table)
    assert len(named) > 20
    assert [name for name in named if not ((CORE / name).exists() or (ROOT / name).exists())] == []


def test_it_counts_the_lines_of_the_outside_adapter() -> None:
    files = (ROOT / "examples" / "polyvec-sqlite").rglob("*.py")
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in files)
    assert f"{lines} lines of Python" in " ".join(PAGE.split())
