# ruff: noqa: RUF001
"""Chunks: within the limit, nothing lost, no character cut, cut where a reader would cut, in linear time."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvec import Chunk, InvalidInputError, chunk_text
from polyvec.tokenizer import count

FAMILY = "👨‍👩‍👧‍👦"
JAMO = "\u1112\u1161\u11ab"  # 한, as three letters
WORDS = st.sampled_from(
    ["the", "Cat", "한국어", JAMO, "日本語", FAMILY, "🇰🇷", "e\u0301\u0302", "x" * 60, "3.14",
     "internationalization", "Dr.", "e.g.", "\ud800", "-", "#", "1."]
)  # fmt: skip
GLUE = st.sampled_from(
    [" ", " ", " ", "", ". ", "! ", "? ", "。", ".\n", "\n\n", "\n- ", ", ", "，", "  \t", "\r\n\r\n"]
)
PROSE = st.lists(st.tuples(WORDS, GLUE), max_size=150).map(lambda parts: "".join(w + g for w, g in parts))
TEXTS = PROSE | st.text(max_size=400)
SIZES = st.integers(8, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


def graphemes(text: str) -> set[int]:
    return {0} | {found.end() for found in regex.finditer(r"\X", text)}


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


@settings(max_examples=400, deadline=None)
@given(TEXTS, SIZES)
def test_every_promise_on_any_text(text: str, sizes: tuple[int, int]) -> None:
    limit, overlap = sizes
    chunks = chunk_text(text, chunk_tokens=limit, overlap_tokens=overlap)
    covered = 0
    for number, chunk in enumerate(chunks):
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.tokens == count(chunk.text) <= limit
        assert text[covered : chunk.start].strip() == ""  # nothing but white space is left out
        assert chunk.end > covered  # each has something new
        if number:
            assert chunk.start > chunks[number - 1].start
            # the first word of what is repeated has lost the space before it, which may cost some tokens
            assert count(text[chunk.start : covered]) <= overlap + 8 if overlap else chunk.start >= covered
        covered = chunk.end
    assert text[covered:].strip() == ""
    assert (chunks == []) == (text.strip() == "")
    whole = text.strip()
    if whole and count(whole) <= limit:
        assert texts(chunks) == [whole]


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=60).map("".join) | PROSE, st.integers(32, 80), st.booleans())
def test_no_character_is_cut(text: str, limit: int, overlapping: bool) -> None:
    edges = graphemes(text)
    for chunk in chunk_text(text, chunk_tokens=limit, overlap_tokens=limit // 4 if overlapping else 0):
        assert {chunk.start, chunk.end} <= edges


@pytest.mark.parametrize(
    "unit", [FAMILY, "🇰🇷", JAMO, "e\u0301\u0302", "👍🏽", "\U0001f3f4\U000e0067\U000e0062\U000e007f"]
)
def test_no_character_of_a_long_word_is_cut(unit: str) -> None:
    text = unit * 100
    for limit in range(40, 48):
        for overlap in (0, 20):
            for chunk in chunk_text(text, chunk_tokens=limit, overlap_tokens=overlap):
                assert chunk.start % len(unit) == chunk.end % len(unit) == 0


def test_a_character_longer_than_a_chunk_is_cut_between_code_points() -> None:
    text = "a" + "\u0301" * 1000
    chunks = chunk_text(text, chunk_tokens=10, overlap_tokens=0)
    assert "".join(texts(chunks)) == text
    assert max(chunk.tokens for chunk in chunks) <= 10


def test_a_text_that_fits_is_one_chunk_without_the_space_around_it() -> None:
    assert chunk_text("\n  First. Second.\n\nThird.  \n") == [Chunk("First. Second.\n\nThird.", 3, 25, 6)]
    assert chunk_text("") == chunk_text(" \n\u3000\t") == []


def test_sentences_stay_whole() -> None:
    english = "Dr. Kim met J. Smith, e.g. at noon. It cost 3.50 (see Fig. 2)! Was it late?"
    text = f"{english} 네. 그렇습니다. 이것도요."
    chunks = chunk_text(text, chunk_tokens=14, overlap_tokens=0)
    assert texts(chunks) == [
        "Dr. Kim met J. Smith, e.g. at noon.",
        "It cost 3.50 (see Fig. 2)!",
        "Was it late? 네. 그렇습니다.",
        "이것도요.",
    ]


@pytest.mark.parametrize("word", ["J.", "Dr.", "Mrs.", "Prof.", "e.g.", "Fig."])
def test_an_abbreviation_ends_no_sentence(word: str) -> None:
    first = "We met at noon in the old house."
    second = f"It was warm, and then {word} Smith came in, and all left."
    for limit in range(count(second), count(f"{first} {second}")):
        assert texts(chunk_text(f"{first} {second}", chunk_tokens=limit, overlap_tokens=0)) == [first, second]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "그는 학교에 갔다. 비가 왔다. 우산이 없었다.",
            ["그는 학교에 갔다.", "비가 왔다.", "우산이 없었다."],
        ),
        (
            "今日は晴れだ。明日は雨！傘が「要る」？はい。",
            ["今日は晴れだ。", "明日は雨！", "傘が「要る」？", "はい。"],
        ),
        ("我们去学校。他说：“下雨了。”没有伞！", ["我们去学校。", "他说：“下雨了。”", "没有伞！"]),
    ],
)
def test_sentences_of_korean_japanese_and_chinese(text: str, expected: list[str]) -> None:
    ends, position = set(), 0
    for sentence in expected:
        position = text.index(sentence, position) + len(sentence)
        ends.add(position)
    chunks = chunk_text(text, chunk_tokens=max(8, *map(count, expected)), overlap_tokens=0)
    assert len(chunks) > 1
    assert {chunk.end for chunk in chunks} <= ends


def test_a_paragraph_in_the_second_half_of_a_chunk_ends_it() -> None:
    first = "One two three four. Five six seven eight."
    second = "Nine ten eleven. Twelve thirteen fourteen. Fifteen sixteen seventeen."
    chunks = chunk_text(f"{first}\r\n \r\n{second}", chunk_tokens=18, overlap_tokens=0)
    assert texts(chunks)[0] == first
    early = chunk_text(f"One.\n\n{second} {first}", chunk_tokens=18, overlap_tokens=0)
    assert early[0].text.startswith("One.\n\nNine")


def test_list_items_are_not_torn() -> None:
    text = (
        "Bring:\n- a tent with poles\n- two sleeping bags\n- water for three days\n1. Go early\n2. Rest often"
    )
    for chunk in chunk_text(text, chunk_tokens=12, overlap_tokens=0):
        assert chunk.start == 0 or text[chunk.start - 1] == "\n"
        assert chunk.end == len(text) or text[chunk.end] == "\n"


def test_the_overlap_is_whole_sentences_that_fit() -> None:
    sentences = [f"Sentence number {n} is here." for n in range(12)]
    tokens = count(sentences[0])
    chunks = chunk_text(" ".join(sentences), chunk_tokens=4 * tokens, overlap_tokens=tokens + 1)
    assert chunks[0].text == " ".join(sentences[:4])
    assert chunks[1].text == " ".join(sentences[3:7])  # one sentence again
    none = chunk_text(" ".join(sentences), chunk_tokens=4 * tokens, overlap_tokens=tokens - 2)
    assert none[1].text == " ".join(sentences[4:8])


def test_the_overlap_is_a_tenth_unless_it_is_said() -> None:
    text = " ".join(f"Number {n} is here." for n in range(100))
    assert chunk_text(text, chunk_tokens=100) == chunk_text(text, chunk_tokens=100, overlap_tokens=10)
    assert chunk_text(text, chunk_tokens=100) != chunk_text(text, chunk_tokens=100, overlap_tokens=0)
    assert chunk_text(text) == chunk_text(text, chunk_tokens=200, overlap_tokens=20)


def test_a_sentence_that_leaves_no_room_for_the_overlap_comes_without_it() -> None:
    short, long = "Yes it is.", "This one needs every token that one chunk can have, all of it, to the end."
    limit = count(long)
    chunks = chunk_text(f"{short} {short} {long} {short}", chunk_tokens=limit, overlap_tokens=5)
    assert texts(chunks) == [f"{short} {short}", long, short]
    fits = chunk_text(f"{short} {short} {long} {short}", chunk_tokens=limit + 5, overlap_tokens=5)
    assert texts(fits)[1] == f"{short} {long}"  # so there was something to repeat


def test_a_giant_sentence_is_cut_at_words_and_repeats_words() -> None:
    text = " ".join(f"word{n}" for n in range(400))
    chunks = chunk_text(text, chunk_tokens=40, overlap_tokens=10)
    for before, after in pairwise(chunks):
        assert text[after.start - 1] == " "
        assert before.end == len(text) or text[before.end] == " "
        assert before.start < after.start < before.end  # they overlap
    assert min(chunk.tokens for chunk in chunks[:-1]) > 20


def test_a_giant_word_fills_its_chunks() -> None:
    text = "Zm9vYmFyYmF6" * 500
    chunks = chunk_text(text, chunk_tokens=50, overlap_tokens=0)
    assert "".join(texts(chunks)) == text
    assert sum(chunk.tokens for chunk in chunks) / len(chunks) > 45


def test_lone_surrogates_do_no_harm() -> None:
    text = "First \ud800 sentence. " * 50
    chunks = chunk_text(text, chunk_tokens=20, overlap_tokens=0)
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        ". ",
        '."',
        "\n",
        "\n ",
        "?!",
        ".)",
        "가",
        FAMILY,
        "e\u0301",
        "- x\n",
        "A. ",
        "。",
        "x, ",
        "\u0301",
    ],
)
def test_hostile_repetition_takes_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = "x" + (unit * size)[:size] + "y"
        started = time.process_time()
        assert chunk_text(text)[-1].end == len(text)
        return time.process_time() - started

    seconds(1000)  # loads what is loaded once
    assert seconds(200_000) < 20  # quadratic time would be many minutes


@pytest.mark.parametrize(
    ("chunk", "overlap", "match"),
    [
        (7, 0, "chunk_tokens must be an int of at least 8, not 7"),
        (True, 0, "chunk_tokens"),
        (20.0, 0, "chunk_tokens"),
        (20, 11, "overlap_tokens must be an int from 0 to 10"),
        (20, -1, "overlap_tokens"),
        (20, 1.0, "overlap_tokens"),
    ],
)
def test_wrong_sizes(chunk: int, overlap: int, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        chunk_text("x", chunk_tokens=chunk, overlap_tokens=overlap)
