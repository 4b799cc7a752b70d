"""Guidance distillation (Meng et al., arXiv 2210.03142, sec. 3.1): one pass learns what guidance takes two for."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser, training_target
from ..errors import check
from ..samplers import evaluating, modules_of
from .checkpoints import short_hash
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
        guidance = getattr(self.teacher, "guidance", {})
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
