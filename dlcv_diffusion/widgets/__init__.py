"""Sliders over the functions of this package, for notebooks, with a still picture for those who read on paper.

An explorer's output is a live widget and a still PNG of a few positions, which GitHub and exports to HTML or PDF show.
Where a program runs the notebook (`nbconvert --execute`, papermill) it is the still alone, unless the cell shows
`explorer.panel`.

    eta_explorer(denoiser)                                        # DDIM: η, the number of steps, the seed
    alpha_explorer(denoiser)                                      # between two noises: α, slerp | lerp | both
    step_explorer(ddpm(denoise, x_T, seeds=[0]))                  # through the reverse process
    guidance_explorer(lambda w: ddim(guided(digits, labels, w), x_T))

Sliders are moved with the mouse or the arrow keys, numbers can be typed, and ▶ goes through all positions.
"""

from .controls import Control
from .ddim import alpha_explorer, eta_explorer
from .explorer import Explorer
from .trajectory import guidance_explorer, step_explorer

__all__ = ["Control", "Explorer", "alpha_explorer", "eta_explorer", "guidance_explorer", "step_explorer"]
