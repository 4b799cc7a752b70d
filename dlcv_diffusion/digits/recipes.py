"""What the shipped digits, the report's network and a quick trial are trained with."""

from collections.abc import Mapping

from ..training.config import TrainConfig
from ..training.recipe import OURS, QUICK, Recipe, recipe_of

ATTENTION_GUIDANCE = (0.3, 0.6)
"""s of the perturbed-attention guidance that a network of the preset "guided" learns from its teacher, and s for ∅.
Guidance by w leads away from ∅, so what ∅ was guided by is taken back w times, and pictures are more varied: at w = 2
distances of 2.1 and 2.6, recall 0.67 and 0.74; with 0.3 for ∅ as well 2.5 and 3.6, 0.64 and 0.56."""
BESIDE_AUTOGUIDANCE, AUTOGUIDANCE = (0.1, 0.12), (1.0, 0.6)
"""The same where weaker weights guide too: for w = 2 they are enough, for w = 0 a little of the former is needed."""
REPORT_EPOCH = 678  # batches of 200 in an epoch of the report's 135,000 or so training images

NETWORK = {"in_channels": 3, "channels": (64, 96), "blocks": (1, 3), "emb_channels": 128, "num_classes": 20}

DIGITS: Mapping[str, Recipe] = {
    # the report's network and settings, to the letter
    "report": Recipe(
        "ContextUnet",
        {"in_channels": 3, "height": 28, "width": 28, "n_feat": 128, "n_cfeat": 20, "n_downs": 2},
        350,
        TrainConfig(steps=50 * REPORT_EPOCH, batch_size=200, lr=1e-4, weight_decay=1e-5, warmup=0, ema_decay=0.999),
    ),
    # what ships: the DDPM paper's U-Net in a size that a GPU trains in minutes, with batches of 1,024, and a quick CPU
    # core in a day. Asked for v, it learns at high noise too, where the digit is decided and where an error of ε counts
    # for little
    "small": Recipe(
        "UNet",
        NETWORK,
        350,
        TrainConfig(steps=119_500, decay=0.6, prediction="v", **OURS),
    ),
    # "small" as it draws guided by worse versions of itself, learned in one pass; network and schedule are the same
    "guided": Recipe("UNet", NETWORK, 350, TrainConfig(steps=1_250, lr=5e-4, prediction="v", label_drop=0.25, **OURS)),
    # a minute on a part of the embedded sample, for notebook 02 and for looking around: small batches make many steps,
    # and v asks for the digit where ε would ask for a copy of the input
    "tiny": Recipe(
        "UNet",
        {"in_channels": 3, "channels": (32, 48), "blocks": 1, "emb_channels": 64, "num_classes": 20},
        350,
        TrainConfig(steps=1_300, batch_size=16, lr=3e-3, prediction="v", **QUICK),
    ),
}


def digits_recipe(preset: str) -> Recipe:
    """The recipe "report", "small", "guided" or "tiny"; `UserError` for any other name.

    >>> digits_recipe("report").train.batch_size
    200
    """
    return recipe_of(DIGITS, preset)
