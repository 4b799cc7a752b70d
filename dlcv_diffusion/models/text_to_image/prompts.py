"""Prompts as the ids of their tokens, learnt words of several vectors among them."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import check


def names_of(token: str, count: int) -> list[str]:
    """What the vectors of one placeholder are called, as diffusers does it.

    >>> names_of("<new1>", 3)
    ['<new1>', '<new1>_1', '<new1>_2']
    """
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def expanded(prompt: str, tokenizer: Any) -> str:
    """The prompt with every placeholder of several vectors written out; again, it stays as it is.

    Capital letters make no difference, since CLIP's tokenizer makes them small.

    >>> expanded("a <new1>", tokenizer)   # doctest: +SKIP
    'a <new1> <new1>_1'
    """
    added = set(tokenizer.added_tokens_encoder)
    for token in sorted((name for name in added if f"{name}_1" in added), key=len, reverse=True):
        count = next(n for n in range(2, len(added) + 2) if f"{token}_{n}" not in added)
        written = " ".join(names_of(token, count))
        others = re.escape(written.removeprefix(token))
        found = re.compile(rf"{re.escape(token)}({others})?(?!_\d)", re.IGNORECASE)
        prompt = found.sub(written.replace("\\", r"\\"), prompt)
    return prompt


def token_ids(prompts: Sequence[str], tokenizer: Any, name: str = "the model") -> Tensor:
    """Ids (B, L) int64 of prompts, each `expanded`, and filled up to the length L that the model reads.

    Raises `UserError` for no list of texts, and for a prompt that is longer.

    >>> token_ids(["a fox"], sd.tokenizer).shape   # doctest: +SKIP
    torch.Size([1, 77])
    """
    sound = not isinstance(prompts, str) and len(prompts) and all(isinstance(prompt, str) for prompt in prompts)
    check(sound, "prompts are a list of texts, one or more")
    length, found = tokenizer.model_max_length, []
    for prompt in prompts:
        ids = tokenizer(expanded(prompt, tokenizer), padding="max_length", max_length=length).input_ids
        long = f"the prompt '{prompt:.60}' has {len(ids)} tokens, and {name} reads {length}; shorten it"
        check(len(ids) == length, long)
        found.append(ids)
    return torch.tensor(found)
