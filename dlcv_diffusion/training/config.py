"""What a run is, by declaration: change one of these settings and it is another run."""

import math
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from ..declared import declared

Count = Annotated[int, Field(ge=1, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@declared
class RunConfig:
    """The settings that every run has, whatever it optimises.

    - steps: number of optimiser steps; batch_size: samples a step over all processes.
    - lr: peak learning rate of Adam, see `learning_rate` for `warmup` and `decay`.
    - ema_decay: weights are averaged as θ' ← d·θ' + (1 − d)·θ; the average is what samples and ships. 0: no average.
    - clip_grad: gradients are scaled down to this norm at most, or left alone (None).
    - precision: "no" (float32), "bf16" or "fp16", as accelerate calls it; "auto" is bf16 where the device is quick at
      it, else float32, and what it came to stands in the checkpoint.
    - accumulate: the batch is taken in so many parts, one after the other: the memory of one, the gradient of the whole
      (of a loss that is a mean over the batch, and a network without BatchNorm, which would see one part only).
    - compile: `torch.compile` for the network. It takes a minute and pays for long runs; a run may be resumed with or
      without it, since what is saved is the plain model.

    Raises `UserError` for numbers that make no run, such as a batch of 0 images.

    >>> RunConfig(steps=1000, lr=2e-3).batch_size
    64
    """

    steps: Count
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 64
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    warmup: Annotated[int, Field(ge=0)] = 200
    ema_decay: Share = 0.999
    clip_grad: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["no", "bf16", "fp16", "auto"] = "no"
    decay: Share = 1.0
    compile: bool = False
    accumulate: Annotated[int, Field(ge=1, le=2**16)] = 1


@declared
class TrainConfig(RunConfig):
    """The settings of a diffusion run.

    - prediction: what the network's output stands for, "eps", "v" or "x0", see `denoiser`; the loss is its MSE.
    - noise_levels: (mean, standard deviation) of ln σ, from which each image's noise level σ = √((1 − ᾱ_t)/ᾱ_t) is
      drawn (Karras et al., arXiv 2206.00364, table 1: (−1.2, 1.2)); None: every timestep alike (DDPM, algorithm 1).
    - label_drop: probability p_uncond that a sample's label becomes ∅ (classifier-free guidance, arXiv 2207.12598).
    - flip: horizontal mirror with probability ½ (never for digits).

    >>> TrainConfig(steps=1000, prediction="v").label_drop
    0.1
    """

    label_drop: Share = 0.1
    flip: bool = False
    prediction: Literal["eps", "v", "x0"] = "eps"
    noise_levels: tuple[float, Positive] | None = None


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def with_options(config: AnyConfig, options: dict[str, Any]) -> AnyConfig:
    """The config with those of its fields set otherwise that `options` names; they are taken out of `options`.

    Raises `UserError` for values that make no run.

    >>> options = {"steps": 9, "resume": True}
    >>> with_options(RunConfig(steps=1000), options).steps, options
    (9, {'resume': True})
    """
    names = {field.name for field in fields(config)} & options.keys()
    return replace(config, **{name: options.pop(name) for name in names})


def learning_rate(step: int, config: RunConfig) -> float:
    """Linear warm-up over `warmup` steps times half a cosine to 0 over the last `decay` share of the steps.

    The cosine is Loshchilov and Hutter's (2017), eq. 5, without restarts. With `decay` below 1 the rate stays at its
    peak until the cosine begins; until then a run may be resumed with another number of steps, and goes on to the same
    weights as if it had had that number from the start.

    >>> round(learning_rate(500, RunConfig(steps=1000, lr=1.0, warmup=0)), 3)
    0.5
    >>> [round(learning_rate(k, RunConfig(steps=1000, lr=1.0, warmup=0, decay=0.4)), 3) for k in (500, 800)]
    [1.0, 0.5]
    """
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    falling = config.decay * config.steps
    fallen = max(0.0, step - (config.steps - falling)) / falling if falling else 0.0
    return config.lr * warmup * 0.5 * (1 + math.cos(math.pi * fallen))
