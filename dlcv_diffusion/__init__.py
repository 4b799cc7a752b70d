"""Diffusion models from the first noise to a finished picture, with the course's homework as the thread.

Everything we sample from is a denoiser, a callable `denoise(x, t) -> eps`:

    schedule = NoiseSchedule.linear(350)
    denoise = guided(model, labels, w=2.0)
    x_T = seeded_noise((10, 3, 28, 28), seeds=range(10))
    image = last(ddim(denoise, x_T, schedule, steps=20)).x

What is here needs torch and numpy only. Models, data, training and figures are imported from their own
modules.
"""

from .errors import UserError
from .guidance import drop_labels, guidance_weight, guided
from .noise import NoiseStream, seeded_noise
from .samplers import Step, ddim, ddpm, dpm_solver, dynamic_threshold, frames, last
from .schedule import NoiseSchedule

__version__ = "0.1.0"

__all__ = [
    "NoiseSchedule",
    "NoiseStream",
    "Step",
    "UserError",
    "__version__",
    "ddim",
    "ddpm",
    "dpm_solver",
    "drop_labels",
    "dynamic_threshold",
    "frames",
    "guidance_weight",
    "guided",
    "last",
    "seeded_noise",
]
