"""`ddim` against diffusers' `DDIMPipeline` on one network, and what a step of it costs beside a face model.

    python benchmarks/ddim_faces.py                              some minutes on two CPU cores
    python benchmarks/ddim_faces.py --side 256 --channels 3      the size of the course's faces: for a GPU

1. Both take the same `UNet2DModel` (random weights), the same noises and 50 steps at η = 0, in turns: how far their
   pictures are apart, seconds, and the ratio.
2. Everything of a step that is not the network, for that network and for the one that `dlcv train faces` trains, at
   several batch sizes: a denoiser whose network gives a constant is stepped in turns with the network alone. Beside
   it, diffusers' `DDIMScheduler.step` on the same tensors.
"""

from collections.abc import Sequence
from statistics import median

import torch
from side_by_side import Page, arguments, in_turns, machine, ratio, table
from torch import nn

from dlcv_diffusion import NoiseSchedule, ddim, last, seeded_noise
from dlcv_diffusion.denoiser import Denoiser
from dlcv_diffusion.device import best_device, prepare
from dlcv_diffusion.faces.recipes import faces_recipe
from dlcv_diffusion.models.diffusers_unet import DiffusersUNet

SCHEDULE = NoiseSchedule.linear(1000)
AIM = 0.02


def finisher(device: torch.device):
    return torch.cuda.synchronize if device.type == "cuda" else None


def unet2d(width: int, channels: int, side: int) -> nn.Module:
    """A `UNet2DModel` of DDPM's kind, with attention at an eighth of the side."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(width, width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            attention_head_dim=8,
        ).eval()


def against_diffusers(unet: nn.Module, device: torch.device, images: int, steps: int, repeats: int, page: Page) -> None:
    from diffusers import DDIMPipeline, DDIMScheduler

    seeds, shape = range(images), (images, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    pipeline = DDIMPipeline(unet, DDIMScheduler(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    denoise = Denoiser(DiffusersUNet(unet), SCHEDULE)
    pictures: dict[str, torch.Tensor] = {}

    def theirs() -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pictures["theirs"] = pipeline(images, generators, num_inference_steps=steps, output_type="pt").images

    def ours() -> None:
        x = last(ddim(denoise, seeded_noise(shape, seeds, device), SCHEDULE, steps=steps, spacing="uniform")).x
        pictures["ours"] = (x / 2 + 0.5).clamp(0, 1)

    jobs = {"diffusers' DDIMPipeline": theirs, "ddim": ours}
    seconds = in_turns(jobs, repeats, finish=finisher(device))
    apart = (pictures["ours"] - pictures["theirs"]).abs().max().item()
    reference = seconds["diffusers' DDIMPipeline"]
    rows = [[name, f"{median(s):.2f}", f"{ratio(s, reference):.3f}"] for name, s in seconds.items()]
    page.add(f"### {images} faces of {'×'.join(map(str, shape[1:]))}, {steps} steps, η = 0")
    page.add(table(["sampler", "seconds", "of diffusers'"], rows))
    verdict = "the same" if apart <= 1e-4 else "NOT THE SAME"
    page.add(f"Greatest difference of a pixel, in 0 … 1: {apart:.0e}; the pictures are {verdict} to 1e-4.")


class Idle(nn.Module):
    """Gives the same output at every step, and has all the modules of the network, which the sampler looks through."""

    def __init__(self, network: nn.Module, output: torch.Tensor):
        super().__init__()
        self.network, self.output = network, output

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.output


def overhead(
    name: str,
    network: nn.Module,
    prediction: str,
    device: torch.device,
    side: int,
    batches: Sequence[int],
    repeats: int,
    page: Page,
) -> None:
    from diffusers import DDIMScheduler

    rows, finish, worst = [], finisher(device), 0.0
    for batch in batches:
        x_T = seeded_noise((batch, network.in_channels, side, side), range(batch), device)
        t = torch.full((batch,), 500, device=device)
        output = 0.1 * x_T
        walk = ddim(Denoiser(Idle(network, output), SCHEDULE, prediction), x_T, SCHEDULE, steps=1000)
        scheduler = DDIMScheduler(
            clip_sample=False, prediction_type={"v": "v_prediction", "eps": "epsilon"}[prediction]
        )
        scheduler.set_timesteps(1000)

        def ask(x_T=x_T, t=t) -> None:
            with torch.no_grad():
                network(x_T, t)

        jobs = {
            "network": ask,
            "ours": walk.__next__,
            "theirs": lambda scheduler=scheduler, x_T=x_T, output=output: scheduler.step(output, 500, x_T),
        }
        seconds = in_turns(jobs, repeats, warm_up=3, finish=finish)
        ms = {name: 1e3 * median(s) for name, s in seconds.items()}
        shares = {name: ratio(seconds[name], seconds["network"]) for name in ("ours", "theirs")}
        worst = max(worst, shares["ours"])
        rows.append([batch, *(f"{value:.2f}" for value in ms.values()), *(f"{100 * s:.2f} %" for s in shares.values())])
    page.add(f"### Outside the network: {name}, {side}×{side}, {prediction}-prediction, η = 0")
    header = ["batch", "network, ms", "ddim, ms a step", "DDIMScheduler, ms a step", "ddim", "DDIMScheduler"]
    page.add(table(header, rows))
    page.add(f"At most {100 * worst:.2f} % of the network's time; the aim is {100 * AIM:g} %.")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=20)
    parser.add_argument("--width", type=int, default=32, help="channels of the UNet2DModel's finest level")
    parser.add_argument("--side", type=int, default=64, help="pixels a side")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--images", type=int, default=4, help="faces in the comparison with DDIMPipeline")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", type=torch.device, default=best_device())
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    width, steps, repeats = (8, 5, 2) if given.quick else (given.width, given.steps, given.repeats)

    page = Page(given.out)
    unet = unet2d(width, given.channels, given.side).to(given.device)
    recipe = faces_recipe("tiny" if given.quick else "small")
    ours = prepare(recipe.build(in_channels=given.channels).eval(), given.device)
    counts = [sum(parameter.numel() for parameter in model.parameters()) / 1e6 for model in (unet, ours)]
    page.add(
        f"## DDIM on faces\n\nUNet2DModel, {counts[0]:.2f} M parameters, and our U-Net, {counts[1]:.2f} M, both "
        f"untrained; float32; {machine(given.device)}"
    )
    against_diffusers(unet, given.device, given.images, steps, max(2, repeats // 4), page)
    where = given.device, given.side
    overhead("UNet2DModel", DiffusersUNet(unet), "eps", *where, (1, 4), repeats, page)
    overhead("our U-Net", ours, "v", *where, (1, 8, 64), repeats, page)
    page.close()


if __name__ == "__main__":
    main()
