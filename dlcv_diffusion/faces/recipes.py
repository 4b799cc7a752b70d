"""What the shipped faces and a quick trial are trained with."""

from collections.abc import Mapping

from ..training.config import TrainConfig
from ..training.recipe import OURS, QUICK, Recipe, recipe_of

ATTENTION_GUIDANCE = 0.4
"""s of the perturbed-attention guidance that a network of the preset "guided" learns from its teacher alone."""
AUTOGUIDANCE = 0.4
"""s of the autoguidance that it learns from its teacher and a weaker network, for a teacher that learned the former."""

# 4×4 pixels folded into channels, so that the work is done at 16×16 and below
NETWORK = {
    "channels": (64, 96, 112),
    "blocks": (1, 2, 1),
    "attention": (False, True, True),
    "patch": 4,
    "emb_channels": 128,
}
# the noise levels where a face takes its shape; uniform timesteps spend half their time above σ = 3
SHAPING = {"prediction": "v", "noise_levels": (-0.3, 1.3), "flip": True}

FACES: Mapping[str, Recipe] = {
    # four hours on one CPU core with quick bfloat16; "guided" goes on from there
    "small": Recipe("UNet", NETWORK, 1000, TrainConfig(steps=27_900, decay=0.4, **SHAPING, **OURS)),
    # what ships: "small" as it draws with perturbed-attention guidance, learned in one pass; network and schedule are
    # the teacher's
    "guided": Recipe("UNet", NETWORK, 1000, TrainConfig(steps=1_500, lr=5e-4, **SHAPING, **OURS)),
    # a few minutes, for looking around
    "tiny": Recipe(
        "UNet",
        {"channels": (32, 48), "blocks": 1, "patch": 4, "emb_channels": 64},
        1000,
        TrainConfig(steps=1_000, lr=2e-3, flip=True, prediction="v", **QUICK),
    ),
}


def faces_recipe(preset: str) -> Recipe:
    """The recipe "small", "guided" or "tiny" of the faces; `UserError` for any other name.

    >>> faces_recipe("small").timesteps
    1000
    """
    return recipe_of(FACES, preset)
