"""Real text to embed: the docstrings of Python's standard library, the same on every machine of a version."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import numpy as np

import polyvec
from polyvec.types import FloatArray


def sentences() -> Iterator[str]:
    """Yield sentences of 5 words or more, each once, in a fixed order."""
    seen: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for part in re.split(r"(?<=[.!?])\s+|\n\n+", ast.get_docstring(node) or ""):
                    text = " ".join(part.split())
                    if len(text.split()) >= 5 and text not in seen:
                        seen.add(text)
                        yield text


def embedded(count: int) -> FloatArray:
    """Return real text embeddings, shape (count, 512), unit length; kept in the temporary directory."""
    kept = Path(gettempdir()) / f"polyvec-benchmark-{count}.npy"
    if not kept.exists():
        texts = [text for text, _ in zip(sentences(), range(count), strict=False)]
        if len(texts) < count:
            raise SystemExit(f"the standard library has only {len(texts)} sentences; ask for fewer records")
        with polyvec.embedder("local") as model:
            np.save(kept, model.embed_documents(texts))
    vectors: FloatArray = np.load(kept)
    return vectors


def isotropic(count: int, dimension: int = 512, seed: int = 0) -> FloatArray:
    """Return normally distributed vectors: the worst case for a graph index."""
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
