"""The report's sampling loop against `ddpm`, and what a sampler costs beside its network.

    python benchmarks/samplers.py                        the report's network in float32: some minutes on two CPU cores
    python benchmarks/samplers.py --fast --images 64     ours in bfloat16, channels_last and compiled: for a GPU

1. Both loops take the same weights, x_T and noise through all 350 timesteps, a step of each in turn, so that both see
   the same machine: how far their pictures are apart in the end, the median time of a step, and the ratio.
2. A step of every sampler with a denoiser that does nothing, at batch 64, as a share of one guided step of the network.
"""

import copy
from contextlib import nullcontext
from statistics import median

import torch
from side_by_side import Page, arguments, in_turns, machine, ratio, report_loop, table
from torch import nn

from dlcv_diffusion import NoiseSchedule, ddim, ddpm, dpm_solver, guided, seeded_noise
from dlcv_diffusion.device import autocast, best_device, prepare
from dlcv_diffusion.models.context_unet import ContextUnet

W = 2.0
SCHEDULE = NoiseSchedule.linear(350)


def finisher(device: torch.device):
    return torch.cuda.synchronize if device.type == "cuda" else None


def against_the_report(network: nn.Module, device: torch.device, images: int, fast: bool, page: Page) -> None:
    labels = torch.arange(images, device=device) % 20
    x_T = seeded_noise((images, 3, 28, 28), range(images), device)
    generators = [torch.Generator(device).manual_seed(0) for _ in range(2)]
    mine = torch.compile(prepare(copy.deepcopy(network), device)) if fast else network
    precision = autocast(device) if fast else nullcontext()
    denoise = guided(mine, labels, W, null=20)
    with torch.no_grad(), precision:  # compile and choose algorithms before the clock runs
        denoise(x_T, torch.zeros_like(labels))

    theirs = report_loop(network, x_T, labels, SCHEDULE, generators[0], w=W)
    ours = ddpm(denoise, x_T, SCHEDULE, noise=lambda x: torch.randn(x.shape, generator=generators[1], device=device))
    pictures = {}

    def report_step():
        pictures["report"] = next(theirs)

    def our_step():
        with precision:
            pictures["ours"] = next(ours).x

    jobs = {"the report's loop": report_step, "ddpm": our_step}
    seconds = in_turns(jobs, SCHEDULE.T, warm_up=0, finish=finisher(device))
    apart = (pictures["report"] - pictures["ours"]).abs().max().item()
    reach = pictures["report"].abs().max().item()
    reference = seconds["the report's loop"]
    rows = [[name, f"{1e3 * median(s):.1f}", f"{ratio(reference, s):.2f}"] for name, s in seconds.items()]
    page.add(f"### A step of {images} images, w = {W:g}, {SCHEDULE.T} steps")
    page.add(table(["loop", "ms a step", "times as fast"], rows))
    page.add(f"Greatest difference of a pixel after {SCHEDULE.T} steps: {apart:.0e}, where pixels reach {reach:.2g}.")


def overhead(network: nn.Module, device: torch.device, repeats: int, page: Page, batch: int = 64) -> None:
    seeds, finish = range(batch), finisher(device)
    x_T = seeded_noise((batch, 3, 28, 28), seeds, device)
    eps, t = 0.1 * x_T, torch.full((batch,), 100, device=device)
    denoise = guided(network, torch.arange(batch) % 20, W, null=20)
    with torch.no_grad():
        asked = median(in_turns({"network": lambda: denoise(x_T, t)}, 3, finish=finish)["network"])

    def nothing(x, t):
        return eps

    steps = {
        "ddpm": ddpm(nothing, x_T, SCHEDULE, seeds=seeds),
        "ddim, η = 0": ddim(nothing, x_T, SCHEDULE, steps=350),
        "ddim, η = 1": ddim(nothing, x_T, SCHEDULE, steps=350, eta=1.0, seeds=seeds),
        "dpm_solver": dpm_solver(nothing, x_T, SCHEDULE, steps=350),
    }
    jobs = {name: walk.__next__ for name, walk in steps.items()}
    seconds = {name: median(s) for name, s in in_turns(jobs, repeats, warm_up=2, finish=finish).items()}
    rows = [[name, f"{1e3 * s:.2f}", f"{100 * s / asked:.3f} %"] for name, s in seconds.items()]
    page.add(f"### Outside the network, batch {batch}: a guided step of the network takes {1e3 * asked:.0f} ms")
    page.add(table(["sampler", "ms a step", "of the network's"], rows))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=50)
    parser.add_argument("--n-feat", type=int, default=128, help="width of the network, 128 in the report")
    parser.add_argument("--images", type=int, default=2, help="images in the comparison of the loops")
    parser.add_argument("--device", type=torch.device, default=best_device())
    parser.add_argument("--fast", action="store_true", help="ours in bfloat16, channels_last and compiled")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    width = 8 if given.quick else given.n_feat
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ContextUnet(3, 28, 28, n_feat=width, n_cfeat=20, n_downs=2).eval().to(given.device)
    million = sum(parameter.numel() for parameter in network.parameters()) / 1e6

    page = Page(given.out)
    page.add(f"## Samplers\n\nContextUnet, {million:.2f} M parameters, untrained; {machine(given.device)}")
    against_the_report(network, given.device, given.images, given.fast, page)
    overhead(network, given.device, given.repeats, page)
    page.close()


if __name__ == "__main__":
    main()
