"""Pictures ↔ latents: the autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752, section 3.1).

z = s · E(x), x̂ = D(z / s), where s, the autoencoder's `scaling_factor`, makes the variance of z one (appendix G).
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import check
from ...images.pixels import to_uint8, to_x0
from ...samplers import evaluating
from ..foreign import foreign, quietly

AT_ONCE = 64
"""Pictures that are encoded or decoded at a time, of 64×64 pixels; of larger ones fewer."""


def encode(autoencoder: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Latents z = s · E(x), (B, c, h, w) float32 on the autoencoder's device, of uint8 images (B, 3, H, W).

    - generator: of the CPU; with it, a sample of the encoder's distribution N(μ, σ²), without it the mean μ.

    Raises `UserError` for images that are not uint8, or whose sides the autoencoder cannot halve as often as it must.

    >>> encode(pipeline.vae, images).shape   # doctest: +SKIP
    torch.Size([8, 4, 16, 16])
    """
    factor = downsampling(autoencoder)
    given = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    fits = images.ndim == 4 and images.shape[1] == 3 and images.dtype == torch.uint8
    check(fits, f"pictures to encode are uint8 (B, 3, H, W), 0 … 255, as files have them, not {given}")
    even = all(side % factor == 0 and side for side in images.shape[2:])
    check(even, f"the sides of pictures to encode are multiples of {factor} pixels, not {images.shape[2:]}")
    found = []
    with evaluating([*autoencoder.modules()]):
        for part in images.split(_at_once(images.shape[2] * images.shape[3])):
            drawn = autoencoder.encode(to_x0(part).to(autoencoder.device, autoencoder.dtype)).latent_dist
            z = drawn.mean.float()
            if generator is not None:
                z = z + drawn.std.float() * torch.randn(z.shape, generator=generator).to(z.device)
            found.append(z * autoencoder.config.scaling_factor)
    return torch.cat(found) if found else torch.empty(0, autoencoder.config.latent_channels, 0, 0)


def decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Pictures D(z / s), uint8 (B, 3, H, W) on the CPU, of latents (B, c, h, w).

    Raises `UserError` for latents of other channels, or that are not finite.

    >>> decode(pipeline.vae, z).shape   # doctest: +SKIP
    torch.Size([8, 3, 64, 64])
    """
    channels, factor = autoencoder.config.latent_channels, downsampling(autoencoder)
    fits = latents.ndim == 4 and latents.shape[1] == channels
    check(fits, f"latents to decode are (B, {channels}, h, w), not {tuple(latents.shape)}")
    found = []
    with evaluating([*autoencoder.modules()]):
        for part in latents.split(_at_once(latents.shape[2] * latents.shape[3] * factor**2)):
            z = (part.float() / autoencoder.config.scaling_factor).to(autoencoder.device, autoencoder.dtype)
            found.append(to_uint8(autoencoder.decode(z).sample).cpu())
    return torch.cat(found) if found else torch.empty(0, 3, 0, 0, dtype=torch.uint8)


def downsampling(autoencoder: Any) -> int:
    """How many pixels a side one latent stands for: 8 in Stable Diffusion, 4 in the autoencoder of the emoji world.

    >>> downsampling(pipeline.vae)   # doctest: +SKIP
    8
    """
    return 2 ** (len(autoencoder.config.block_out_channels) - 1)


def _at_once(pixels: int) -> int:
    return max(1, AT_ONCE * 64 * 64 // max(1, pixels))


def read_autoencoder(folder: str | Path) -> Any:
    """diffusers' `AutoencoderKL` of a folder, in eval mode and float32 on the CPU; or of a pipeline's, its `vae`.

    Raises `UserError` for a folder that is not there, or whose files are damaged or do not fit.

    >>> read_autoencoder("runs/autoencoder/model").config.latent_channels   # doctest: +SKIP
    4
    """
    from diffusers import AutoencoderKL

    whole = Path(folder, "vae")
    path = whole if whole.is_dir() else Path(folder)
    known = "give the folder `model` of a run of `dlcv train autoencoder`, or that of an AutoencoderKL of diffusers"
    check(os.path.isfile(path / "config.json"), f"no autoencoder in '{folder}'; {known}")
    with quietly(), foreign(f"the autoencoder in '{path}' cannot be read", known):
        return AutoencoderKL.from_pretrained(path, use_safetensors=True, local_files_only=True).float().eval()
