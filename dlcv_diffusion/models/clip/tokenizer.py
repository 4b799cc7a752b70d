"""Words as tokens: CLIP's byte-level BPE, with merges that are learnt from our captions instead of the web's.

A merge joins the pair of symbols that is most frequent (Sennrich et al., arXiv 1508.07909, algorithm 1); the last
symbol of a word carries `</w>`. Every byte is a symbol, so any word of any language can be written, if only letter by
letter. The files are CLIP's own: `vocab.json` and `merges.txt` for transformers' `CLIPTokenizer`,
`bpe_simple_vocab.txt.gz` for open_clip's `SimpleTokenizer`, and both give the same ids.
"""

import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import check
from ...files import staging_folder

VERSION = "#version: 0.2"
START, END = "<|startoftext|>", "<|endoftext|>"

Merge = tuple[str, str]


def learn_merges(texts: Mapping[str, int], most: int) -> list[Merge]:
    """The merges of a vocabulary, in the order in which they are applied; at most `most` of them.

    - texts: how often each text occurs. Of pairs that are equally frequent, the first in the alphabet is joined.

    Learning ends sooner where every word has become one token.

    >>> learn_merges({"a fox": 2, "a box": 1}, most=9)
    [('o', 'x</w>'), ('f', 'ox</w>'), ('b', 'ox</w>')]
    """
    words = [(list(symbols), count) for symbols, count in word_counts(texts).items()]
    pairs, places = Counter(), defaultdict(set)
    for number, (symbols, count) in enumerate(words):
        for pair in _pairs(symbols):
            pairs[pair] += count
            places[pair].add(number)
    merges: list[Merge] = []
    while len(merges) < most and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for number in places.pop(best):
            symbols, count = words[number]
            pairs.subtract({pair: times * count for pair, times in Counter(_pairs(symbols)).items()})
            _join(symbols, best)
            for pair in _pairs(symbols):
                pairs[pair] += count
                places[pair].add(number)
        pairs = +pairs  # without those that are used up
    return merges


def _pairs(symbols: Sequence[str]) -> list[Merge]:
    return list(zip(symbols, symbols[1:], strict=False))


def _join(symbols: list[str], merge: Merge) -> None:
    place = 0
    while place < len(symbols) - 1:
        if (symbols[place], symbols[place + 1]) == merge:
            symbols[place : place + 2] = ["".join(merge)]
        place += 1


def word_counts(texts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    """How often each word occurs, as the symbols that it begins with: one for each byte, the last with `</w>`.

    >>> word_counts({"A fox!": 2})
    {('a</w>',): 2, ('f', 'o', 'x</w>'): 2, ('!</w>',): 2}
    """
    plain, counts = clip_tokenizer([]), Counter()
    for text, count in texts.items():
        for word in plain.pat.findall(plain.clean_fn(text)):
            letters = [plain.byte_encoder[byte] for byte in word.encode("utf-8")]
            counts[(*letters[:-1], letters[-1] + "</w>")] += count
    return dict(counts)


def clip_tokenizer(merges: Sequence[Merge], context: int = 77) -> Any:
    """open_clip's `SimpleTokenizer` with these merges: `tokenizer(texts)` gives ids (B, context) int64.

    >>> clip_tokenizer([("f", "o"), ("fo", "x</w>")], context=5)(["fox"]).tolist()
    [[514, 513, 515, 0, 0]]
    """
    from open_clip.tokenizer import SimpleTokenizer

    # without a line's end after the last merge, which open_clip would read as one more
    packed = gzip.compress("\n".join([VERSION, *map(" ".join, merges)]).encode(), mtime=0)
    return SimpleTokenizer(io.BytesIO(packed), context_length=context)


def vocabulary(merges: Sequence[Merge]) -> dict[str, int]:
    """Ids by token: 256 bytes, the same at a word's end, one for each merge, and the two special ones.

    >>> len(vocabulary([("f", "o")])), vocabulary([("f", "o")])["fo"]
    (515, 512)
    """
    letters = list(clip_tokenizer([]).byte_encoder.values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def checked_merges(lines: Iterable[str], source: str) -> list[Merge]:
    """Merges from lines such as "f ox</w>". Raises `UserError`, which names `source`, for one that is not two symbols.

    >>> checked_merges(["f ox</w>"], "merges.txt")
    [('f', 'ox</w>')]
    """
    merges = [tuple(line.split(" ")) for line in lines]
    wrong = next((" ".join(merge) for merge in merges if len(merge) != 2 or not all(merge)), None)
    check(wrong is None, f"{source}: '{wrong}' is no merge of two symbols; was the file written by another program?")
    return merges


def write_tokenizer(folder: str | Path, merges: Sequence[Merge], context: int) -> None:
    """Write `vocab.json`, `merges.txt`, both configs of transformers', and `bpe_simple_vocab.txt.gz` into a folder.

    Raises `UserError` where it cannot be written.

    >>> write_tokenizer("clip", merges, context=16)                 # doctest: +SKIP
    >>> CLIPTokenizer.from_pretrained("clip")("a fox").input_ids    # doctest: +SKIP
    [1200, 320, 871, 1201]
    """
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context, "do_lower_case": True, **special}
    lines = "\n".join([VERSION, *map(" ".join, merges)])
    with staging_folder(folder) as staging:
        (staging / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
        (staging / "merges.txt").write_text(lines + "\n", encoding="utf-8")
        (staging / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (staging / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
        (staging / "bpe_simple_vocab.txt.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
