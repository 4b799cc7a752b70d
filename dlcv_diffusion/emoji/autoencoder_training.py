"""Training the autoencoder of the emoji world, in whose latents the small text-to-image model draws.

Rombach et al., arXiv 2112.10752, section 3.1 and appendix G: reconstruction, and a Kullback–Leibler term that is so
small that it does little more than keep the latents near zero; without their adversarial term.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.psnr import psnr
from ..files import staging_folder
from ..images.pixels import to_x0
from ..models.registry import plain, short_hash
from ..models.text_to_image.latents import decode, downsampling, encode
from ..models.text_to_image.saving import write_facts, write_half
from ..noise import seeded_weights
from ..training.config import RunConfig, with_options
from ..training.loop import TrainState, check_start, run
from ..training.objective import Objective, batch_indices, generator_of
from ..training.recipe import recipe_of, write_sheet
from .scenes import KINDS, Kind
from .splits import Split, pictures
from .sprites import SIDE
from .world import World, load_world

SHARES: Mapping[Kind, float] = {"white": 0.15, "colour": 0.2, "pair": 0.3, "style": 0.35}
"""The share of each kind of scene: pairs and styles have the finest detail."""

SQUARED = 4.0
"""Weight of the mean squared error, beside the mean absolute error."""

KL_WEIGHT = 1e-6
"""Weight of the Kullback–Leibler term, a sum over the latents of a picture, beside means over its pixels."""

STANDARD = 1024
"""Over so many scenes the latents' mean and variance are measured."""


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Sizes of an autoencoder, how many scenes are drawn to train it on, and how it is trained.

    - channels: at 64×64, 32×32 and 16×16 pixels; latents: channels of a latent.

    >>> AUTOENCODERS["small"].latents
    8
    """

    channels: tuple[int, ...]
    latents: int
    scenes: int
    train: RunConfig

    def build(self, seed: int = 0) -> nn.Module:
        """A new `AutoencoderKL`, whose initial weights follow from `seed` alone; torch's own generator stays as it was.

        >>> AUTOENCODERS["tiny"].build().config.latent_channels
        4
        """
        from diffusers import AutoencoderKL

        levels = len(self.channels)
        with seeded_weights(seed):
            return AutoencoderKL(
                block_out_channels=self.channels,
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                latent_channels=self.latents,
                norm_num_groups=1,  # of a few channels each, a CPU takes half the step's time for them
                mid_block_add_attention=False,
                sample_size=SIDE,
                scaling_factor=1.0,  # see `standardised`
            )


OURS: Mapping[str, Any] = {"weight_decay": 0.0, "clip_grad": 1.0, "precision": "auto"}

AUTOENCODERS: Mapping[str, AutoencoderRecipe] = {
    # what ships
    "small": AutoencoderRecipe(
        (16, 32, 64), 8, 20_000, RunConfig(steps=12_000, batch_size=8, lr=2e-3, ema_decay=0.998, decay=0.6, **OURS)
    ),
    # for looking around
    "tiny": AutoencoderRecipe(
        (8, 16, 32), 4, 2_000, RunConfig(steps=1_000, batch_size=8, lr=3e-3, warmup=50, ema_decay=0.99, **OURS)
    ),
}


def autoencoder_recipe(preset: str) -> AutoencoderRecipe:
    """The recipe "small" or "tiny"; `UserError` for any other name.

    >>> autoencoder_recipe("tiny").train.steps
    1000
    """
    return recipe_of(AUTOENCODERS, preset)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − 1 − ln σ²) of each picture, (B,), of (B, c, h, w) each.

    >>> kl_divergence(torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2))
    tensor([8.])
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


def reconstruction_loss(x: Tensor, found: Tensor) -> Tensor:
    """mean |x − x̂| + 4 mean (x − x̂)², (): the first for edges, the second for what stands out; both in [−1, 1].

    >>> reconstruction_loss(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5))
    tensor(1.5000)
    """
    return F.l1_loss(found, x) + SQUARED * F.mse_loss(found, x)


class InTraining(nn.Module):
    """An autoencoder as it is trained: pictures x (B, 3, H, W) in [−1, 1] and noise (B, c, h, w) to x̂, μ and ln σ².

    >>> found, mean, log_variance = InTraining(autoencoder)(x, noise)   # doctest: +SKIP
    """

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        drawn = self.autoencoder.encode(x).latent_dist
        z = drawn.mean + drawn.std * noise  # the reparametrisation of Kingma and Welling, arXiv 1312.6114, eq. 10
        return self.autoencoder.decode(z).sample, drawn.mean, drawn.logvar


class AutoencoderObjective(Objective):
    """Reconstruction and the KL term on scenes of the training split; everything random follows from the run's seed.

    - images: uint8 (N, 3, 64, 64); over the first `STANDARD` of them the latents of what is saved are standard.
    """

    def __init__(self, autoencoder: nn.Module, images: Tensor, train: RunConfig):
        self.model, self.images, self.train = InTraining(autoencoder), images, train
        side = images.shape[-1] // downsampling(autoencoder)
        self.latent = (autoencoder.config.latent_channels, side, side)
        self.facts = {"pool": len(images), "world_hash": short_hash([images])}

    def batch(self, step: int) -> tuple[Tensor, ...]:
        rows = batch_indices(step, len(self.images), self.train)
        noise = torch.randn((len(rows), *self.latent), generator=generator_of(self.train.seed, 2, step))
        return to_x0(self.images[rows]).contiguous(memory_format=torch.channels_last), noise

    def loss(self, network: Callable[..., Any], *batch: Tensor) -> Tensor:
        found, mean, log_variance = (part.float() for part in network(*batch))
        kl = kl_divergence(mean, log_variance).mean()
        return reconstruction_loss(batch[0], found) + KL_WEIGHT * kl

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the folder `model`, as diffusers has it, beside where other runs write their file."""
        autoencoder = standardised(plain(average).autoencoder, self.images[:STANDARD])
        write_autoencoder(autoencoder, path.with_suffix(""), facts)


def standardised(autoencoder: Any, images: Tensor) -> Any:
    """A copy whose latents have mean 0 and variance 1 in each channel over images, uint8 (N, 3, H, W), and the same x̂.

    The last layer of the encoder and the first of the decoder are linear, and take it up. So `scaling_factor`, which
    Stable Diffusion divides by and which knows no mean and no channels, is 1.

    >>> standardised(autoencoder, images).config.scaling_factor   # doctest: +SKIP
    1.0
    """
    copy = deepcopy(autoencoder).eval()
    z = encode(copy, images)
    std, mean = torch.std_mean(z / copy.config.scaling_factor, (0, 2, 3), correction=0)
    std, count = std.clamp(min=1e-6), len(std)
    before, after = copy.quant_conv, copy.post_quant_conv
    with torch.no_grad():
        before.weight[:count] /= std[:, None, None, None]
        before.bias[:count] = (before.bias[:count] - mean) / std
        before.bias[count:] -= 2 * std.log()
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= std[None, :, None, None]
    copy.register_to_config(scaling_factor=1.0)
    return copy


def write_autoencoder(autoencoder: Any, folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Write a folder of diffusers in half precision, and the facts as `facts.json`; whole or not at all.

    Raises `UserError` for weights that are not finite in half precision, and a folder that cannot be written.

    >>> write_autoencoder(autoencoder, "runs/autoencoder/model", {})   # doctest: +SKIP
    """
    with staging_folder(folder) as staging:
        write_half(autoencoder, staging)
        write_facts(staging, facts)


def psnr_by_kind(
    autoencoder: Any, world: World | None = None, count: int = 200, *, split: Split = "unseen", seed: int = 0
) -> dict[str, float]:
    """The mean PSNR in dB of scenes that were encoded and decoded: of `count` of each kind, and of all as "all".

    Raises `UserError` for an unknown split, or one without one of the kinds.

    >>> psnr_by_kind(read_autoencoder("runs/autoencoder/model"))   # doctest: +SKIP
    {'white': …, 'colour': …, 'pair': …, 'style': …, 'all': …}
    """
    world, found = world or load_world(), {}
    for kind in KINDS:
        images, _ = pictures(world, split, count, seed, kinds={kind: 1.0})
        found[kind] = psnr(images, decode(autoencoder, encode(autoencoder, images)))
    means = {kind: each.mean().item() for kind, each in found.items()}
    return {**means, "all": torch.cat([*found.values()]).mean().item()}


def train_autoencoder(
    preset: str = "small", out: str | Path = "runs/autoencoder", *, world: World | None = None, **options: Any
) -> Iterator[TrainState]:
    """Train an autoencoder on the emoji world's training split; yields a `TrainState` every step, see `training.run`.

    It leaves a folder `model`, which `AutoencoderKL.from_pretrained` and `read_autoencoder` read.

    - preset: "small" (what ships) or "tiny".
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `RunConfig` to set otherwise
      than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, or as `training.run` does.

    >>> for state in train_autoencoder("tiny", "runs/tiny_autoencoder"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe = autoencoder_recipe(preset)
    check_start(out, **options)
    world = world or load_world()
    config = with_options(recipe.train, options)
    images, _ = pictures(world, "train", recipe.scenes, config.seed, kinds=SHARES)
    objective = AutoencoderObjective(recipe.build(config.seed), images, config)
    facts = {"name": f"autoencoder-{preset}", "channels": list(recipe.channels), "latents": recipe.latents}
    return run(objective, config, out, metadata=facts, preview=Preview(world), **options)


class Preview:
    """Draws 24 unseen scenes, and below each row what became of it."""

    def __init__(self, world: World):
        self.images, _ = pictures(world, "unseen", 24, seed=0)

    def __call__(self, network: nn.Module, path: Path) -> None:
        found = decode(network.autoencoder, encode(network.autoencoder, self.images))
        rows = [row for pair in zip(self.images.split(12), found.split(12), strict=True) for row in pair]
        write_sheet(torch.cat(rows), path, columns=12)
