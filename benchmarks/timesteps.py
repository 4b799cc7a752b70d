"""Few steps from trailing or from uniform timesteps: how far are the pictures from those of all the steps?

    python benchmarks/timesteps.py --out benchmarks/results/timesteps.md

Every contender starts from the same x_T, which belongs to the last timestep T − 1. The yardstick is DDIM with η = 0 in
all T steps from there. The distance is the root mean square over all pixels, in grey levels of 255. "uniform" is the
DDIM paper's choice, "trailing" begins at T − 1 (arXiv 2305.08891).
"""

import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from side_by_side import Page, arguments, machine, table
from torch import Tensor

from dlcv_diffusion import Denoiser, ddim, dpm_solver, guided, last, load_denoiser, seeded_noise
from dlcv_diffusion.digits.evaluation import judge_accuracy
from dlcv_diffusion.digits.sampling import SamplingConfig
from dlcv_diffusion.images.pixels import to_uint8

SPACINGS = ("uniform", "trailing")
STEPS = (2, 5, 10, 20, 50)
Pictures = Callable[..., Tensor]


def rows(name: str, draw: Pictures, T: int, steps: Sequence[int], labels: Sequence[int] = ()) -> Iterator[list[str]]:
    """A row for each number of steps: its distance from the yardstick with each sampler and spacing, and accuracy."""
    fine = draw(ddim, steps=T, spacing="uniform")
    for n in steps:
        few = {(s, sp): draw(s, steps=n, spacing=sp) for s in (ddim, dpm_solver) for sp in SPACINGS}
        row = [f"{name}, {n}", *(f"{levels(images, fine):.1f}" for images in few.values())]
        if labels:
            read = [judge_accuracy(few[ddim, spacing], labels)["svhn"].accuracy for spacing in SPACINGS]
            row += [f"{100 * accuracy:.0f} %" for accuracy in read]
        yield row + ["–"] * (7 - len(row))


def levels(images: Tensor, fine: Tensor) -> float:
    return (images.float() - fine.float()).square().mean().sqrt().item()


def pictures(denoise: Callable[..., Tensor], x_T: Tensor) -> Pictures:
    """A function that draws these pictures with another sampler, as uint8."""
    return lambda sampler, **options: to_uint8(last(sampler(denoise, x_T, **options)).x)


def digits(count: int) -> tuple[Denoiser, Pictures, list[int]]:
    """`count` digits of each class, w = 2, from where `sample_digits` starts."""
    denoiser = load_denoiser("digits", device="cpu")
    labels = list(range(20)) * count
    x_T = SamplingConfig().start(denoiser, labels, range(len(labels)))
    return denoiser, pictures(guided(denoiser, labels, w=2.0), x_T), labels


def faces(count: int) -> tuple[Denoiser, Pictures]:
    denoiser = load_denoiser("faces", device="cpu")
    return denoiser, pictures(denoiser, seeded_noise((count, *denoiser.shape), range(count)))


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=1)
    parser.add_argument("--count", type=int, default=4, help="digits of each class, 4 by default")
    parser.add_argument("--faces", type=int, default=16, help="16 by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.count, options.faces = 1, 1
    page = Page(options.out)
    page.add("# Trailing or uniform timesteps")
    page.add(f"{machine()}.")
    page.add(
        "Grey levels of 255 (root mean square) between pictures of few steps and those of DDIM in all T steps from the "
        f"same noise. {20 * options.count} digits, w = 2, T = 350; {options.faces} faces, T = 1000. Last two columns: "
        "street digits of DDIM that the judge reads right."
    )
    digit_denoiser, draw_digits, labels = digits(options.count)
    face_denoiser, draw_faces = faces(options.faces)
    steps = (2, 5) if options.quick else STEPS
    found = [*rows("digits", draw_digits, digit_denoiser.schedule.T, steps, labels)]
    found += rows("faces", draw_faces, 20 if options.quick else face_denoiser.schedule.T, steps)
    columns = [f"{sampler}, {spacing}" for sampler in ("DDIM", "DPM-Solver++") for spacing in SPACINGS]
    page.add(table(["pictures, steps", *columns, *(f"read right, {spacing}" for spacing in SPACINGS)], found))
    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
