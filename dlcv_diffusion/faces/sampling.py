"""Problem 2's sampling: faces from noises by DDIM, and the folder of them that is handed in."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from ..declared import declared
from ..denoiser import Denoiser
from ..errors import check
from ..files import staging_folder
from ..images.pixels import stretched, to_uint8
from ..noise import checked_seeds
from ..samplers import Step, ddim
from ..sampling import Sampling, Steps, in_batches
from ..schedule import NoiseSchedule

BATCH_PIXELS = 16 * 256 * 256  # pixels at a time on a GPU, by default


@declared
class FaceSampling(Sampling):
    """How faces are sampled: DDIM (arXiv 2010.02502, eq. 12), with every choice that implementations differ in.

    - steps: how many of the schedule's timesteps. eta: η, from 0 (the face follows from its noise) to 1 (as DDPM).
    - spacing: which timesteps, "uniform" as in the paper, or "trailing", which begins where x_T belongs; see
      `NoiseSchedule.timesteps`. offset: added to each of them; 1 ends at t = 1 instead of 0.
    - final_alpha: ᾱ after the last step: "one", the clean image (the paper), or "first", ᾱ_0.
    - clip_x0: predicted x0 is clamped to ±clip_x0 at every step; None leaves it alone (the paper).
    - rederive_eps: ε is then taken from the clamped x0 instead of from the network; only with clip_x0.
    - save: how x becomes 0 … 255: "clamp" takes [−1, 1] for the whole range and cuts off what is outside; "min_max"
      stretches each face so that its least value is 0 and its greatest 255, which hides a loss of contrast as lerp's.
    - fast: see `Sampling`.

    The defaults are the paper's. `PRESETS["course"]` has the course's conventions, as far as public solutions tell: t
    from 981 to 1, then to ᾱ_0, x0 clamped, each image stretched as it is saved.

    Raises `UserError` for what does not fit.

    >>> FaceSampling(steps=20, eta=0.5).facts()
    {'sampler': 'ddim', 'steps': 20, 'eta': 0.5}
    """

    steps: Steps = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    _: KW_ONLY
    spacing: Literal["trailing", "uniform"] = "uniform"
    offset: int = 0
    final_alpha: Literal["one", "first"] = "one"
    clip_x0: Annotated[float, Field(gt=0)] | None = None
    rederive_eps: bool = False
    save: Literal["clamp", "min_max"] = "clamp"

    def __post_init__(self) -> None:
        clamped = not self.rederive_eps or self.clip_x0 is not None
        check(clamped, "rederive_eps does nothing where x0 is not clamped; give clip_x0 too, such as 1")

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The timesteps that are visited, descending. Raises `UserError` where they leave the schedule."""
        return schedule.timesteps(self.steps, self.spacing, self.offset)

    def run(self, denoise: Denoiser, x_T: Tensor, seeds: Sequence[int] | None = None) -> Iterator[Step]:
        """DDIM from x_T, (B, C, H, W), step by step; `seeds`, one for each image, give the z of η > 0."""
        return ddim(
            denoise,
            x_T,
            steps=self.timesteps(denoise.schedule),
            eta=self.eta,
            final_alpha=self.final_alpha,
            clip_x0=self.clip_x0,
            rederive_eps=self.rederive_eps,
            seeds=seeds,
        )

    def pixels(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) as uint8, as `save` says.

        >>> FaceSampling(save="min_max").pixels(torch.tensor([[[[0.0, 0.2, 0.5]]]])).flatten().tolist()
        [0, 102, 255]
        """
        return to_uint8(stretched(x) if self.save == "min_max" else x)

    def facts(self) -> dict[str, object]:
        """What belongs below a figure: steps and η, and whatever is not the paper's."""
        others = {field.name: getattr(self, field.name) for field in fields(self)}
        others = {name: value for name, value in others.items() if value != getattr(PAPER, name)}
        return {"sampler": "ddim", "steps": self.steps, "eta": self.eta, **others}


PAPER = FaceSampling()
COURSE = FaceSampling(offset=1, final_alpha="first", clip_x0=1.0, save="min_max")
PRESETS = {"paper": PAPER, "course": COURSE}


def sample_faces(
    denoise: Denoiser,
    x_T: Tensor,
    config: FaceSampling | None = None,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Faces as uint8 images (N, C, H, W) on the CPU: face i depends on x_T[i], and for η > 0 on seeds[i], alone.

    - denoise: `load_denoiser("faces")`, on the device to work on.
    - x_T: noises (N, C, H, W) from N(0, I), such as `read_noises` or `seeded_noise` gives.
    - seeds: N integers for the z of η > 0; 0, 1, 2, … by default.
    - batch_size: 16 on a CPU, by default, and as many as fill a gigabyte or two on a GPU.
    - progress: a bar that counts faces.

    Raises `UserError` for noises of another size than the denoiser's, or another number of seeds than of noises.

    >>> faces = sample_faces(load_denoiser("faces"), seeded_noise((4, 1, 64, 64), range(4)))   # doctest: +SKIP
    """
    config = config or PAPER
    parts = _finished(denoise, x_T, config, seeds, batch_size, progress)
    return torch.cat([config.pixels(x).cpu() for x in parts])


def draw(denoise: Denoiser, x_T: Tensor, *, seeds: Sequence[int] | None = None, **choices: Any) -> Tensor:
    """Faces as the sampler leaves them, float (N, C, H, W) on the CPU, mostly in [−1, 1]: to measure, or to go on with.

    - x_T, seeds: as for `sample_faces`; choices: fields of `FaceSampling`, such as steps=20, eta=0.5.

    Raises `UserError` as `FaceSampling` and `sample_faces` do.

    >>> draw(load_denoiser("faces"), seeded_noise((4, 1, 64, 64), range(4)), steps=20).shape   # doctest: +SKIP
    torch.Size([4, 1, 64, 64])
    """
    return torch.cat([x.cpu() for x in _finished(denoise, x_T, FaceSampling(**choices), seeds)])


def _finished(
    denoise: Denoiser,
    x_T: Tensor,
    config: FaceSampling,
    seeds: Sequence[int] | None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Iterator[Tensor]:
    check_noises(denoise, x_T)
    seeds = checked_seeds(range(len(x_T)) if seeds is None else seeds, len(x_T), "noises")
    on_gpu = max(1, BATCH_PIXELS // x_T[0, 0].numel())
    return in_batches(
        lambda part: config.run(denoise, x_T[part].to(denoise.device, torch.float32), seeds[part]),
        len(x_T),
        config.steps,
        denoise.device,
        batch_size=(16 if denoise.device.type == "cpu" else on_gpu) if batch_size is None else batch_size,
        fast=config.fast,
        progress=progress,
    )


def check_noises(denoise: Denoiser, x_T: Tensor) -> None:
    """Raise `UserError` unless x_T is (N, C, H, W), N ≥ 1, finite, and of the size that the denoiser draws."""
    check(denoise.null is None, f"the weights '{denoise.name}' draw classes by label; choose weights of faces")
    given = tuple(x_T.shape) if isinstance(x_T, Tensor) else type(x_T).__name__
    fits = isinstance(x_T, Tensor) and x_T.ndim == 4 and len(x_T)
    check(fits, f"noises are a torch tensor (N, C, H, W), N at least 1, not {given}; x_T[None] makes a batch of one")
    check(x_T.isfinite().all(), "there are numbers in the noises that are not finite (NaN or infinite); give others")
    there, drawn = ("×".join(map(str, size or ())) for size in (x_T.shape[1:], denoise.shape))
    what = f"the noises are {there}, but the weights '{denoise.name}' draw {drawn}"
    check(denoise.shape in (None, tuple(x_T.shape[1:])), f"{what}; make others with `dlcv noise DIR --like WEIGHTS`")


def seeds_of(names: Sequence[str], seed: int = 0) -> list[int]:
    """The seeds of the z of η > 0 for noises of these names: `seed` + k for "k", whatever other noises there are.

    Where a name is no number, all take `seed` plus their place.

    >>> seeds_of(["05", "07"], 100), seeds_of(["a", "b"], 100)
    ([105, 107], [100, 101])
    """
    numbers = [int(name) if re.fullmatch("[0-9]+", name) else None for name in names]
    return [seed + number for number in (range(len(names)) if None in numbers else numbers)]


def write_hw2_faces(
    noises: str | Path,
    out: str | Path,
    denoise: Denoiser,
    config: FaceSampling | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Path]:
    """Sample and write what the course asks for: a face for each noise `00.pt …`, named after it, `00.png …`.

    - noises: the folder of them, see `data.noises`.
    - seed: for η > 0 the noise k.pt takes the seed `seed` + k, whatever other noises there are; where a name is no
      number, all take `seed` plus their place.

    The files appear under their names only when every one of them is written; files of the same names are replaced.

    Raises `UserError` for noises that cannot be read or have another size than the model's, and where `out` is a file,
    or cannot be written (found out before the sampling).

    >>> write_hw2_faces("hw2_data/face/noise", "out", denoise, PRESETS["course"])   # doctest: +SKIP
    """
    from .noises import noise_files, read_noises

    names = [path.stem for path in noise_files(noises)]
    x_T = read_noises(noises)
    check(x_T.shape[1] in (1, 3), f"a picture has 1 or 3 channels; the noises in '{noises}' have {x_T.shape[1]}")
    seeds = seeds_of(names, seed)
    with staging_folder(out) as staging:
        faces = sample_faces(denoise, x_T, config, seeds=seeds, batch_size=batch_size, progress=progress)
        for name, face in zip(names, faces.permute(0, 2, 3, 1), strict=True):
            Image.fromarray(face.squeeze(-1).numpy()).save(staging / f"{name}.png")
    return [Path(out) / f"{name}.png" for name in names]
