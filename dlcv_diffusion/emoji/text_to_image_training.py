"""Training a small Stable Diffusion on the emoji world: latents, a frozen text encoder, a small U-Net, v-prediction."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import device as devices
from ..errors import check
from ..guidance import guidance_weight, guided
from ..models.clip.loading import SHIPPED as CLIPS
from ..models.clip.small import SmallClip, read_small_clip
from ..models.clip.to_transformers import text_model, text_tokenizer
from ..models.registry import load_state, plain, shipped_path, short_hash
from ..models.text_to_image import TextToImage, load_text_to_image, read_autoencoder
from ..models.text_to_image.latents import downsampling
from ..models.text_to_image.loading import SHIPPED
from ..models.text_to_image.saving import write_pipeline
from ..noise import seeded_noise, seeded_weights
from ..samplers import dpm_solver, last
from ..schedule import NoiseSchedule
from ..training.checkpoints import differences
from ..training.config import TrainConfig, with_options
from ..training.loop import TrainState, check_start, run
from ..training.objective import DiffusionObjective
from ..training.recipe import recipe_of, write_sheet
from .sprites import SIDE
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
        with seeded_weights(seed):
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

    def sizes(self) -> dict[str, Any]:
        """What makes the U-Net the network it is, for a run's facts: the weights alone do not tell heads and groups.

        >>> TEXT_TO_IMAGE["tiny"].sizes()["channels"]
        (32, 48)
        """
        return {name: value for name, value in asdict(self).items() if name not in ("scenes", "train")}


OURS: Mapping[str, Any] = {"weight_decay": 0.0, "clip_grad": 1.0, "precision": "auto", "prediction": "v"}

TEXT_TO_IMAGE: Mapping[str, TextToImageRecipe] = {
    # what ships: an hour and a half on two CPU cores
    "small": TextToImageRecipe(
        *((64, 96, 112), (False, True, False), 32_000),
        TrainConfig(
            steps=8_000,
            batch_size=64,
            lr=1e-3,
            warmup=300,
            ema_decay=0.9995,
            decay=0.4,
            noise_levels=(-0.4, 1.2),
            **OURS,
        ),
    ),
    # for looking around
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
    return recipe_of(TEXT_TO_IMAGE, preset)


@dataclass(frozen=True)
class TextToImageObjective(DiffusionObjective):
    """`DiffusionObjective` of latents z0 that are told by prompts: E‖v − v_θ(√ᾱ_t z0 + √(1 − ᾱ_t) ε, t, c)‖² (arXiv
    2112.10752, eq. 3), or of ε or z0, as `config` says.

    With probability `config.label_drop` a prompt is the empty one (arXiv 2207.12598, algorithm 1). The noise levels of
    `config.noise_levels` are those of latents whose variance is 1. Everything random follows from the run's seed.

    - model: the U-Net of `drawing`, which trains; the other parts of `drawing` are frozen, and its text encoder is that
      of `clip`. data: what is drawn, and told.

    Raises `UserError` for latents of another size than the U-Net's, and for flip=True: a latent is not to be mirrored.

    >>> objective = TextToImageObjective(sd.model, pool, sd.schedule, config, sd, clip)   # doctest: +SKIP
    """

    data: LatentPool
    drawing: TextToImage
    clip: SmallClip

    def __post_init__(self) -> None:
        found, wanted = tuple(self.data.latents.shape[1:]), self.drawing.shape
        check(found == wanted, f"the autoencoder makes latents {found} of the scenes, and the U-Net draws {wanted}")
        check(not self.config.flip, "latents are not mirrored as pictures are; leave flip out")

    @property
    def null(self) -> int:
        return self.data.null

    @cached_property
    def facts(self) -> dict[str, Any]:
        frozen = {"autoencoder_hash": self.drawing.autoencoder, "text_encoder_hash": self.drawing.text_encoder}
        hashes = {name: short_hash(part.state_dict().values()) for name, part in frozen.items()}
        return {**hashes, **self.data.facts, "pool": len(self.data), "schedule": self.schedule.config}

    def batch(self, step: int) -> tuple[Tensor, ...]:
        z0, said, t, eps = super().batch(step)
        return z0, self.data.embeddings[said].float(), t, eps

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the folder `model`, a pipeline of diffusers, beside where other runs write their file."""
        folder, parts = path.with_suffix(""), (plain(average).unet, self.drawing.autoencoder, self.clip)
        write_pipeline(folder, *parts, self.schedule, self.config.prediction, facts)


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
    - init: the folder of a pipeline of these parts, whose U-Net is gone on with, by a new optimiser.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `TrainConfig` to set
      otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, parts that are missing or do not fit, or as `training.run` does.

    >>> parts = {"autoencoder": "runs/autoencoder/model", "clip": "runs/clip/model.safetensors"}
    >>> for state in train_text_to_image("tiny", "runs/tiny_text_to_image", **parts):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe = text_to_image_recipe(preset)
    check_start(out, **options)
    config = with_options(recipe.train, options)
    read, frozen = _clip(clip), _autoencoder(autoencoder)
    side = SIDE // downsampling(frozen)  # of a scene's latents, whatever size the autoencoder was trained on
    unet = recipe.build((frozen.config.latent_channels, side, side), read.config.text_width, config.seed)
    parts = unet, frozen, text_model(read), text_tokenizer(read)
    drawing = TextToImage(*parts, SCHEDULE, config.prediction, name=f"text-to-image-{preset}").eval()
    begun = {}
    if init is not None:
        start_from(drawing, init)
        begun = {"init": short_hash(unet.state_dict().values())}
    world = world or load_world()
    device, fast = devices.named_device(options.get("device")), config.precision != "no"
    pool = pool_of(drawing, world, recipe.scenes, config.seed, device, fast)
    objective = TextToImageObjective(drawing.model, pool, SCHEDULE, config, drawing, read)
    facts = {"name": drawing.name, "things": [name for name in world.core if name not in world.held_out_things]}
    facts |= {"artists": list(CALM.artists), "shares": dict(SHARES), "unet": recipe.sizes(), **begun}
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


def start_from(drawing: TextToImage, folder: str | Path) -> None:
    """Put the U-Net's weights of a pipeline's folder into a model of the same parts, schedule and prediction.

    Raises `UserError` for a pipeline of others: its U-Net would be told, or asked for, what it does not know.

    >>> start_from(drawing, "runs/text_to_image/model")   # doctest: +SKIP
    """
    begun = load_text_to_image(folder, "cpu")
    configs = ({k: v for k, v in each.unet.config.items() if not k.startswith("_")} for each in (begun, drawing))
    changed = differences(*configs)
    check(not changed, f"the U-Net in '{folder}' is another ({changed:.200}); give one of the same preset")
    ways = ((each.schedule.config, each.prediction) for each in (begun, drawing))
    check(next(ways) == next(ways), f"the U-Net in '{folder}' was trained on another schedule or prediction")
    options = {"autoencoder": "autoencoder (--autoencoder)", "text_encoder": "CLIP (clip, --clip)"}
    for part, option in options.items():  # in half precision, as they are saved
        states = (getattr(each, part).state_dict().values() for each in (begun, drawing))
        then, now = (short_hash(weight.half() for weight in state) for state in states)
        check(then == now, f"the U-Net in '{folder}' was trained with another {option}; give that one")
    load_state(drawing.unet, begun.unet.state_dict(), folder)


def _clip(clip: str | Path) -> SmallClip:
    trained = "train it by `dlcv train clip`, and give runs/clip/model.safetensors (clip, --clip)"
    return read_small_clip(shipped_path(str(clip), CLIPS, "CLIP", trained) or clip)


def _autoencoder(folder: str | Path) -> nn.Module:
    trained = "train it by `dlcv train autoencoder`, and give runs/autoencoder/model (autoencoder, --autoencoder)"
    return read_autoencoder(shipped_path(str(folder), SHIPPED, "autoencoder", trained) or folder)


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
