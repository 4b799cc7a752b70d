"""Sliders over the functions of this package, for notebooks, with a still picture for those who read on
paper.

An explorer draws a picture for each position of its sliders. The positions are listed beforehand, pictures
are kept, and the picture keeps its size. What it hands to the notebook holds two things at once: the live
widget, and a still PNG of a few chosen positions. Where there is no kernel or no ipywidgets (GitHub,
nbviewer, an export to HTML or PDF) the still is shown.

    eta_explorer(denoiser)                                        # DDIM: η, the number of steps, the seed
    alpha_explorer(denoiser)                                      # between two noises: α, slerp | lerp | both
    step_explorer(ddpm(denoise, x_T, schedule, seeds=[0]))        # through the reverse process
    guidance_explorer(lambda w: ddim(guided(model, labels, w), x_T, schedule, steps=20))

A slider is moved with the mouse or, once it has the focus, with the arrow keys. A sampler is shown while it
works: what it predicts so far, step by step, until the slider is moved on.

`explorer` holds the sliders and the drawing, `ddim` and `trajectory` the explorers that are made of it.
"""

from .ddim import alpha_explorer, eta_explorer
from .explorer import Control, Explorer, Refining
from .trajectory import guidance_explorer, step_explorer

__all__ = [
    "Control",
    "Explorer",
    "Refining",
    "alpha_explorer",
    "eta_explorer",
    "guidance_explorer",
    "step_explorer",
]
