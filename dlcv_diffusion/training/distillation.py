"""Guidance distillation (Meng et al., arXiv 2210.03142, sec. 3.1): one pass learns what guidance takes two for."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser, load_denoiser, training_target
from ..errors import check
from ..models.autoguidance import AutoGuidance
from ..models.guiding import GUIDANCE
from ..models.perturbed import PerturbedAttention
from ..models.registry import short_hash
from ..samplers import evaluating, modules_of
from .objective import DiffusionObjective

Scales = tuple[float, float | None]
"""s, and s for ∅: None, the same."""


@dataclass(frozen=True)
class Distillation(DiffusionObjective):
    """E‖f_θ(x_t, t, c) − f̃(x_t, t, c)‖², f̃ a guided teacher's answer, as ε, v or x0 (arXiv 2210.03142, algorithm 1).

    The paper's student is told the strength of the guidance, drawn from a range, and its loss is weighted; here the
    strength is one, and the loss is in the network's own output.

    - model: the student, such as `student_of` makes; what it gives is the prediction of `config`.
    - teacher: the denoiser to be learned, such as `AutoGuidance`. It is moved to the run's device, answers in
      float32 and in eval mode, and does not change.

    Raises `UserError` as `DiffusionObjective` does, and for another schedule than the teacher's.

    >>> teacher = PerturbedAttention(load_denoiser("runs/faces/model.safetensors"), s=0.5)     # doctest: +SKIP
    >>> objective = Distillation(student_of(teacher), data, teacher.schedule, config, teacher) # doctest: +SKIP
    """

    teacher: Denoiser

    def __post_init__(self) -> None:
        super().__post_init__()
        same = self.schedule.config == self.teacher.schedule.config
        check(same, "the teacher was trained with another noise schedule; give the run teacher.schedule")

    @cached_property
    def facts(self) -> dict[str, Any]:
        weights = short_hash([*self.teacher.state_dict().values()])  # of all networks that it asks
        facts = self.teacher.facts  # also of guidance that its weights learned before
        guidance = {name: facts[name] for name in GUIDANCE if name in facts}
        return {**super().facts, "teacher": self.teacher.name, "teacher_hash": weights, **guidance}

    def target(self, x: Tensor, x0: Tensor, labels: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        teacher = self.teacher.to(x.device)
        with evaluating(modules_of(teacher)), torch.autocast(x.device.type, enabled=False):
            guided = teacher(x.float(), t, *((labels,) if self.null else ()))
        guessed = self.schedule.predict_x0(x, guided, t)
        return training_target(guessed, guided, t, self.schedule, self.config.prediction)


def student_of(teacher: Denoiser) -> nn.Module:
    """A copy of the teacher's network, of which every weight trains.

    >>> student_of(load_denoiser("faces"))   # doctest: +SKIP
    """
    return deepcopy(teacher.model).requires_grad_(True)


def guided_teacher(
    preset: str,
    teacher: str | Path | None,
    weaker: str | Path | None = None,
    *,
    attention: Scales | None,
    auto: Scales,
    classes: int,
) -> Denoiser | None:
    """What the preset "guided" learns from, on the CPU: weights guided by perturbed attention, by weaker ones, or both.

    - teacher, weaker: names or files, as `load_denoiser` takes them.
    - attention: s of perturbed-attention guidance and s for ∅ (None: the same), or None for no such guidance.
    - auto: those of autoguidance, where a weaker network is given.
    - classes: how many labels the teacher has to know; 0: none.

    None for another preset, which learns from images alone. Raises `UserError` where that is given a teacher, where
    "guided" is not, for weights that do not fit, weaker ones that are the teacher's own, and a teacher that has learned
    the guidance already.

    >>> guided_teacher("guided", "a.safetensors", attention=(0.4, None), auto=(0.4, None), classes=0) # doctest: +SKIP
    """
    if preset != "guided":
        alone = f"the preset '{preset}' learns from the pictures alone; leave out --teacher and --weaker"
        check(teacher is None and weaker is None, alone)
        return None
    needed = "the preset 'guided' needs a teacher (--teacher): the model.safetensors of a run of 'small'"
    check(teacher is not None, needed)
    denoiser = load_denoiser(teacher, device="cpu")  # the run moves it to its own device
    kinds = [f"{count} classes by label" if count else "without labels" for count in (denoiser.null or 0, classes)]
    check((denoiser.null or 0) == classes, f"the teacher '{teacher}' draws {kinds[0]}; give one that draws {kinds[1]}")
    asked = {"attention_guidance"} if attention else set()
    asked |= {"autoguidance"} if weaker is not None else set()
    again = f"the teacher '{teacher}' has learned such guidance already; give the one that it learned from"
    check(not asked & denoiser.facts.keys(), again)
    weights = short_hash([*denoiser.state_dict().values()])
    if attention:
        denoiser = PerturbedAttention(denoiser, attention[0], s_null=attention[1])
    if weaker is not None:
        worse = load_denoiser(weaker, device="cpu")
        own = f"the weaker weights '{weaker}' are the teacher's own; give those of less training (--weaker)"
        check(short_hash([*worse.state_dict().values()]) != weights, own)
        denoiser = AutoGuidance(denoiser, worse, auto[0], s_null=auto[1])
    return denoiser
