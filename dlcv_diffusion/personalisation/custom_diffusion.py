"""Custom Diffusion (Kumari et al., arXiv 2212.04488): new words, and cross-attention's keys and values, W^k, W^v.

    softmax(Q Kᵀ / √d') V,    Q = W^q f,  K = W^k c,  V = W^v c        (eq. 3)

Cross-attention layers, 5 % of the weights, change most when the whole model is trained (section 3.1), and text comes
into them through W^k and W^v alone. So only these train, together with the vectors of all concepts at once (section
3.2); pictures of each concept's kind at large keep the kind as it was. Otherwise than in the paper, a new word stands
alone and begins at its kind's vector (there "V* dog", and V* begins at a rare word's); and where the paper shows
pictures at sizes 0.4 to 1.4 with sentences that say so, here things are shown side by side with each other and with
their kind, half as large (`cutmix`, arXiv 2303.11305), by the preset "small".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import check
from ..models.text_to_image import as_text_to_image
from ..training.loop import TrainState
from .concepts import write_custom
from .learning import Concept, PersonalisationConfig, learn, mixed
from .network import PersonalisedNetwork, cross_attention

SMALL = PersonalisationConfig(steps=900, batch_size=16, lr=1e-3, lr_ratio=20.0, warmup=10, cutmix=True)
PRESETS: Mapping[str, PersonalisationConfig] = {
    # for a pipeline of the emoji world's size: a concept with its prior pictures in a minute or two
    "small": SMALL,
    # the paper's: 500 steps for two concepts, 250 for one, batches of 8, 8e-5
    "large": PersonalisationConfig(
        steps=500, batch_size=8, accumulate=8, lr=8e-5, warmup=0, decay=0.0, checkpointing=True, flip=True
    ),
}
SIDE_BY_SIDE = replace(SMALL, steps=1_800, lr=2e-3)
"""The small settings for several things, shown side by side too: each kind of picture gets a tenth of a batch."""


def train_custom_diffusion(
    model: Any, concepts: Sequence[Concept], out: str | Path = "runs/custom", **options: Any
) -> Iterator[TrainState]:
    """Learn several concepts at once (section 3.2); yields a `TrainState` every step, see `training.run`.

    - model: a `TextToImage`, or a `StableDiffusionPipeline` of diffusers; it stays as it is, to the bit.
    - concepts: pictures, token, initialiser, kind, and `prior`, the pictures that keep its kind as it was: a folder, or
      how many the model draws itself, of the initialiser, into `out`/prior/; the batch then has as many of them.
    - options: as of `train_textual_inversion`; lr is that of W^k and W^v, and lr_ratio · lr the vectors'.

    `out`/model.safetensors is what `load_concepts` reads. Raises `UserError` for concepts that cannot be learnt, too
    little memory, numbers that are not finite, or as `training.run` does.

    >>> concepts = [Concept("my_dog", "<new1>", "dog", prior=100), Concept("my_mug", "<new2>", "mug", prior=100)]
    >>> for state in train_custom_diffusion(pipeline, concepts, "runs/two"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    check(concepts, "there is no concept to learn; give one or more")
    presets = {**PRESETS, "small": SIDE_BY_SIDE} if mixed(concepts, SMALL) else PRESETS
    sd = as_text_to_image(model)
    originals = {name: sd.unet.get_parameter(name).detach() for name in cross_attention(sd.unet)}
    how = {"method": "Custom Diffusion", "save": partial(_save, originals=originals), "trained": [*originals]}
    return learn(sd, concepts, out, presets, options, **how)


def _save(network: PersonalisedNetwork, path: Path, facts: Mapping[str, Any], originals: Mapping[str, Tensor]) -> None:
    deltas = {name: now.detach() - originals[name].to(now) for name, now in network.weights.items()}
    write_custom(path, network.vectors, deltas, facts["base"], facts)
