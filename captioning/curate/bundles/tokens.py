"""CLIP tokens of a text, as the context length counts them.

The vocabulary is the one that comes with open_clip, and the count that of its tokenizer. Importing open_clip would
take seconds and half a gigabyte, so the `tokenizers` library cuts the words into pieces; and as most words of captions
come again and again, each is cut once.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from captioning.curate.text_rules.words import with_few_marks

TOKENIZER = "open_clip:SimpleTokenizer"  # CLIP's byte-pair encoding, 49,408 tokens
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2  # of the file's, after its first line
ENDS = 2  # start and end token
WORDS = 1 << 16  # of which the pieces are remembered,
LONG = 100  # letters; but for longer ones
# CLIP's words: contractions, runs of letters, single digits, runs of anything else.
SPECIAL = ("<start_of_text>", "<end_of_text>")
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=1)
def clip_token_counter() -> Callable[[str], int]:
    """Counts the tokens of a text, the start and the end token included; not capped at any context length."""
    import regex
    from tokenizers import Tokenizer, models, pre_tokenizers

    merges, letters = _merges(), sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = regex.compile("|".join([*SPECIAL, PATTERN]), regex.IGNORECASE).findall

    def pieces_of(word: str) -> int:
        return 1 if word in SPECIAL else len(tokenizer.encode(word).ids)

    remembered = lru_cache(maxsize=WORDS)(pieces_of)

    def count(word: str) -> int:
        return remembered(word) if len(word) < LONG else pieces_of(word)

    return lambda text: sum(map(count, split(_clean(text)))) + ENDS


def _merges() -> list[tuple[str, str]]:
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    with gzip.open(Path(found.origin).with_name(VOCABULARY), "rt", encoding="utf8") as lines:
        pairs = [line.split() for line in lines.read().split("\n")[1 : MERGES + 1]]
    return [(first, second) for first, second in pairs]


def _clean(text: str) -> str:
    """Lower case with single spaces; texts with more than plain letters are repaired first, which is slow."""
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(with_few_marks(text))))
    return " ".join(text.split()).lower()
