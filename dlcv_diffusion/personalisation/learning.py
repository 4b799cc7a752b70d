"""What every way of personalising shares: concepts, their batches, the loss, and the run.

    L = E_{z, y, ε, t} ‖ε − ε_θ(z_t, t, c(y))‖²,    z_t = √ᾱ_t z + √(1 − ᾱ_t) ε

over the pictures z of the concepts and sentences y that name them (latent diffusion, arXiv 2112.10752, eq. 2; v or x0
for ε, as the model predicts). Methods differ in what of the model may move.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .. import device as devices
from ..declared import declared
from ..denoiser import training_target
from ..errors import UserError, check
from ..training.checkpoints import short_hash
from ..training.config import Positive, RunConfig
from ..training.loop import TrainState, run
from ..training.objective import Objective, generator_of, random_timesteps
from .parts import Parts, token_ids
from .pictures import encoded, read_concept
from .templates import filled

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@declared
class PersonalisationConfig(RunConfig):
    """The settings of a personalisation run, beside those of every run.

    - vectors: how many a placeholder has; lr_ratio: how much faster they move than the other weights, if any train.
    - prior_weight: λ of the pictures that keep a concept's kind as it was (arXiv 2208.12242, eq. 2).
    - noise_levels: as of `TrainConfig`; None: every timestep alike, as the papers have it.
    - flip: pictures mirrored too. checkpointing: the U-Net's activations are computed twice instead of kept.
    - precision is also that of the frozen weights; what trains is kept in float32.
    """

    vectors: Annotated[int, Field(ge=1, le=64)] = 1
    lr_ratio: Positive = 1.0
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    noise_levels: tuple[float, Positive] | None = None
    flip: bool = False
    checkpointing: bool = False


@dataclass(frozen=True)
class Concept:
    """What is to be learnt: pictures of it, the word that will stand for it, and what is known of it.

    - images: a folder or zip of three to six pictures. initialiser: one word of the vocabulary, what kind of thing it
      is; the vectors begin there. kind: "object" or "style". templates: sentences with {}, instead of the kind's own.
    - prior: a folder of pictures of its kind at large, or how many of them the model draws itself; 0: none.

    >>> Concept("my_dog", "<new1>", initialiser="dog").kind
    'object'
    """

    images: str | Path
    token: str = "<new1>"
    initialiser: str | None = None
    kind: str = "object"
    templates: Sequence[str] | None = None
    prior: str | Path | int = 0


@dataclass(frozen=True)
class Stream:
    """Pictures that a batch takes its turns from: latents (N, c, h, w), sentences as ids (S, L), and their weight."""

    latents: Tensor
    ids: Tensor
    weight: float = 1.0


def stream_of(
    parts: Parts, tokenizer: Any, images: Tensor, sentences: Sequence[str], weight: float, flip: bool
) -> Stream:
    """Pictures, uint8 (N, 3, H, W), and the sentences that go with any of them."""
    images = torch.cat([images, images.flip(-1)]) if flip else images
    return Stream(encoded(parts, images), token_ids(tokenizer, sentences), weight)


class PersonalisationObjective(Objective):
    """E[w ‖ε − ε_θ(z_t, t, c(y))‖²] over the streams, which take turns: as many pictures of each.

    - model: called with z_t, t (B,) and ids (B, L), it gives what the U-Net predicts. save_as writes what it learnt.
    """

    def __init__(
        self,
        model: nn.Module,
        streams: Sequence[Stream],
        parts: Parts,
        config: PersonalisationConfig,
        facts: Mapping[str, Any],
        save_as: Callable[[nn.Module, Path, Mapping[str, Any]], None],
    ):
        self.model, self.streams, self.parts, self.config = model, streams, parts, config
        self.facts, self.save_as = dict(facts), save_as

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """z, ids, t, ε and weights of a step: picture, sentence, time and noise are drawn, the streams take turns."""
        config, generator = self.config, generator_of(self.config.seed, 4, step)
        first, rows = step * config.batch_size, []
        for turn in range(first, first + config.batch_size):
            stream = self.streams[turn % len(self.streams)]
            z, ids = (drawn(each, generator) for each in (stream.latents, stream.ids))
            rows.append((z, ids, torch.tensor(stream.weight)))
        z, ids, weights = (torch.stack(column) for column in zip(*rows, strict=True))
        t = random_timesteps(len(z), self.parts.schedule, config, generator)
        return z, ids, t, torch.randn(z.shape, generator=generator), weights

    def loss(self, network: Callable[..., Any], *batch: Tensor) -> Tensor:
        z, ids, t, eps, weights = batch
        schedule = self.parts.schedule
        predicted = network(schedule.add_noise(z, eps, t), t, ids).float()
        target = training_target(z, eps, t, schedule, self.parts.prediction)
        loss = (weights * F.mse_loss(predicted, target, reduction="none").flatten(1).mean(1)).mean()
        if self.config.precision != "no":
            said = f"the loss became {loss.item()} in half precision ({self.config.precision})"
            check(loss.isfinite(), f"{said}; take --precision no, or a lower learning rate")
        return loss

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        self.save_as(average, path, facts)


def drawn(rows: Tensor, generator: torch.Generator) -> Tensor:
    """One of the rows, each as likely."""
    return rows[int(torch.randint(len(rows), (1,), generator=generator))]


def configured(
    presets: Mapping[str, PersonalisationConfig], parts: Parts, options: dict[str, Any]
) -> PersonalisationConfig:
    """The settings of the preset "small" or "large", by the size of the U-Net, with those set otherwise in `options`.

    They are taken out of `options`. The precision "auto" becomes that of the device.
    """
    names = {field.name for field in fields(PersonalisationConfig)} & options.keys()
    preset = presets["small" if parts.small else "large"]
    config = replace(preset, **{name: options.pop(name) for name in names})
    device = devices.named_device(options.get("device"))
    auto = "bf16" if devices.has_fast_bf16(device) else "no"
    return replace(config, precision=auto if config.precision == "auto" else config.precision)


def concept_stream(
    parts: Parts, tokenizer: Any, concept: Concept, words: str, config: PersonalisationConfig
) -> tuple[Stream, dict[str, Any]]:
    """The pictures of a concept with its sentences, and what the run's facts say of it; `words` name it, one a vector.

    Raises `UserError` for a folder, a template or a kind that does not do.
    """
    sentences = filled(concept.templates, concept.kind, words)
    images = read_concept(concept.images, parts.side)
    facts = {"token": concept.token, "initialiser": concept.initialiser, "kind": concept.kind}
    facts |= {"pictures": len(images), "data_hash": short_hash([images, token_ids(tokenizer, sentences)])}
    return stream_of(parts, tokenizer, images, sentences, 1.0, config.flip), facts


def learn(objective: PersonalisationObjective, out: str | Path, options: Mapping[str, Any]) -> Iterator[TrainState]:
    """`training.run`; where a GPU has too little memory, one sentence says what to lower."""
    with enough_memory(objective.config):
        yield from run(objective, objective.config, out, **options)


@contextmanager
def enough_memory(config: RunConfig) -> Iterator[None]:
    """Raise `UserError` where torch finds too little memory on the GPU."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        lower = "--batch-size 1 with --accumulate, --checkpointing and --precision fp16 take the least"
        raise UserError(f"the GPU has too little memory for a batch of {config.batch_size}; {lower}") from error
