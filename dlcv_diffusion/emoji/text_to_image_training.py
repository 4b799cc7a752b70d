"""Training a small Stable Diffusion on the emoji world: latents, a frozen text encoder, a small U-Net, v-prediction."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import device as devices
from ..denoiser import training_target
from ..errors import check
from ..guidance import drop_labels, guidance_weight, guided
from ..models.clip.loading import SHIPPED as CLIPS
from ..models.clip.small import SmallClip, read_small_clip
from ..models.clip.to_transformers import text_model, text_tokenizer
from ..models.foreign import foreign, quietly
from ..models.registry import load_state, plain
from ..models.text_to_image import TextToImage, read_autoencoder
from ..models.text_to_image.loading import SHIPPED
from ..models.text_to_image.saving import write_pipeline
from ..noise import seeded_noise
from ..samplers import dpm_solver, last
from ..schedule import NoiseSchedule
from ..training.checkpoints import short_hash
from ..training.config import TrainConfig
from ..training.loop import TrainState, check_start, run
from ..training.objective import Objective, batch_indices, generator_of, random_timesteps
from ..training.recipe import write_sheet
from .text_to_image_data import CALM, SHARES, LatentPool
from .world import World, load_world

SCHEDULE = NoiseSchedule.linear(1000)
"""DDPM's. Stable Diffusion's own leaves √ᾱ_T = 7 % of the picture at its end, which white grounds would show."""

PROMPTS = (
    *("a fox", "a pizza", "a castle", "a helicopter", "a sunflower", "a bicycle"),
    *("a dog on a blue background", "a rocket on a black background", "a crown on a purple background"),
    *("a frog on a yellow background", "a bear on a pink background", "a car on a grey background"),
    *("an elephant in the style of a blueprint", "a house in the style of a neon sign"),
    *("an apple in the style of pixel art", "a lion in the style of a line drawing"),
    *("a rose in the style of a chalk drawing", "an octopus in the style of stained glass"),
    *("a fox next to a pizza", "a castle next to a bus", "a hamburger next to a rocket"),
    *("a cat next to an umbrella", "an apple next to a key", "a panda next to a fire engine"),
)
"""What is drawn to see how far training has come."""


@dataclass(frozen=True)
class TextToImageRecipe:
    """Sizes of the U-Net, how many scenes are drawn to train it on, and how it is trained.

    - channels: at 16×16, 8×8 … latents; attention: at which of these sizes there is attention, to itself and to the
      prompt; middle: whether there is a block with attention in the middle too. heads: of each attention; groups: of
      each GroupNorm, of which a CPU takes few of many channels a third quicker.

    >>> TEXT_TO_IMAGE["small"].train.prediction
    'v'
    """

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    scenes: int
    train: TrainConfig
    middle: bool = True
    heads: int = 4
    groups: int = 2

    def build(self, latent: tuple[int, int, int], width: int, seed: int = 0) -> nn.Module:
        """A new `UNet2DConditionModel` for latents (c, h, w) and prompts of so many numbers a token, drawn from `seed`.

        >>> TEXT_TO_IMAGE["tiny"].build((4, 16, 16), width=64).config.cross_attention_dim
        64
        """
        from diffusers import UNet2DConditionModel

        blocks = [("CrossAttn" if attends else "") for attends in self.attention]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return UNet2DConditionModel(
                sample_size=latent[1],
                in_channels=latent[0],
                out_channels=latent[0],
                block_out_channels=self.channels,
                layers_per_block=1,
                down_block_types=tuple(f"{kind}DownBlock2D" for kind in blocks),
                mid_block_type="UNetMidBlock2DCrossAttn" if self.middle else None,
                up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(blocks)),
                cross_attention_dim=width,
                attention_head_dim=self.heads,  # the number of heads, whatever diffusers calls it
                norm_num_groups=self.groups,
            )


OURS: Mapping[str, Any] = {"weight_decay": 0.0, "clip_grad": 1.0, "precision": "auto", "prediction": "v"}

TEXT_TO_IMAGE: Mapping[str, TextToImageRecipe] = {
    # what ships: half a day on one CPU core with quick bfloat16
    "small": TextToImageRecipe(
        *((64, 96, 112), (False, True, False), 32_000),
        TrainConfig(
            steps=40_000,
            batch_size=64,
            lr=1e-3,
            warmup=300,
            ema_decay=0.9995,
            decay=0.4,
            noise_levels=(-0.4, 1.2),
            **OURS,
        ),
    ),
    # some minutes, for looking around
    "tiny": TextToImageRecipe(
        *((32, 48), (False, True), 2_000),
        TrainConfig(
            steps=1_000, batch_size=32, lr=2e-3, warmup=50, ema_decay=0.99, decay=0.4, noise_levels=(-0.4, 1.2), **OURS
        ),
    ),
}


def text_to_image_recipe(preset: str) -> TextToImageRecipe:
    """The recipe "small" or "tiny"; `UserError` for any other name.

    >>> text_to_image_recipe("tiny").train.steps
    1000
    """
    check(preset in TEXT_TO_IMAGE, f"unknown preset '{preset}'; choose one of: {', '.join(TEXT_TO_IMAGE)}")
    return TEXT_TO_IMAGE[preset]


class TextToImageObjective(Objective):
    """E‖v − v_θ(√ᾱ_t z0 + √(1 − ᾱ_t) ε, t, c)‖² on latents (arXiv 2112.10752, eq. 3; 2202.00512, appendix D for v).

    With probability `train.label_drop` a prompt is the empty one (arXiv 2207.12598, algorithm 1). The noise levels of
    `train.noise_levels` are those of latents whose variance is 1. Everything random follows from the run's seed.

    - model: the U-Net, which trains, of `drawing`, whose other parts are frozen, and its `clip`.
    """

    def __init__(self, drawing: TextToImage, clip: SmallClip, pool: LatentPool, train: TrainConfig):
        self.model, self.drawing, self.clip, self.pool, self.train = drawing.model, drawing, clip, pool, train
        frozen = {"autoencoder_hash": drawing.autoencoder, "text_encoder_hash": drawing.text_encoder}
        self.facts = {name: short_hash(part.state_dict().values()) for name, part in frozen.items()}
        self.facts |= {"pool": len(pool), "world_hash": pool.world_hash, "schedule": drawing.schedule.config}

    def batch(self, step: int) -> tuple[Tensor, ...]:
        pool, train = self.pool, self.train
        rows = batch_indices(step, len(pool), train)
        generator = generator_of(train.seed, 2, step)
        t = random_timesteps(len(rows), self.drawing.schedule, train, generator)
        eps = torch.randn((len(rows), *pool.latents.shape[1:]), generator=generator)
        said = drop_labels(pool.said[rows], train.label_drop, pool.null, generator)
        return pool.latents[rows], t, eps, pool.embeddings[said].float()

    def loss(self, network: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        z0, t, eps, prompts = batch
        schedule, prediction = self.drawing.schedule, self.train.prediction
        z = schedule.add_noise(z0, eps, t).contiguous(memory_format=torch.channels_last)
        return F.mse_loss(network(z, t, prompts).float(), training_target(z0, eps, t, schedule, prediction))

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the folder `model`, a pipeline of diffusers, beside where other runs write their file."""
        drawing, folder = self.drawing, path.with_suffix("")
        unet = plain(average).unet
        write_pipeline(folder, unet, drawing.autoencoder, self.clip, drawing.schedule, drawing.prediction, facts)


def train_text_to_image(
    preset: str = "small",
    out: str | Path = "runs/text_to_image",
    *,
    autoencoder: str | Path = "emoji",
    clip: str | Path = "emoji",
    init: str | Path | None = None,
    world: World | None = None,
    **options: Any,
) -> Iterator[TrainState]:
    """Train a small text-to-image model on the emoji world's core; yields a `TrainState` every step.

    It leaves a folder `model`, which `StableDiffusionPipeline.from_pretrained` and `load_text_to_image` read. Nothing
    held out is trained on.

    - preset: "small" (what ships) or "tiny". autoencoder: the folder `model` of a run of `dlcv train autoencoder`, or a
      pipeline's. clip: the `model.safetensors` of `dlcv train clip`, whose text half is frozen. "emoji": what ships.
    - init: the folder of a pipeline whose U-Net is gone on with, by a new optimiser.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `TrainConfig` to set
      otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, parts that are missing or do not fit, or as `training.run` does.

    >>> parts = {"autoencoder": "runs/autoencoder/model", "clip": "runs/clip/model.safetensors"}
    >>> for state in train_text_to_image("tiny", "runs/tiny_text_to_image", **parts):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe = text_to_image_recipe(preset)
    check_start(out, **options)
    names = {field.name for field in fields(TrainConfig)} & options.keys()
    config = replace(recipe.train, **{name: options.pop(name) for name in names})
    read, frozen = _clip(clip), _autoencoder(autoencoder)
    side = frozen.config.sample_size // 2 ** (len(frozen.config.block_out_channels) - 1)
    latent = (frozen.config.latent_channels, side, side)
    unet = recipe.build(latent, read.config.text_width, config.seed)
    begun = {}
    if init is not None:
        start_from(unet, init)
        begun = {"init_hash": short_hash(unet.state_dict().values())}
    parts = unet, frozen, text_model(read), text_tokenizer(read)
    drawing = TextToImage(*parts, SCHEDULE, config.prediction, name=f"text-to-image-{preset}").eval()
    for part in (frozen, drawing.text_encoder):
        part.requires_grad_(False)
    world = world or load_world()
    device, fast = devices.named_device(options.get("device")), config.precision != "no"
    pool = pool_of(drawing, world, recipe.scenes, config.seed, device, fast)
    objective = TextToImageObjective(drawing, read, pool, config)
    facts = {"name": drawing.name, "things": [name for name in world.core if name not in world.held_out_things]}
    facts |= {"artists": list(CALM.artists), "shares": dict(SHARES), **begun}
    return run(objective, config, out, metadata=facts, preview=Preview(drawing), **options)


def pool_of(
    drawing: TextToImage, world: World, count: int, seed: int, device: torch.device, fast: bool = False
) -> LatentPool:
    """The scenes that a model is trained on, encoded on a device; the model itself comes back to the CPU.

    - fast: the autoencoder computes in bfloat16 where the device is quick at it.
    """

    def encode(images: Tensor) -> Tensor:
        with devices.autocast(device, fast):
            return drawing.encode(images)

    devices.prepare(drawing, device)
    pool = LatentPool(world, encode, drawing.encode_prompts, count, seed)
    drawing.to("cpu")
    return pool


def start_from(unet: nn.Module, folder: str | Path) -> None:
    """Put the U-Net's weights of a pipeline's folder into another of the same sizes; `UserError` where they do not fit.

    >>> start_from(unet, "runs/text_to_image/model")   # doctest: +SKIP
    """
    advice = "give the folder `model` of a run of `dlcv train text-to-image` of the same preset"
    check(os.path.isfile(Path(folder, "unet", "config.json")), f"no U-Net in '{folder}'; {advice}")
    with quietly(), foreign(f"the U-Net in '{folder}' cannot be read", advice):
        found = type(unet).from_pretrained(folder, subfolder="unet", use_safetensors=True, local_files_only=True)
    load_state(unet, found.float().state_dict(), folder)


def _clip(clip: str | Path) -> SmallClip:
    shipped = CLIPS.get(str(clip))
    trained = "train it by `dlcv train clip`, and give runs/clip/model.safetensors (clip, --clip)"
    here = not shipped or os.path.exists(shipped)
    check(here, f"the weights of the CLIP '{clip}' are not in this version; {trained}")
    return read_small_clip(shipped or clip)


def _autoencoder(folder: str | Path) -> nn.Module:
    shipped = SHIPPED.get(str(folder))
    trained = "train it by `dlcv train autoencoder`, and give runs/autoencoder/model (autoencoder, --autoencoder)"
    here = not shipped or os.path.isdir(shipped)
    check(here, f"the weights of the autoencoder '{folder}' are not in this version; {trained}")
    return read_autoencoder(shipped or folder)


class Preview:
    """Draws `PROMPTS` with guidance 3, 25 steps of DPM-Solver++ and the same seeds each time."""

    def __init__(self, drawing: TextToImage):
        self.drawing = drawing
        self.prompts = drawing.encode_prompts(PROMPTS)

    def __call__(self, network: nn.Module, path: Path) -> None:
        now = self.drawing
        device = next(network.parameters()).device
        trained, now.model = now.model, network
        try:
            noise = seeded_noise((len(PROMPTS), *now.shape), range(len(PROMPTS)), device)
            denoise = guided(now, self.prompts, w=guidance_weight(3.0))
            write_sheet(now.decode(last(dpm_solver(denoise, noise, steps=25)).x), path, columns=6)
        finally:
            now.model = trained
