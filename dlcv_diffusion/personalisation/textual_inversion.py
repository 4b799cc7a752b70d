"""Textual inversion (Gal et al., arXiv 2208.01618): a new word whose vector is found by the pictures it stands for.

    v* = argmin_v E_{z, y, ε, t} ‖ε − ε_θ(z_t, t, c(y; v))‖²        (eq. 2)

c(y; v) is the text encoder's reading of the sentence y, in which the lookup of the new word gives v. Nothing else
moves.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..training.loop import TrainState, check_start
from .concepts import write_embedding
from .learning import (
    DTYPES,
    Concept,
    PersonalisationConfig,
    PersonalisationObjective,
    concept_stream,
    configured,
    learn,
)
from .parts import Parts, frozen_copy, parts_of
from .tokens import initial_vectors, names_of, with_vectors

PRESETS: Mapping[str, PersonalisationConfig] = {
    # for a pipeline of the emoji world's size: under two minutes on two CPU cores
    "small": PersonalisationConfig(
        steps=200, batch_size=16, lr=2e-2, weight_decay=0.0, warmup=10, ema_decay=0.0, precision="auto"
    ),
    # for Stable Diffusion on a GPU of 12 GB; the paper takes 5,000 steps of 8 at 0.04, of a smaller model
    "large": PersonalisationConfig(
        **{"steps": 2_000, "batch_size": 4, "accumulate": 4, "lr": 5e-3, "weight_decay": 0.0, "warmup": 0},
        **{"decay": 0.0, "ema_decay": 0.0, "precision": "auto", "checkpointing": True, "flip": True},
    ),
}


class TextualInversion(nn.Module):
    """ε_θ(z_t, t, c(y; v)), of which only the vectors v train: copies that share all weights with the model's parts.

    - parts: of the model; vectors: (n, d), where v begins; token: what they will be called.
    - dtype: of the frozen weights. v is kept in float32.
    """

    def __init__(
        self, parts: Parts, token: str, vectors: Tensor, dtype: torch.dtype = torch.float32, checkpointing: bool = False
    ):
        super().__init__()
        self.text_encoder = frozen_copy(parts.text_encoder, dtype)
        self.unet = frozen_copy(parts.unet, dtype)
        self.tokenizer = with_vectors(parts, self.text_encoder, [(token, vectors)])
        if checkpointing:
            self.unet.enable_gradient_checkpointing()

    @property
    def vectors(self) -> Tensor:
        """v, (n, d) float32."""
        return self.text_encoder.get_input_embeddings().vectors

    def c(self, ids: Tensor) -> Tensor:
        """c(y; v), (B, L, d), of the sentences' ids (B, L)."""
        return self.text_encoder(ids)[0]

    def forward(self, z_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """What the U-Net predicts, like z_t (B, c, h, w), for t (B,) and ids (B, L)."""
        c = self.c(ids).to(self.unet.dtype)
        return self.unet(z_t.to(self.unet.dtype), t, encoder_hidden_states=c, return_dict=False)[0]


def train_textual_inversion(
    model: Any, concept: Concept, out: str | Path = "runs/new1", **options: Any
) -> Iterator[TrainState]:
    """Find the vectors of a new word (eq. 2); yields a `TrainState` every step, see `training.run`.

    - model: a `TextToImage`, or a `StableDiffusionPipeline` of diffusers; it stays as it is, to the bit.
    - concept: pictures, token, initialiser, kind; its `prior` is not used.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `PersonalisationConfig`,
      whose values depend on the model's size: steps, batch_size, lr, vectors, precision, accumulate, checkpointing, …

    `out`/model.safetensors holds {token: (n, d)}, as `load_concepts` and diffusers' `pipe.load_textual_inversion` read
    it. Raises `UserError` for a concept that cannot be learnt, too little memory, numbers that are not finite, or as
    `training.run` does.

    >>> concept = Concept("my_dog", "<new1>", "dog")
    >>> for state in train_textual_inversion(pipeline, concept, "runs/dog"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    parts = parts_of(model)
    check_start(out, **options)
    config = configured(PRESETS, parts, options)
    vectors = initial_vectors(parts, concept.initialiser, config.vectors)
    network = TextualInversion(parts, concept.token, vectors, DTYPES[config.precision], config.checkpointing)
    words = " ".join(names_of(concept.token, config.vectors))
    stream, facts = concept_stream(parts, network.tokenizer, concept, words, config)
    facts = {"method": "textual inversion", "base": {"name": parts.name, "width": parts.width}, "concepts": [facts]}
    save = partial(_save, token=concept.token)
    return learn(PersonalisationObjective(network, [stream], parts, config, facts, save), out, options)


def _save(network: TextualInversion, path: Path, facts: Mapping[str, Any], token: str) -> None:
    write_embedding(path, token, network.vectors, facts)
