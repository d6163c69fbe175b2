"""CLIP's tokens of a text, exactly as open_clip's tokenizer makes them, in time linear in its length.

Cleaning and the cut into words are open_clip's own, by the same libraries, so they hold for any text. The words are
cut into pieces by the Rust tokenizer of `tokenizers`, from open_clip's own merges: in time that is all but linear,
where open_clip's is quadratic in the length of a word. Most words of captions come again and again: each is cut once.
Importing open_clip would take seconds and half a gigabyte, so nothing of it is imported.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

TOKENIZER = "open_clip:SimpleTokenizer"  # CLIP's byte-pair encoding, 49,408 tokens
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2  # of the file's, after its first line
START, END = 49_406, 49_407  # tokens before and after a text
WORDS = 1 << 16  # of which the pieces are remembered
END_OF_WORD = "</w>"
LONG = 64  # letters of a word that is not remembered
SPECIAL = {"<start_of_text>": [START], "<end_of_text>": [END]}
# CLIP's words: contractions, runs of letters, single digits, runs of anything else.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=1)
def clip_encoder() -> Callable[[str], list[int]]:
    """Gives the tokens of a text, without start and end token, as many as there are."""
    import regex
    from tokenizers import Tokenizer, models, pre_tokenizers

    merges = _merges()
    vocabulary = {piece: number for number, piece in enumerate(_pieces(merges))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=END_OF_WORD, continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = regex.compile("|".join([*SPECIAL, PATTERN]), regex.IGNORECASE).findall

    def pieces_of(word: str) -> list[int]:
        return SPECIAL.get(word) or tokenizer.encode(word, add_special_tokens=False).ids

    remembered = lru_cache(maxsize=WORDS)(pieces_of)

    def encode(text: str) -> list[int]:
        tokens: list[int] = []
        for word in words(_clean(text)):
            tokens += remembered(word) if len(word) <= LONG else pieces_of(word)
        return tokens

    return encode


def clip_pieces() -> list[str]:
    """What the tokens stand for, in their order, without the special ones; END_OF_WORD behind those that end one."""
    return _pieces(_merges())


def _pieces(merges: list[tuple[str, str]]) -> list[str]:
    letters = _letters()
    return [*letters, *(f"{letter}{END_OF_WORD}" for letter in letters), *("".join(merge) for merge in merges)]


def _merges() -> list[tuple[str, str]]:
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).with_name(VOCABULARY), "rt", encoding="utf8") as lines:
        pairs = [line.split() for line in lines.read().split("\n")[1 : MERGES + 1]]
    return [(first, second) for first, second in pairs]


def _letters() -> list[str]:
    """The letters that stand for the 256 bytes, in the vocabulary's order: first the bytes that can be printed."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printed] + [chr(256 + place) for place in range(256 - len(printed))]


def _clean(text: str) -> str:
    """Lower case with single spaces; texts with more than plain letters are repaired first, which is slow."""
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
