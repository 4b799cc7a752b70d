"""What every way of personalising shares: concepts, their batches, the loss, and the run.

    L = E_{z, y, ε, t} ‖ε − ε_θ(z_t, t, c(y))‖²,    z_t = √ᾱ_t z + √(1 − ᾱ_t) ε

over the pictures z of the concepts and sentences y that name them (latent diffusion, arXiv 2112.10752, eq. 2; v or x0
for ε, as the model predicts). Methods differ in what of the model may move.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import cycle, islice, permutations
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .. import device as devices
from ..declared import declared
from ..denoiser import training_target
from ..errors import UserError, check
from ..models.registry import short_hash
from ..models.text_to_image import TextToImage
from ..models.text_to_image.prompts import token_ids
from ..training.config import Positive, RunConfig, Share
from ..training.loop import TrainState, check_start, run
from ..training.objective import Objective, generator_of, random_timesteps
from .concepts import base_facts
from .network import PersonalisedNetwork
from .pictures import MOST, encoded, read_captions_of, read_concept, side_by_side, write_drawn
from .templates import BESIDE, filled
from .tokens import initial_vectors

SMALL = 100_000_000
"""Weights of a U-Net below which settings are those of the small world: Stable Diffusion has 860 million."""

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Save = Callable[[PersonalisedNetwork, Path, Mapping[str, Any]], None]


@declared
class PersonalisationConfig(RunConfig):
    """The settings of a personalisation run, beside those of every run.

    - vectors: how many a placeholder has; lr_ratio: their learning rate is lr_ratio · lr, that of other weights lr.
    - prior_weight: λ of the pictures that keep a concept's kind as it was (arXiv 2208.12242, eq. 2).
    - cutmix: several things also side by side, half as large (`pictures.side_by_side`): each with every other, and
      with what its prior shows. A picture whose caption tells of a ground is left out of that, unless all do. Not where
      a style is learnt, too: halves on a plain ground show none.
    - noise_levels: as of `TrainConfig`; None: every timestep alike, as the papers have it.
    - flip: pictures mirrored too. checkpointing: the U-Net's activations are computed twice instead of kept.
    - precision is also that of the frozen weights; what trains is kept in float32.
    """

    vectors: Annotated[int, Field(ge=1, le=64)] = 1
    lr_ratio: Positive = 1.0
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    cutmix: bool = False
    noise_levels: tuple[float, Positive] | None = None
    flip: bool = False
    checkpointing: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    ema_decay: Share = 0.0
    precision: Literal["no", "bf16", "fp16", "auto"] = "auto"


@dataclass(frozen=True)
class Concept:
    """What is to be learnt: pictures of it, the word that will stand for it, and what is known of it.

    - images: a folder or zip of three to six pictures. initialiser: one word of the vocabulary, what kind of thing it
      is; the vectors begin there. kind: "object" or "style". templates: sentences with {}, instead of the kind's own.
      What 0.txt beside 0.png says of that picture, "a fox in the style of {}", is taken instead of either.
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
    """Pictures that a batch takes its turns from: latents (N, c, h, w), sentences as ids, and their weight.

    ids are (S, L), which go with any of the pictures, or (N, S, L): each has its own.
    """

    latents: Tensor
    ids: Tensor
    weight: float = 1.0


class PersonalisationObjective(Objective):
    """E[w ‖ε − ε_θ(z_t, t, c(y))‖²] over the streams, which take turns: as many pictures of each.

    - model: called with z_t, t (B,) and ids (B, L), it gives what the U-Net predicts. save_as writes what it learnt.
    """

    def __init__(
        self,
        model: nn.Module,
        streams: Sequence[Stream],
        sd: TextToImage,
        config: PersonalisationConfig,
        facts: Mapping[str, Any],
        save_as: Save,
    ):
        self.model, self.streams, self.config = model, streams, config
        self.schedule, self.prediction = sd.schedule, sd.prediction
        self.facts, self.save_as = dict(facts), save_as

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """z, ids, t, ε and weights of a step: picture, sentence, time and noise are drawn, the streams take turns."""
        config, generator = self.config, generator_of(self.config.seed, 4, step)
        first, rows = step * config.batch_size, []
        for turn in range(first, first + config.batch_size):
            stream = self.streams[turn % len(self.streams)]
            row = drawn(torch.arange(len(stream.latents)), generator)
            ids = drawn(stream.ids if stream.ids.ndim == 2 else stream.ids[row], generator)
            rows.append((stream.latents[row], ids, torch.tensor(stream.weight)))
        z, ids, weights = (torch.stack(column) for column in zip(*rows, strict=True))
        t = random_timesteps(len(z), self.schedule, config, generator)
        return z, ids, t, torch.randn(z.shape, generator=generator), weights

    def loss(self, network: Callable[..., Any], *batch: Tensor) -> Tensor:
        z, ids, t, eps, weights = batch
        predicted = network(self.schedule.add_noise(z, eps, t), t, ids).float()
        target = training_target(z, eps, t, self.schedule, self.prediction)
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


def learn(
    sd: TextToImage,
    concepts: Sequence[Concept],
    out: str | Path,
    presets: Mapping[str, PersonalisationConfig],
    options: Mapping[str, Any],
    *,
    method: str,
    save: Save,
    trained: Sequence[str] = (),
) -> Iterator[TrainState]:
    """The run of a method: what it trains beside the vectors, and how it saves; yields a `TrainState` every step.

    - presets: settings "small" and "large", by the size of the U-Net; options: of `training.run`, and of
      `PersonalisationConfig` to set otherwise. trained: names of the U-Net's weights.

    Raises `UserError` at once for concepts that cannot be learnt, and for a folder that holds a run already.
    """
    check_start(out, **options)
    names = {field.name for field in fields(PersonalisationConfig)} & options.keys()
    config = configured(presets, sd, {name: options[name] for name in names}, options.get("device"))
    with enough_memory(config):
        begin = [(each.token, initial_vectors(sd, each.initialiser, config.vectors)) for each in concepts]
        how = {"dtype": DTYPES[config.precision], "scale": config.lr_ratio, "checkpointing": config.checkpointing}
        network = PersonalisedNetwork(sd, begin, trained, **how)
        streams, said = concept_streams(concepts, sd, network.tokenizer, config, Path(out, "prior"))
    facts = {"method": method, "base": base_facts(sd), "concepts": said}
    objective = PersonalisationObjective(network, streams, sd, config, facts, save)
    return _steps(objective, out, {name: options[name] for name in options.keys() - names})


def configured(
    presets: Mapping[str, PersonalisationConfig], sd: TextToImage, changes: Mapping[str, Any], device: Any
) -> PersonalisationConfig:
    """The preset "small" or "large" with these changes; the precision "auto" becomes that of the device."""
    small = sum(weight.numel() for weight in sd.unet.parameters()) < SMALL
    config = replace(presets["small" if small else "large"], **changes)
    auto = "bf16" if devices.has_fast_bf16(devices.named_device(device)) else "no"
    return replace(config, precision=auto if config.precision == "auto" else config.precision)


def concept_streams(
    concepts: Sequence[Concept], sd: TextToImage, tokenizer: Any, config: PersonalisationConfig, folder: Path
) -> tuple[list[Stream], list[dict[str, Any]]]:
    """What a run's batches are taken from, and its facts of each concept; prior pictures are drawn into `folder`."""
    # all are read before the first prior is drawn, which takes minutes
    read = [concept_pictures(concept, sd, tokenizer, config.flip) for concept in concepts]
    streams = [Stream(encoded(sd, images), ids) for images, ids, *_ in read]
    things = [(images[alone], concept.token) for concept, (images, _, alone, _) in zip(concepts, read, strict=True)]
    pairs = [*permutations((thing for thing, each in zip(things, concepts, strict=True) if each.kind == "object"), 2)]
    for concept, thing, (*_, facts) in zip(concepts, things, read, strict=True):
        if concept.prior:
            images, sentences = prior_of(concept, sd, folder, config.seed)
            ids = token_ids(sentences, tokenizer)
            streams.append(Stream(encoded(sd, images), ids, config.prior_weight))
            facts["prior_hash"] = short_hash([images, ids])
            pairs += [*permutations((thing, (images, concept.initialiser)))] if concept.kind == "object" else []
    for (left, a), (right, b) in pairs if mixed(concepts, config) else ():
        ids = token_ids([BESIDE.format(a, b)], tokenizer)
        streams.append(Stream(encoded(sd, side_by_side(left, right)), ids))
    return streams, [facts for *_, facts in read]


def mixed(concepts: Sequence[Concept], config: PersonalisationConfig) -> bool:
    """Whether pictures of two are shown side by side: of several things, and no style."""
    return config.cutmix and len(concepts) > 1 and all(concept.kind == "object" for concept in concepts)


def concept_pictures(
    concept: Concept, sd: TextToImage, tokenizer: Any, flip: bool
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """The pictures of a concept, uint8 (N, 3, H, W); the sentences that name it, as `Stream.ids`; which of them show it
    alone, bool (N,): those without a caption, or all where each has one; and a run's facts of it.

    Raises `UserError` for a folder, a template or a kind that does not do, and a prior without a name for the kind.
    """
    needed = f"the prior pictures of '{concept.token}' are of its kind, and its kind has no name"
    check(concept.initialiser or not concept.prior, f"{needed}; give the initialiser, such as dog")
    sentences, images = filled(concept.templates, concept.kind, concept.token), read_concept(concept.images, sd.side)
    captions = read_captions_of(concept.images, concept.token)
    ids, alone = token_ids(sentences, tokenizer), torch.tensor([not said for said in captions])
    alone = alone if alone.any() else ~alone
    if any(captions):
        own = [said or sentences for said in captions]
        count = max(map(len, own))
        ids = torch.stack([token_ids([*islice(cycle(said), count)], tokenizer) for said in own])
    facts = {"token": concept.token, "initialiser": concept.initialiser, "kind": concept.kind}
    facts |= {"pictures": len(images), "data_hash": short_hash([images, ids, *([] if alone.all() else [alone])])}
    if flip:
        images, ids = torch.cat([images, images.flip(-1)]), ids if ids.ndim == 2 else torch.cat([ids, ids])
        alone = alone.repeat(2)
    return images, ids, alone, facts


def prior_of(concept: Concept, sd: TextToImage, folder: str | Path, seed: int) -> tuple[Tensor, list[str]]:
    """Pictures of a concept's kind at large, and sentences that name the kind (arXiv 2208.12242, eq. 2).

    uint8 (N, 3, H, W): those that `concept.prior` names, or as many as it asks for, drawn by the model into `folder`.

    Raises `UserError` for a folder that does not do, and for a number of pictures that cannot be drawn.
    """
    sentences, source = filled(concept.templates, concept.kind, concept.initialiser), concept.prior
    if isinstance(source, int):
        check(1 <= source <= MOST, f"{source} prior pictures cannot be drawn; choose from 1 to {MOST:,}")
        source = write_drawn(sd, sentences[0], source, folder, seed)
    return read_concept(source, sd.side), sentences


def _steps(objective: PersonalisationObjective, out: str | Path, options: Mapping[str, Any]) -> Iterator[TrainState]:
    with enough_memory(objective.config):
        yield from run(objective, objective.config, out, **options)


@contextmanager
def enough_memory(config: RunConfig) -> Iterator[None]:
    """Raise `UserError` where torch finds too little memory on the GPU: one sentence says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        lower = f"--accumulate {config.batch_size}, --checkpointing and --precision fp16 take the least"
        raise UserError(f"the GPU has too little memory for a batch of {config.batch_size}; {lower}") from error
