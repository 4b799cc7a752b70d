"""Train the encoder of faces and write dlcv_diffusion/assets/faces_encoder.safetensors.

    python tools/train_face_encoder.py --data faces64.zip

SimCLR (Chen et al., arXiv 2002.05709) on the training faces, without labels, with two additions: beside the other
faces, a spoilt view of every face in the batch (deformed, blurred, or put together from two) is a negative too (arXiv
2102.05113), and one linear layer has to tell from the features whether a view was spoilt. So there is an axis along
which a crowd of askew faces moves, which a Fréchet distance sees. The run in --work is resumed by the same command.
About 15 minutes on one CPU core.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur
from tqdm.auto import tqdm

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.evaluation.encoder import PixelComponents
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.encoder import ENCODER, FaceEncoder, load_face_encoder, save_face_encoder
from dlcv_diffusion.faces.evaluation import evaluate_realism
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.training import Objective, RunConfig, run
from dlcv_diffusion.training.objective import batch_indices, generator_of

TEMPERATURE = 0.2
SHARPNESS = 10.0  # logits of features of length 1, of weights of about that length, would hardly leave 0


class Projected(nn.Module):
    """The encoder's features, and what the losses are computed with: a head (SimCLR, sec. 2.1) and "spoilt or not"."""

    def __init__(self, encoder: FaceEncoder, out: int = 64):
        super().__init__()
        self.encoder, width = encoder, encoder.config.features
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out))
        self.spoilt = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, out + 1): the projection, and last the logit of being spoilt."""
        features = self.encoder.features(x)
        unit = F.normalize(features.float(), dim=1)  # as the encoder gives them
        return torch.cat([self.head(features), self.spoilt(unit) * SHARPNESS], 1)


@dataclass(frozen=True)
class Contrast(Objective):
    """NT-Xent (SimCLR, eq. 1) over two views of each face and a spoilt third, a negative; and telling that apart."""

    model: nn.Module
    data: ImageArrays
    config: RunConfig
    facts: Mapping[str, Any] = field(
        default_factory=lambda: {"loss": "NT-Xent and spoilt views", "temperature": TEMPERATURE}
    )

    def batch(self, step: int) -> tuple[Tensor]:
        generator = generator_of(self.config.seed, 2, step)
        x0, _ = self.data.batch(batch_indices(step, len(self.data), self.config))
        views = [augmented(x0, generator) for _ in range(2)] + [augmented(spoilt(x0, generator), generator)]
        return (torch.stack(views, 1),)

    def loss(self, network: Callable[..., Any], views: Tensor) -> Tensor:
        answers = network(views.transpose(0, 1).flatten(0, 1)).float()
        third = (torch.arange(len(answers), device=views.device) >= 2 * len(views)).float()
        weight = torch.tensor(2.0, device=views.device)  # two whole views for each that is spoilt
        return nt_xent(answers[:, :-1]) + F.binary_cross_entropy_with_logits(answers[:, -1], third, pos_weight=weight)

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        save_face_encoder(average.encoder, path, facts)


def nt_xent(z: Tensor) -> Tensor:
    """−log exp(z_i·z_j/τ) / Σ exp(z_i·z_k/τ), mean over both views i, j of each face; z (3B, D), by view."""
    z = F.normalize(z, dim=1)
    count = len(z) // 3
    alike = z[: 2 * count] @ z.T / TEMPERATURE
    alike.diagonal()[:] = -torch.inf
    other = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(alike, other)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 1, H, W) in [−1, 1], each a little turned, moved, scaled, mirrored, and of another light and contrast."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(x), generator=generator) * (high - low) + low

    angle, scale = uniform(-0.1, 0.1), uniform(0.9, 1.05)
    mirror = (torch.rand(len(x), generator=generator) < 0.5) * 2.0 - 1
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([cos * mirror, -sin, uniform(-0.05, 0.05), sin * mirror, cos, uniform(-0.05, 0.05)], 1)
    grid = F.affine_grid(theta.view(-1, 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast, light = uniform(0.7, 1.3).view(-1, 1, 1, 1), uniform(-0.25, 0.25).view(-1, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast + mean + light).clamp(-1, 1)


def spoilt(x: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 1, H, W), most of them `deformed`, some blurred, some with a half of another face of the batch."""
    count, height = len(x), x.shape[-2]
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    sigma = 0.7 + 0.8 * torch.rand((), generator=generator).item()
    blurred = gaussian_blur(x, [7, 7], [sigma, sigma])
    line = torch.rand(count, 1, generator=generator) - 0.5  # within the middle half of the face
    beyond = torch.sigmoid((torch.linspace(-1, 1, height) - line) * 15)
    across = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    share = torch.where(across, beyond[:, None, :, None], beyond[:, None, None, :])
    mixed = x + share * (x.roll(1, 0) - x)
    return torch.where(kind < 0.15, blurred, torch.where(kind < 0.35, mixed, deformed(x, generator)))


def deformed(x: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 1, H, W), each pulled about by a smooth field of displacements, or with one part slipped to the side."""
    count, (height, width) = len(x), x.shape[-2:]
    coarse = torch.randn(count, 2, 5, 5, generator=generator)
    strength = torch.rand(count, 1, 1, 1, generator=generator) * 0.06 + 0.04
    smooth = F.interpolate(coarse * strength, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    # beyond a line across the face, or down it, everything moves along the line, by 3 to 8 pixels of 64
    line = torch.rand(count, 1, generator=generator) * 0.9 - 0.4
    beyond = torch.sigmoid((torch.linspace(-1, 1, height) - line) * 30)  # (B, H), a soft edge
    beyond = torch.where(torch.rand(count, 1, generator=generator) < 0.5, beyond, 1 - beyond)
    sign = (torch.rand(count, 1, generator=generator) < 0.5) * 2.0 - 1
    slip = beyond * sign * (torch.rand(count, 1, generator=generator) * 0.16 + 0.09)
    none = torch.zeros_like(slip)
    across = torch.stack([slip, none], -1)[:, :, None].expand(-1, -1, width, -1)
    down = torch.stack([none, slip], -1)[:, None].expand(-1, height, -1, -1)

    kind = torch.randint(4, (count, 1, 1, 1), generator=generator)
    moved = torch.where(kind == 0, across, torch.where(kind == 1, down, smooth))
    straight = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, straight + moved, padding_mode="reflection", align_corners=False)


def changed_photographs(encoder: FaceEncoder, training: Tensor, held_out: Tensor) -> dict[str, dict[str, float]]:
    """How far held-out photographs that were changed on purpose are from the others, × two real sets, by two encoders.

    Blur and halves are what the encoder learned to reject, and a moved mouth is near to it (a lower part that slips); a
    lowered eye is not.
    """
    photographs, others = held_out[::2], held_out[1::2]
    mouth, eye, halves = photographs.clone(), photographs.clone(), photographs.clone()
    mouth[..., 44:60, 14:50] = photographs[..., 44:60, 8:44]
    eye[..., 16:34, 34:58] = photographs[..., 10:28, 34:58]
    halves[..., 32:] = halves.roll(1, 0)[..., 32:]
    changes = {
        "unchanged": photographs,
        "darker by a tenth": (photographs * 0.9).to(torch.uint8),
        "blurred by 1 pixel": gaussian_blur(photographs, [7, 7], [1.0, 1.0]),
        "halves of two people": halves,
        "mouth moved by 6 pixels": mouth,
        "one eye lowered by 6 pixels": eye,
    }
    encoders = {"components": PixelComponents.of(training), "encoder": encoder}
    return {
        name: {by: evaluate_realism(images, training, others, encode).frechet_ratio for by, encode in encoders.items()}
        for name, images in changes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder or zip of the faces; every tenth is held out")
    add("--work", default=Path("runs/face_encoder"), type=Path, help="where the run is kept")
    add("--out", default=ENCODER, type=Path)
    add("--steps", default=1_500, type=int)
    add("--batch-size", default=128, type=int)
    add("--seed", default=0, type=int)
    add("--precision", default="auto")
    args = parser.parse_args()
    data = load_faces(args.data, "train")
    config = RunConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=1e-3,
        seed=args.seed,
        precision=args.precision,
        ema_decay=0.99,
        clip_grad=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        model = Projected(FaceEncoder())
    objective, facts = Contrast(model, data, config), {"data": args.data.name, "images": len(data)}
    for state in tqdm(run(objective, config, args.work, resume=True, metadata=facts), total=args.steps, disable=None):
        if state.step % 100 == 0:
            print(f"step {state.step}: loss {state.loss:.3f}", flush=True)
    encoder = load_face_encoder(args.work / "model.safetensors")
    held_out = load_faces(args.data, "held_out").images
    found = changed_photographs(encoder, data.images, held_out)
    print("\n".join(f"{name}: {values}" for name, values in found.items()))
    save_face_encoder(encoder, args.out, {**encoder.metadata, "changed_photographs": found})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
