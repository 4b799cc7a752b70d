"""New words: placeholder tokens such as <new1>, and their vectors beside the text encoder's own lookup table."""

import re
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check
from ..models.text_to_image import TextToImage, as_text_to_image
from ..models.text_to_image.prompts import names_of

CHOOSE = "choose a name that nothing else has, such as <new1>"


def check_new(tokenizer: Any, token: str, count: int = 1) -> None:
    """Raise `UserError` unless `token` can become a placeholder of so many vectors: one word that means nothing yet."""
    sound = bool(token) and not any(map(str.isspace, token)) and token.isprintable()
    check(sound, f"'{token}' is no token: it is empty or holds spaces; choose one word, such as <new1>")
    words, added = tokenizer.get_vocab(), {name.lower() for name in tokenizer.added_tokens_encoder}
    first = re.sub(r"_\d+$", "", token.lower())
    check(first == token.lower() or first not in added, f"'{token}' would be another vector of '{first}'; {CHOOSE}")
    for name in names_of(token, count + 1):  # what comes behind the last would be read as one more
        check(name.lower() not in added, f"the token '{name}' exists already in this model; {CHOOSE}")
        ordinary = name.lower() in words or f"{name.lower()}</w>" in words
        check(not ordinary, f"'{name}' is an ordinary word of the vocabulary already; {CHOOSE}")


def add_token(model: Any, token: str, vectors: Tensor) -> list[int]:
    """Give the model a new word: its tokenizer learns the name, and its lookup table gets a row for each vector.

    - vectors: (n, d) or (d,), finite, d the width of the text encoder; kept in the table's dtype.

    Returns the n new ids. The rows that were there stay as they were, to the bit, and nothing is drawn from torch's
    generator (transformers' `resize_token_embeddings` draws rows from it). Raises `UserError`, and changes nothing, for
    a name that is taken or has spaces, and for vectors of another width or that are not finite.

    >>> add_token(pipeline, "<new1>", torch.zeros(768))   # doctest: +SKIP
    [49408]
    """
    sd = as_text_to_image(model)
    vectors = vectors.detach().reshape(-1, vectors.shape[-1])
    check_new(sd.tokenizer, token, len(vectors))
    check_vectors(sd, token, vectors)
    table, names = sd.table, names_of(token, len(vectors))
    sd.tokenizer.add_tokens(names)
    ids = sd.tokenizer.convert_tokens_to_ids(names)
    missing = max(0, max(ids) + 1 - len(table.weight))  # some tables have rows to spare
    with torch.no_grad():
        weight = torch.cat([table.weight, table.weight.new_zeros(missing, table.embedding_dim)])
        weight[ids] = vectors.to(weight)
        table.weight = nn.Parameter(weight, requires_grad=table.weight.requires_grad)
    table.num_embeddings = sd.text_encoder.config.vocab_size = len(weight)
    return ids


def check_vectors(sd: TextToImage, token: str, vectors: Tensor) -> None:
    """Raise `UserError` unless the vectors, (n, d), fit the text encoder and are finite."""
    found, wanted = vectors.shape[-1], sd.table.embedding_dim
    known = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
    of = f", as those of {known[found]} have" if found in known else ""
    said = f"the vectors of '{token}' have {found:,} numbers{of}, and this text encoder's words {wanted:,}"
    check(found == wanted, f"{said}; give one that was learnt on this kind of model")
    check(vectors.isfinite().all(), f"the vectors of '{token}' are not finite (NaN or infinite); learn them again")


def initial_vectors(model: Any, initialiser: str | None = None, count: int = 1) -> Tensor:
    """Where new vectors begin, (count, d) float32: at the vector of a word, or else at the mean of all words.

    Raises `UserError` for a word that is not exactly one token of the vocabulary.

    >>> initial_vectors(pipeline, "dog", count=2).shape   # doctest: +SKIP
    torch.Size([2, 768])
    """
    sd = as_text_to_image(model)
    rows = sd.table.weight.detach().float()
    if initialiser is None:
        return rows.mean(0).expand(count, -1).clone()
    pieces = sd.tokenizer.tokenize(initialiser)
    read = " ".join(piece.removesuffix("</w>") for piece in pieces) or "nothing"
    said = f"the initialiser '{initialiser:.60}' is not one token of the vocabulary: it is read as '{read:.60}'"
    check(len(pieces) == 1, f"{said}; give one plain word that says what kind of thing it is, such as dog")
    return rows[sd.tokenizer.convert_tokens_to_ids(pieces)].expand(count, -1).clone()


class WordsAndVectors(nn.Module):
    """A lookup table that stays as it is, and vectors v* beside it, parameters of their own, for the ids behind it.

    - first: the id of the first vector. scale: v* = scale · u, and u is what trains. A step of Adam has the size of the
      learning rate, whatever the gradient's, so v* moves `scale` times as far as other weights of the same run.

    >>> lookup = WordsAndVectors(nn.Embedding(3, 2), torch.ones(1, 2), first=3)
    >>> lookup(torch.tensor([0, 3]))[1]
    tensor([1., 1.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, table: nn.Embedding, vectors: Tensor, first: int, scale: float = 1.0):
        super().__init__()
        self.table, self.first, self.scale = table, first, scale
        self.u = nn.Parameter(vectors.detach().float().to(table.weight.device) / scale)

    @property
    def vectors(self) -> Tensor:
        """v*, (n, d) float32."""
        return self.scale * self.u

    def forward(self, ids: Tensor) -> Tensor:
        new = ids >= self.first
        words = self.table(ids.masked_fill(new, 0))
        found = self.vectors[(ids - self.first).clamp(min=0)].to(words.dtype)
        return torch.where(new[..., None], found, words)


def with_vectors(tokenizer: Any, text_encoder: Any, vectors: Sequence[tuple[str, Tensor]], scale: float = 1.0) -> Any:
    """A copy of the tokenizer that knows the new words; their vectors (n, d) come into the lookup of `text_encoder`.

    - text_encoder: a copy of the model's, whose table becomes `WordsAndVectors`; the model's own stays as it is.

    Raises `UserError` for names that are taken.
    """
    tokenizer = deepcopy(tokenizer)
    for token, rows in vectors:
        check_new(tokenizer, token, len(rows))
        tokenizer.add_tokens(names_of(token, len(rows)))
    first, rows = tokenizer.convert_tokens_to_ids(vectors[0][0]), torch.cat([rows for _, rows in vectors])
    text_encoder.set_input_embeddings(WordsAndVectors(text_encoder.get_input_embeddings(), rows, first, scale))
    return tokenizer
