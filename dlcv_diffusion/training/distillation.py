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
    attention: float,
    attention_null: float | None = None,
    auto: float = 1.0,
    auto_null: float | None = None,
    classes: int,
) -> Denoiser | None:
    """What the preset "guided" learns from, on the CPU: weights guided by perturbed attention, by weaker ones, or both.

    - teacher, weaker: names or files, as `load_denoiser` takes them. attention, auto: s of either guidance, the latter
      for a weaker network that is given, the former not if it is 0; attention_null, auto_null: s of their ∅.
    - classes: how many labels the teacher has to know; 0: none.

    None for another preset, which learns from images alone. Raises `UserError` where that is given a teacher, where
    "guided" is not, and for weights that do not fit.

    >>> guided_teacher("guided", "faces", attention=0.4, classes=0)   # doctest: +SKIP
    """
    if preset != "guided":
        alone = f"the preset '{preset}' learns from the pictures alone; leave out the teacher (--teacher)"
        check(teacher is None and weaker is None, alone)
        return None
    needed = "the preset 'guided' needs a teacher (--teacher): the model.safetensors of a run of 'small'"
    check(teacher is not None, needed)
    denoiser = load_denoiser(teacher, device="cpu")  # the run moves it to its own device
    kinds = [f"{count} classes by label" if count else "without labels" for count in (denoiser.null or 0, classes)]
    check((denoiser.null or 0) == classes, f"the teacher '{teacher}' draws {kinds[0]}; give one that draws {kinds[1]}")
    if attention:
        denoiser = PerturbedAttention(denoiser, attention, s_null=attention_null)
    if weaker is not None:
        denoiser = AutoGuidance(denoiser, load_denoiser(weaker, device="cpu"), auto, s_null=auto_null)
    return denoiser
