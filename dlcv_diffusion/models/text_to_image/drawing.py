"""Pictures of prompts: guided DPM-Solver++ in the latents, and the decoder."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import check
from ...guidance import guidance_weight, guided
from ...noise import checked_seeds, seeded_noise
from ...samplers import Denoise, dpm_solver
from ...sampling import in_batches
from .denoiser import TextToImage

AT_ONCE = 64
"""Pictures that are drawn at a time, of 16×16 latents; of larger ones fewer."""


def draw(
    sd: TextToImage,
    prompts: Sequence[str],
    seeds: Sequence[int] | None = None,
    *,
    scale: float = 6.0,
    steps: int = 25,
    told: Callable[[slice], Denoise] | None = None,
    progress: bool = False,
) -> Tensor:
    """A picture of each prompt, uint8 (N, 3, H, W) on the CPU.

    - seeds: of each picture's noise, 0 … N − 1 by default. scale: Stable Diffusion's `guidance_scale`.
    - told: another way to tell the model what to draw: of the pictures of a slice, a denoiser; see `composed`.
    - progress: shows a bar.

    Raises `UserError` for no prompt, another number of seeds, and prompts that are too long.

    >>> draw(sd, ["a fox", "an owl"]).shape   # doctest: +SKIP
    torch.Size([2, 3, 64, 64])
    """
    check(prompts and not isinstance(prompts, str), "prompts are a list of texts, one or more")
    seeds = checked_seeds(range(len(prompts)) if seeds is None else seeds, len(prompts), "prompts")
    if told is None:
        different = list(dict.fromkeys(prompts))
        embeddings, rows = sd.encode_prompts(different), [different.index(prompt) for prompt in prompts]

        def told(part: slice) -> Denoise:
            return guided(sd, embeddings[rows[part]], guidance_weight(scale))

    def run(part: slice):
        noise = seeded_noise((part.stop - part.start, *sd.shape), seeds[part], sd.device)
        return dpm_solver(told(part), noise, steps=steps)

    at_once = max(1, AT_ONCE * 16 * 16 // (sd.shape[1] * sd.shape[2]))
    parts = in_batches(run, len(prompts), steps, sd.device, batch_size=at_once, progress=progress)
    return torch.cat([sd.decode(z) for z in parts])
