"""Guidance distillation (Meng et al., arXiv 2210.03142, sec. 3.1): one pass learns what guidance takes two for."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..denoiser import Denoiser, training_target
from .checkpoints import short_hash
from .objective import DiffusionObjective


@dataclass(frozen=True)
class Distillation(DiffusionObjective):
    """E‖f_θ(x_t, t, c) − f̃(x_t, t, c)‖², f̃ a guided teacher's answer (arXiv 2210.03142, eq. 3), as ε, v or x0.

    - model: the student, such as `student_of` makes; what it gives is the prediction of `config`.
    - teacher: the denoiser to be learned, such as `PerturbedAttention`, on the device of the run; it does not change.

    Raises `UserError` as `DiffusionObjective` does.

    >>> teacher = PerturbedAttention(load_denoiser("runs/faces/model.safetensors"), s=0.5)     # doctest: +SKIP
    >>> objective = Distillation(student_of(teacher), data, teacher.schedule, config, teacher) # doctest: +SKIP
    """

    teacher: Denoiser

    @cached_property
    def facts(self) -> dict[str, Any]:
        weights = short_hash([*self.teacher.state_dict().values()])
        return {**super().facts, "teacher": {"name": self.teacher.name, "hash": weights}}

    def loss(self, network: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        x0, labels, t, eps = batch
        x = self.schedule.add_noise(x0, eps, t).contiguous(memory_format=torch.channels_last)
        condition = (labels,) if self.null else ()
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            eps = self.teacher(x, t, *condition).float()
        wanted = training_target(self.schedule.predict_x0(x, eps, t), eps, t, self.schedule, self.config.prediction)
        return F.mse_loss(network(x, t, *condition).float(), wanted)


def student_of(teacher: Denoiser) -> torch.nn.Module:
    """A copy of the teacher's network, of which every weight trains.

    >>> student_of(load_denoiser("faces"))   # doctest: +SKIP
    """
    return deepcopy(teacher.model).requires_grad_(True)
