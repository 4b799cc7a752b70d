"""Custom Diffusion (Kumari et al., arXiv 2212.04488): new words, and cross-attention's keys and values, W^k, W^v.

    softmax(Q Kᵀ / √d') V,    Q = W^q f,  K = W^k c,  V = W^v c        (eq. 3)

Text reaches the picture through W^k and W^v alone, 5 % of the weights, and it is they that change most when the whole
model is trained (section 3.1). So only they train, together with the vectors of all concepts at once (section 3.2);
pictures of each concept's kind at large keep the kind as it was. Not done here: the paper also shows the pictures at
sizes 0.4 to 1.4, and says so in the sentence.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check
from ..training.checkpoints import short_hash
from ..training.loop import TrainState, check_start
from .concepts import base_facts, write_custom
from .learning import (
    DTYPES,
    Concept,
    PersonalisationConfig,
    PersonalisationObjective,
    Stream,
    concept_stream,
    configured,
    learn,
    stream_of,
)
from .parts import Parts, cross_attention, frozen_copy, parts_of
from .pictures import MOST, read_concept, write_drawn
from .templates import filled
from .tokens import initial_vectors, names_of, with_vectors

PRESETS: Mapping[str, PersonalisationConfig] = {
    "small": PersonalisationConfig(
        **{"steps": 200, "batch_size": 16, "lr": 2e-4, "lr_ratio": 100.0, "weight_decay": 0.0, "warmup": 10},
        **{"ema_decay": 0.0, "precision": "auto"},
    ),
    # the paper's: 500 steps for two concepts, 250 for one, batches of 8, 8e-5
    "large": PersonalisationConfig(
        **{"steps": 500, "batch_size": 8, "accumulate": 8, "lr": 8e-5, "weight_decay": 0.0, "warmup": 0},
        **{"decay": 0.0, "ema_decay": 0.0, "precision": "auto", "checkpointing": True, "flip": True},
    ),
}


class CustomDiffusion(nn.Module):
    """ε_θ(z_t, t, c(y; v)), of which the vectors v of every concept train, and W^k, W^v of the cross-attention.

    Copies that share all other weights with the model's parts. Keys and values are kept in float32, as v is.

    - vectors: (token, (n, d)) of each concept, where they begin; scale: how much faster they move than W^k and W^v.
    """

    def __init__(
        self,
        parts: Parts,
        vectors: Sequence[tuple[str, Tensor]],
        dtype: torch.dtype = torch.float32,
        scale: float = 1.0,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.names, self.dtype = cross_attention(parts.unet), dtype
        self.tokens = {token: len(rows) for token, rows in vectors}
        self.text_encoder = frozen_copy(parts.text_encoder, dtype)
        self.unet = frozen_copy(parts.unet, dtype, trained=self.names)
        self.tokenizer = with_vectors(parts, self.text_encoder, vectors, scale)
        if checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(self, z_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """What the U-Net predicts, like z_t (B, c, h, w), for t (B,) and ids (B, L)."""
        c = self.text_encoder(ids)[0].to(self.dtype)
        return self.unet(z_t.to(self.dtype), t, encoder_hidden_states=c, return_dict=False)[0]

    def vectors(self) -> dict[str, Tensor]:
        """v by token, (n, d) float32."""
        return dict(
            zip(
                self.tokens,
                self.text_encoder.get_input_embeddings().vectors.split(list(self.tokens.values())),
                strict=True,
            )
        )

    def keys_and_values(self) -> dict[str, Tensor]:
        """W^k and W^v by name, (channels, d) float32."""
        weights = dict(self.unet.named_parameters())
        return {name: weights[name] for name in self.names}


def train_custom_diffusion(
    model: Any, concepts: Sequence[Concept], out: str | Path = "runs/custom", **options: Any
) -> Iterator[TrainState]:
    """Learn several concepts at once (section 3.2); yields a `TrainState` every step, see `training.run`.

    - model: a `TextToImage`, or a `StableDiffusionPipeline` of diffusers; it stays as it is, to the bit.
    - concepts: pictures, token, initialiser, kind, and `prior`, the pictures that keep its kind as it was: a folder, or
      how many the model draws itself, of the initialiser, into `out`/prior/; the batch then has as many of them.
    - options: as of `train_textual_inversion`; lr is that of W^k and W^v, and `lr_ratio` times as much the vectors'.

    `out`/model.safetensors is what `load_concepts` reads. Raises `UserError` for concepts that cannot be learnt, too
    little memory, numbers that are not finite, or as `training.run` does.

    >>> concepts = [Concept("my_dog", "<new1>", "dog", prior=100), Concept("my_mug", "<new2>", "mug", prior=100)]
    >>> for state in train_custom_diffusion(pipeline, concepts, "runs/two"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    parts = parts_of(model)
    check_start(out, **options)
    check(concepts, "there is no concept to learn; give one or more")
    config = configured(PRESETS, parts, options)
    begin = [(each.token, initial_vectors(parts, each.initialiser, config.vectors)) for each in concepts]
    network = CustomDiffusion(parts, begin, DTYPES[config.precision], config.lr_ratio, config.checkpointing)
    streams, said = [], []
    for each in concepts:
        words = " ".join(names_of(each.token, config.vectors))
        stream, facts = concept_stream(parts, network.tokenizer, each, words, config)
        streams.append(stream)
        if each.prior:
            stream, hashed = prior_stream(parts, network.tokenizer, each, config, Path(out))
            streams.append(stream)
            facts["prior_hash"] = hashed
        said.append(facts)
    base = base_facts(parts)
    facts = {"method": "Custom Diffusion", "base": base, "concepts": said}
    originals = {name: weight.detach() for name, weight in parts.unet.named_parameters() if name in network.names}
    save = partial(_save, originals=originals, base=base)
    return learn(PersonalisationObjective(network, streams, parts, config, facts, save), out, options)


def prior_stream(
    parts: Parts, tokenizer: Any, concept: Concept, config: PersonalisationConfig, out: Path
) -> tuple[Stream, str]:
    """Pictures of a concept's kind at large with sentences that name the kind (arXiv 2208.12242, eq. 2); their hash.

    They are those of a folder, or as many as asked for that the model draws itself. Raises `UserError` for a concept
    whose kind has no name.
    """
    needed = f"the prior pictures of '{concept.token}' are of its kind, and its kind has no name"
    check(concept.initialiser, f"{needed}; give the initialiser, such as dog")
    sentences, folder = filled(concept.templates, concept.kind, concept.initialiser), concept.prior
    if isinstance(concept.prior, int):
        most = f"{concept.prior} prior pictures cannot be drawn; choose from 1 to {MOST:,}"
        check(1 <= concept.prior <= MOST, most)
        folder = out / "prior" / "".join(letter if letter.isalnum() else "_" for letter in concept.token)
        write_drawn(parts, sentences[0], concept.prior, folder, config.seed)
    images = read_concept(folder, parts.side)
    return stream_of(parts, tokenizer, images, sentences, config.prior_weight, False), short_hash([images])


def _save(
    network: CustomDiffusion,
    path: Path,
    facts: Mapping[str, Any],
    originals: Mapping[str, Tensor],
    base: Mapping[str, Any],
) -> None:
    deltas = {name: now.detach() - originals[name].to(now) for name, now in network.keys_and_values().items()}
    write_custom(path, network.vectors(), deltas, base, facts)
