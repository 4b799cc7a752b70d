"""Problem 2 in three calls: a denoiser of faces, faces from noises, and the course's folder of them."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .. import device as devices
from ..denoiser import EpsDenoiser
from ..digits.sampling import schedule_of
from ..errors import UserError
from ..files import staging_folder
from ..images.pixels import stretched, to_uint8
from ..models.registry import load_model, shipped_weights
from ..samplers import Denoiser, Step, check_eta, ddim
from ..schedule import SPACINGS, NoiseSchedule

SAVING = ("clamp", "min_max")
BATCH_PIXELS = 16 * 256 * 256  # pixels at a time on a GPU, by default
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class FaceSampling:
    """How faces are sampled: DDIM (arXiv 2010.02502, eq. 12), with every choice that implementations differ in.

    - steps: how many of the schedule's timesteps. eta: η, from 0 (the face follows from its noise) to 1 (as DDPM).
    - spacing: which timesteps, see `NoiseSchedule.timesteps`: "uniform" is the paper's. offset: added to each of them;
      1 ends at t = 1 instead of 0.
    - final_alpha: ᾱ after the last step: "one", the clean image (the paper), or "first", ᾱ_0.
    - clip_x0: predicted x0 is clamped to ±clip_x0 at every step; None leaves it alone (the paper).
    - rederive_eps: ε is then taken from the clamped x0 instead of from the network; only with clip_x0.
    - save: how x becomes 0 … 255: "clamp" takes [−1, 1] for the whole range and cuts off what is outside; "min_max"
      stretches each face so that its least value is 0 and its greatest 255, which hides a loss of contrast as lerp's.

    The defaults are the paper's. `PRESETS["course"]` has the course's conventions as far as they can be told from
    solutions of its students, since its own code is not public: t from 981 to 1, then to ᾱ_0, x0 clamped, each image
    stretched as it is saved. Which saving comes nearest to the reference images has not been measured.

    Raises `UserError` for an unknown option, steps below 1, or numbers out of range.

    >>> FaceSampling(steps=20, eta=0.5).facts()
    {'sampler': 'ddim', 'steps': 20, 'eta': 0.5}
    """

    steps: int = 50
    eta: float = 0.0
    spacing: str = "uniform"
    offset: int = 0
    final_alpha: str = "one"
    clip_x0: float | None = None
    rederive_eps: bool = False
    save: str = "clamp"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"cannot sample in {self.steps} steps; choose at least 1")
        check_eta(self.eta)
        for name, choices in {"spacing": SPACINGS, "final_alpha": ("one", "first"), "save": SAVING}.items():
            if getattr(self, name) not in choices:
                raise UserError(f"unknown {name} '{getattr(self, name)}'; choose one of {', '.join(choices)}")
        if self.clip_x0 is not None and not 0 < self.clip_x0 < math.inf:
            raise UserError(f"clip_x0 is {self.clip_x0}; it must be a positive number, such as 1, or none")
        if self.rederive_eps and self.clip_x0 is None:
            raise UserError("rederive_eps does nothing where x0 is not clamped; give clip_x0 too, such as 1")

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The timesteps that are visited, descending. Raises `UserError` where they leave the schedule."""
        return schedule.timesteps(self.steps, self.spacing, self.offset)

    def run(self, denoise: EpsDenoiser, x_T: Tensor, seeds: Sequence[int] | None = None) -> Iterator[Step]:
        """DDIM from x_T, (B, C, H, W), step by step; `seeds`, one for each image, give the z of η > 0."""
        return ddim(
            denoise,
            x_T,
            denoise.schedule,
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
        standard = {name: field.default for name, field in self.__dataclass_fields__.items()}
        others = {name: value for name, value in vars(self).items() if value != standard[name]}
        return {"sampler": "ddim", "steps": self.steps, "eta": self.eta, **others}


PAPER = FaceSampling()
COURSE = FaceSampling(offset=1, final_alpha="first", clip_x0=1.0, save="min_max")
PRESETS = {"paper": PAPER, "course": COURSE}


def face_denoiser(
    weights: str | Path = "faces", *, unet_py: str | Path | None = None, device: torch.device | str | None = None
) -> EpsDenoiser:
    """A face model, whichever it is, as the denoiser that samplers and figures take, on its device.

    - weights: "faces" (shipped), a .safetensors file of `dlcv train faces`; the course's `UNet.pt`, together with
      `unet_py`, the course's `UNet.py`; a folder of diffusers with a `UNet2DModel`, or its name on the hub, such as
      "google/ddpm-celebahq-256".
    - device: the best there is by default.

    Raises `UserError` for weights that are missing, damaged, or draw something else.

    >>> face_denoiser("hw2_data/face/UNet.pt", unet_py="UNet.py").image_size   # doctest: +SKIP
    (3, 256, 256)
    """
    name, path = str(weights), Path(weights)
    if path.suffix in (".pt", ".pth"):
        from .course_unet import hw2_unet

        if unet_py is None:
            raise UserError(f"'{path}' holds weights without a network; give its code too, unet_py (--unet-py UNet.py)")
        denoise = hw2_unet(unet_py, path)
    elif unet_py is not None:
        raise UserError(f"unet_py (--unet-py) does nothing for the weights '{name}'; it goes with a .pt file")
    elif name not in shipped_weights() and (path.is_dir() or _may_be_on_the_hub(name)):
        from ..models.diffusers_unet import diffusers_unet

        denoise = diffusers_unet(weights)
    else:
        if name not in shipped_weights() and not path.exists():
            raise UserError(
                f"no weights at '{name}'; give 'faces', a .safetensors file, the course's UNet.pt, or a folder or hub "
                "name of diffusers"
            )
        denoise = own_denoiser(load_model(weights), name)
    denoise.model = devices.prepare(denoise.model, device, channels_last=True)
    return denoise


def own_denoiser(model: nn.Module, name: str = "") -> EpsDenoiser:
    """The denoiser of a model of this package, by the facts it was saved with: schedule, prediction, image size.

    Raises `UserError` for a model that draws by label.

    >>> own_denoiser(load_model("runs/faces/model.safetensors")).prediction   # doctest: +SKIP
    'v'
    """
    facts = getattr(model, "metadata", {})
    if getattr(model, "num_classes", 0):
        raise UserError(f"the weights '{name}' draw {model.num_classes} classes by label; choose weights of faces")
    size = facts.get("image_size")
    return EpsDenoiser(
        model,
        schedule_of(model),
        facts.get("prediction") or facts.get("train", {}).get("prediction", "eps"),
        image_size=tuple(size) if size else None,
        name=facts.get("name", Path(name).stem),
    )


def sample_faces(
    denoise: EpsDenoiser,
    x_T: Tensor,
    config: FaceSampling | None = None,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    fast: bool = False,
    progress: bool = False,
) -> Tensor:
    """Faces as uint8 images (N, C, H, W) on the CPU: face i depends on x_T[i], and for η > 0 on seeds[i], alone.

    - x_T: noises (N, C, H, W) from N(0, I), such as `read_noises` or `seeded_noise` gives.
    - seeds: N integers for the z of η > 0; 0, 1, 2, … by default.
    - batch_size: 16 on a CPU, by default, and as many as fill a gigabyte or two on a GPU.
    - device: where the model is, by default; or it is moved there and stays.
    - fast: bfloat16 where the device is quick at it, which moves pixels by a level or two of 255.
    - progress: a bar that counts faces.

    Raises `UserError` for noises of another size than the model's, or another number of seeds than of noises.

    >>> faces = sample_faces(face_denoiser(), seeded_noise((4, 1, 64, 64), range(4)))   # doctest: +SKIP
    """
    config = config or PAPER
    if device is not None:
        denoise.model = devices.prepare(denoise.model, device, channels_last=True)
    parts = _drawn(denoise, x_T, config, seeds, batch_size, fast=fast, progress=progress)
    return torch.cat([config.pixels(x).cpu() for x in parts])


def draw(denoise: EpsDenoiser, x_T: Tensor, *, seeds: Sequence[int] | None = None, **choices: Any) -> Tensor:
    """Faces as the sampler leaves them, float (N, C, H, W) on the CPU, mostly in [−1, 1]: to measure, or to go on with.

    - x_T: noises (N, C, H, W); seeds: N integers for the z of η > 0; 0, 1, 2, … by default.
    - choices: fields of `FaceSampling`, such as steps=20, eta=0.5.

    Raises `UserError` as `FaceSampling` and `sample_faces` do.

    >>> draw(face_denoiser(), seeded_noise((4, 1, 64, 64), range(4)), steps=20).shape   # doctest: +SKIP
    torch.Size([4, 1, 64, 64])
    """
    return torch.cat([x.cpu() for x in _drawn(denoise, x_T, FaceSampling(**choices), seeds)])


def _drawn(
    denoise: EpsDenoiser,
    x_T: Tensor,
    config: FaceSampling,
    seeds: Sequence[int] | None,
    batch_size: int | None = None,
    *,
    fast: bool = False,
    progress: bool = False,
) -> Iterator[Tensor]:
    """The finished x of one batch after another, on the model's device."""
    from tqdm.auto import tqdm

    check_noises(denoise, x_T)
    seeds = list(range(len(x_T)) if seeds is None else seeds)
    if len(seeds) != len(x_T):
        raise UserError(f"{len(seeds)} seeds for {len(x_T)} noises; give one of each for every face")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"cannot draw {batch_size} faces at a time; choose a batch size of at least 1")
    total = len(config.timesteps(denoise.schedule))
    place = device_of(denoise)
    batch_size = batch_size or (16 if place.type == "cpu" else max(1, BATCH_PIXELS // x_T[0, 0].numel()))
    with tqdm(total=len(x_T), unit="face", disable=None if progress else True) as bar:
        for first in range(0, len(x_T), batch_size):
            part = slice(first, first + batch_size)
            count = len(x_T[part])
            with devices.autocast(place, "auto" if fast else torch.float32):
                walk = config.run(denoise, x_T[part].to(place, torch.float32), seeds[part])
                for number, step in enumerate(walk, start=1):
                    x = step.x
                    bar.update(first + count * number // total - bar.n)
            yield x


def check_noises(denoise: EpsDenoiser, x_T: Tensor) -> None:
    """Raise `UserError` unless x_T is (N, C, H, W), N ≥ 1, of the size that the denoiser draws."""
    if not isinstance(x_T, Tensor):
        raise UserError(
            f"noises are a torch tensor (N, C, H, W), not a {type(x_T).__name__}; torch.as_tensor makes one"
        )
    if x_T.ndim != 4:
        raise UserError(f"noises are a batch (N, C, H, W), not {tuple(x_T.shape)}; x_T[None] makes a batch of one")
    if len(x_T) == 0:
        raise UserError("there are no noises in the batch; give at least one")
    if not x_T.isfinite().all():
        raise UserError("there are numbers in the noises that are not finite (NaN or infinite); give others")
    wanted = denoise.image_size
    if wanted is not None and tuple(x_T.shape[1:]) != tuple(wanted):
        there, drawn = ("×".join(map(str, size)) for size in (x_T.shape[1:], wanted))
        raise UserError(
            f"the noises are {there}, but the weights '{denoise.name}' draw {drawn}; choose others, or make noises "
            f"with `dlcv noise`"
        )


def seeds_of(names: Sequence[str], seed: int = 0) -> list[int]:
    """The seeds of the z of η > 0 for noises of these names: `seed` + k for "k", whatever other noises there are.

    Where a name is no number, all take `seed` plus their place.

    >>> seeds_of(["05", "07"], 100), seeds_of(["a", "b"], 100)
    ([105, 107], [100, 101])
    """
    numbers = [int(name) if re.fullmatch("[0-9]+", name) else None for name in names]
    return [seed + number for number in (range(len(names)) if None in numbers else numbers)]


def device_of(denoise: Denoiser) -> torch.device:
    """Where a denoiser's model is, found as samplers find it; the CPU where it has no parameters."""
    model: object = denoise
    while model is not None and not isinstance(model, nn.Module):
        model = getattr(model, "model", None)
    weight = next(model.parameters(), None) if model is not None else None
    return torch.device("cpu") if weight is None else weight.device


def write_hw2_faces(
    noises: str | Path,
    out: str | Path,
    denoise: EpsDenoiser,
    config: FaceSampling | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    fast: bool = False,
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
    if x_T.shape[1] not in (1, 3):
        raise UserError(f"a picture has 1 or 3 channels; the noises in '{noises}' have {x_T.shape[1]}")
    seeds = seeds_of(names, seed)
    options = {"batch_size": batch_size, "device": device, "fast": fast, "progress": progress}
    with staging_folder(out) as staging:
        faces = sample_faces(denoise, x_T, config, seeds=seeds, **options)
        for name, face in zip(names, faces.permute(0, 2, 3, 1), strict=True):
            Image.fromarray(face.squeeze(-1).numpy()).save(staging / f"{name}.png")
    return [Path(out) / f"{name}.png" for name in names]


def _may_be_on_the_hub(name: str) -> bool:
    """Whether it is "owner/name" and not a path that was mistyped: of that, the folder above exists."""
    path = Path(name)
    return HUB_NAME.fullmatch(name) is not None and path.suffix != ".safetensors" and not path.parent.exists()
