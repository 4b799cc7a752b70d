"""Custom Diffusion's merge (Kumari et al., arXiv 2212.04488, section 3.2): concepts learnt apart, in closed form.

    Ŵ = argmin_W ‖W C_regᵀ − W0 C_regᵀ‖_F   with   W Cᵀ = V,    columns of V: W_j c_iᵀ        (eq. 4)

The rows of C are what the text encoder makes of each new word; keys and values of those have to be what the concept's
own training made them, and change as little as can be for all other sentences, C_reg. With Lagrange multipliers:

    Ŵ = W0 + vᵀ D,    D = C (C_regᵀ C_reg)⁻¹,    vᵀ = (V − W0 Cᵀ)(D Cᵀ)⁻¹        (eq. 5)
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..emoji.captions import caption
from ..emoji.splits import scenes
from ..emoji.world import load_world
from ..errors import check
from ..models.text_to_image import TextToImage, as_text_to_image
from ..models.text_to_image.prompts import token_ids
from ..reading import reading
from .concepts import base_facts, check_apart, check_base, read_concept_file, write_custom
from .network import PersonalisedNetwork
from .templates import filled

MOST_CHANGE = 1.0
"""‖ΔW C_regᵀ‖ / ‖W0 C_regᵀ‖, beyond which nothing is left of the model."""

CAPTIONS = 1000
"""So many sentences stand for all others, as in the paper's appendix."""

SENTENCES = ("{}", "a picture of a {}")
"""What each new word is read in."""

RIDGE = 1e-8
"""What is added to C_regᵀ C_reg, of its mean eigenvalue: fewer words than dimensions leave it singular."""


def merged_weight(W0: Tensor, C: Tensor, V: Tensor, C_reg: Tensor) -> Tensor:
    """Ŵ of eq. 5, float64: the weight nearest to W0 on C_reg that takes each row of C to that of V.

    - W0: (out, d); C: (s, d), s ≤ d, rows that do not depend on each other; C_reg: (r, d).
    - V: (s, out), the paper's transposed.

    Raises `UserError` for rows of C that do.

    >>> W = merged_weight(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0]]), torch.eye(2))
    >>> W.round(decimals=4)
    tensor([[3., 0.]], dtype=torch.float64)
    """
    W0, C, V, C_reg = (each.double() for each in (W0, C, V, C_reg))
    G = C_reg.T @ C_reg
    G = G + RIDGE * G.diagonal().mean() * torch.eye(len(G), dtype=G.dtype)
    D = torch.linalg.solve(G, C.T).T  # C G⁻¹, since G is symmetric
    M = D @ C.T
    alike = "two of the concepts are read alike by the text encoder, so no weight can tell them apart; leave one out"
    check(len(C) <= C.shape[1] and torch.linalg.matrix_rank(M, hermitian=True) == len(C), alike)
    v = torch.linalg.solve(M, V - C @ W0.T)
    return W0 + v.T @ D


def merge(model: Any, paths: Sequence[str | Path], out: str | Path, captions: Sequence[str] | None = None) -> list[str]:
    """Join files of Custom Diffusion, each learnt by itself on this model, into one; returns its tokens.

    - captions: the sentences C_reg that are to stay as they were; of the emoji world by default, so for Stable
      Diffusion give others, such as a thousand captions of photographs.

    Raises `UserError` for fewer than two files, one of another method or model, tokens of the same name, words that are
    read so nearly alike that the constraint takes the model apart, and for an `out` that cannot be written.

    >>> merge(pipeline, ["runs/dog", "runs/mug"], "runs/both.safetensors")   # doctest: +SKIP
    ['<new1>', '<new2>']
    """
    check(len(paths) > 1, "a merge joins two or more files; give them all")
    sd = as_text_to_image(model)
    learnt = [read_concept_file(path) for path in paths]
    for path, found in zip(paths, learnt, strict=True):
        check(found.deltas, f"'{path}' changes no keys and values, so there is nothing to merge; load it as it is")
        check_base(sd, found, path)
    vectors = [(token, rows) for found in learnt for token, rows in found.vectors.items()]
    names = [token for token, _ in vectors]
    check_apart(learnt, "learn one of them again by another name")
    C, C_reg = features(sd, vectors, world_captions(sd.tokenizer) if captions is None else captions)
    deltas, G, moved, whole = {}, C_reg.T @ C_reg, 0.0, 0.0
    for name in learnt[0].deltas:
        W0 = sd.unet.get_parameter(name).detach().cpu().double()
        V = torch.cat([C[token] @ (W0 + found.deltas[name].double()).T for found in learnt for token in found.vectors])
        deltas[name] = merged_weight(W0, torch.cat([C[token] for token in names]), V, C_reg) - W0
        moved += ((deltas[name] @ G) * deltas[name]).sum().item()  # ‖ΔW C_regᵀ‖²
        whole += ((W0 @ G) * W0).sum().item()
    share = (moved / whole) ** 0.5
    alike = f"two of the words are read so nearly alike that all other sentences would change by {share:.0%}"
    check(share <= MOST_CHANGE, f"{alike}; learn them together, or one of them again from another initialiser")
    facts = {"method": "Custom Diffusion, merged", "of": [dict(found.facts) for found in learnt]}
    write_custom(out, dict(vectors), deltas, base_facts(sd), facts)
    return names


@torch.no_grad()
def features(
    sd: TextToImage, vectors: Sequence[tuple[str, Tensor]], captions: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """C by token, (s, d): what the text encoder makes of each new word, and of what follows, up to the sentence's end.

    And C_reg, (r, d): of every token of the captions. float64, on the CPU.
    """
    network = PersonalisedNetwork(sd, vectors)
    tokenizer, end = network.tokenizer, network.tokenizer.eos_token_id

    def read(sentences: Sequence[str], since: int) -> Tensor:
        found = []
        for ids in token_ids(sentences, tokenizer):
            first, stop = ids.tolist().index(since), ids.tolist().index(end) + 1
            found.append(network.c(ids[None].to(sd.device))[0, first:stop])
        return torch.cat(found).double().cpu()

    C = {
        token: read(filled(SENTENCES, "object", token), tokenizer.convert_tokens_to_ids(token)) for token, _ in vectors
    }
    return C, read(captions, tokenizer.bos_token_id)


def read_captions(path: str | Path) -> list[str]:
    """Sentences of a text file, one a line. Raises `UserError` for a file that is missing, empty, or no text.

    >>> read_captions("captions.txt")   # doctest: +SKIP
    ['two dogs on a beach', 'a red bus']
    """
    advice = "give a text file with one sentence a line"
    with reading(path, "is not a text file in UTF-8", advice):
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    check(found, f"'{path}' holds no sentence; {advice}")
    return found


def world_captions(tokenizer: Any, count: int = CAPTIONS) -> list[str]:
    """Sentences about the emoji world, things, styles, grounds and pairs, that are not too long for the model.

    >>> len(world_captions(pipeline.tokenizer))   # doctest: +SKIP
    1000
    """
    world = load_world()
    drawn = (caption(world, scene, seed) for seed, scene in enumerate(scenes(world, "train", 2 * count, seed=0)))
    short = (text for text in drawn if len(tokenizer(text, verbose=False).input_ids) <= tokenizer.model_max_length)
    return list(islice(short, count))
