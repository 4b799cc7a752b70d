"""`python -m dlcv_diffusion …` is `dlcv …`, for `accelerate launch -m dlcv_diffusion`."""

from .cli import main

main()
