"""Textual inversion (Gal et al., arXiv 2208.01618): a new word whose vector is found by the pictures it stands for.

    v* = argmin_v E_{z, y, ε, t} ‖ε − ε_θ(z_t, t, c(y; v))‖²        (eq. 2)

c(y; v) is the text encoder's reading of the sentence y, in which the lookup of the new word gives v. Nothing else
moves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models.text_to_image import as_text_to_image
from ..training.loop import TrainState
from .concepts import write_embedding
from .learning import Concept, PersonalisationConfig, learn
from .network import PersonalisedNetwork

PRESETS: Mapping[str, PersonalisationConfig] = {
    # for a pipeline of the emoji world's size: a minute or two on two CPU cores
    "small": PersonalisationConfig(steps=400, batch_size=16, lr=2e-2, warmup=10),
    # for Stable Diffusion on a GPU of 12 GB; the paper takes 5,000 steps of 8 at 0.04, of a smaller model
    "large": PersonalisationConfig(
        steps=2_000, batch_size=4, accumulate=4, lr=5e-3, warmup=0, decay=0.0, checkpointing=True, flip=True
    ),
}


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
    alone, how = [replace(concept, prior=0)], {"method": "textual inversion", "save": _save}
    return learn(as_text_to_image(model), alone, out, PRESETS, options, **how)


def _save(network: PersonalisedNetwork, path: Path, facts: Mapping[str, Any]) -> None:
    ((token, vectors),) = network.vectors.items()
    write_embedding(path, token, vectors, facts)
