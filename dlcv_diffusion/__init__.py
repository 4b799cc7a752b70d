"""Diffusion models from the first noise to a finished picture, with the course's homework as the thread.

Everything we sample from is a denoiser, a callable `denoise(x, t) -> eps`:

    digits = load_denoiser("digits")                         # knows its schedule, what it predicts, its images' shape
    denoise = guided(digits, labels, w=2.0)
    x_T = seeded_noise((len(labels), *digits.shape), seeds=range(len(labels)))
    image = last(dpm_solver(denoise, x_T, steps=20)).x

What is here needs torch and numpy only. Models, data, training and figures are imported from their own
modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .denoiser import Denoiser, load_denoiser
    from .errors import UserError
    from .guidance import drop_labels, guidance_weight, guided
    from .noise import NoiseStream, seeded_noise
    from .samplers import Step, ddim, ddpm, dpm_solver, last
    from .schedule import NoiseSchedule

__version__ = "0.1.0"

__all__ = ["Denoiser", "NoiseSchedule", "NoiseStream", "Step", "UserError", "__version__", "ddim", "ddpm", "dpm_solver"]
__all__ += ["drop_labels", "guidance_weight", "guided", "last", "load_denoiser", "seeded_noise"]


def __getattr__(name: str) -> object:
    """What `__all__` names, when it is first asked for: torch takes seconds, and `dlcv --help` does without."""
    for module in ("errors", "schedule", "noise", "guidance", "samplers", "denoiser") if name in __all__ else ():
        found = getattr(import_module(f".{module}", __name__), name, None)
        if found is not None:
            return globals().setdefault(name, found)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
