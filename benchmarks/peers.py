"""One training step and one guided sampling step beside public peers of like arithmetic, on a CPU.

    pip install -e '.[bench]'
    python benchmarks/peers.py --out benchmarks/results/peers.md

Every peer runs the way its own users run it: denoising-diffusion-pytorch's `GaussianDiffusion(images)` and `p_sample`,
smalldiffusion's `training_loop` and `samples`, diffusers' `UNet2DModel` with `DDPMScheduler.add_noise` and `step`, ours
with `train` and `SamplingConfig.run`. Ours include what theirs leave to the user: `train` also averages the weights,
clips the gradient and logs; its sampler draws the noise of each image from a seed of its own.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # smalldiffusion's training loop has a bar of its own

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from side_by_side import Job, Page, arguments, in_turns, machine, ratio, table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from dlcv_diffusion.device import prepare
from dlcv_diffusion.digits.recipes import digits_recipe
from dlcv_diffusion.digits.sampling import REPORT
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models import ContextUnet
from dlcv_diffusion.models.loading import own_denoiser
from dlcv_diffusion.training import train

T, CLASSES, W = 350, 20, 2.0
SHIPPED = "ours: small U-Net, as shipped"


class Contender:
    """A network with its training step and its guided step; both are closures that do one step a call."""

    def __init__(self, settings: str, network: nn.Module, bf16: bool):
        self.settings, self.network = settings, network
        self.precision = "bf16" if bf16 else "no"

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> object:
        """One conditional pass, to count its arithmetic."""
        return self.network(x, t, labels)

    def training_step(self, data: ImageArrays, batch: int) -> Job:
        raise NotImplementedError

    def guided_step(self, batch: int) -> Job:
        raise NotImplementedError


class Ours(Contender):
    """`training.train` with the recipe's settings; DDPM with one doubled pass."""

    def __init__(self, settings: str, network: nn.Module, preset: str, bf16: bool):
        super().__init__(settings, prepare(network, "cpu"), bf16)
        self.preset = preset

    def training_step(self, data: ImageArrays, batch: int) -> Job:
        recipe = digits_recipe(self.preset)
        config = replace(recipe.train, steps=10**6, batch_size=batch, precision=self.precision)
        self.folder = tempfile.TemporaryDirectory()  # stays empty: no checkpoint comes due
        steps = train(
            self.network, data, recipe.schedule(), config, self.folder.name, checkpoint_every=10**9, device="cpu"
        )
        return lambda: next(steps)

    def guided_step(self, batch: int) -> Job:
        steps = REPORT.run(own_denoiser(self.network, {}), labels_of(batch), range(batch))

        def step() -> None:
            with self.autocast():
                next(steps)

        return step


class DenoisingDiffusionPytorch(Contender):
    """lucidrains' classifier-free U-Net: two passes a guided step, its projection of the guidance as by default."""

    def __init__(self, bf16: bool):
        from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet

        settings = {"dim": 16, "dim_mults": (1, 2, 8)}
        network = Unet(**settings, num_classes=CLASSES, cond_drop_prob=0.1)
        super().__init__(", ".join(f"{k}={v}" for k, v in settings.items()), network, bf16)
        self.diffusion = GaussianDiffusion(network, image_size=28, timesteps=T, beta_schedule="linear")

    def training_step(self, data: ImageArrays, batch: int) -> Job:
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        batches = endless(data, batch)

        def step() -> None:
            self.diffusion.train()
            images, labels = next(batches)
            with self.autocast():
                loss = self.diffusion((images + 1) / 2, classes=labels)  # it takes images in [0, 1]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def guided_step(self, batch: int) -> Job:
        x, labels, times = torch.randn(batch, 3, 28, 28), torch.tensor(labels_of(batch)), iter(range(T - 1, -1, -1))

        def step() -> None:
            nonlocal x
            self.diffusion.eval()
            with self.autocast():
                x, _ = self.diffusion.p_sample(x, next(times), labels, cond_scale=1 + W)

        return step


class Smalldiffusion(Contender):
    """smalldiffusion's U-Net (its narrowest width, 32) in its own loops: one doubled pass a guided step."""

    def __init__(self, bf16: bool):
        from smalldiffusion import Unet
        from smalldiffusion.model import CondEmbedderLabel

        settings = {"ch": 32, "ch_mult": (1, 1), "num_res_blocks": 2, "attn_resolutions": (14,)}
        network = Unet(28, 3, 3, **settings, cond_embed=CondEmbedderLabel(128, CLASSES))
        super().__init__(", ".join(f"{k}={v}" for k, v in settings.items()), network, bf16)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> object:
        return self.network(x, torch.ones(len(x)), labels)

    def training_step(self, data: ImageArrays, batch: int) -> Job:
        from accelerate import Accelerator
        from smalldiffusion import ScheduleDDPM, training_loop

        loader = DataLoader(data, batch, shuffle=True, drop_last=True)
        accelerator = Accelerator(cpu=True, mixed_precision=self.precision)
        steps = training_loop(loader, self.network, ScheduleDDPM(T), accelerator, lr=1e-4, conditional=True)
        return lambda: next(steps)  # it yields between loss and backward: a call ends one step and begins the next

    def guided_step(self, batch: int) -> Job:
        from accelerate import Accelerator
        from smalldiffusion import ScheduleDDPM, samples

        steps = samples(
            self.network,
            ScheduleDDPM(T).sample_sigmas(T),
            mu=0.5,  # its DDPM
            cfg_scale=W,
            batchsize=batch,
            cond=torch.tensor(labels_of(batch)),
            accelerator=Accelerator(cpu=True, mixed_precision=self.precision),
        )

        def step() -> None:
            with self.autocast():
                next(steps)

        return step


class Diffusers(Contender):
    """diffusers' UNet2DModel with class labels and DDPMScheduler; guidance as its pipelines do it, one doubled pass."""

    def __init__(self, bf16: bool):
        from diffusers import DDPMScheduler, UNet2DModel

        settings = {"block_out_channels": (32, 64, 64), "layers_per_block": 1}
        network = UNet2DModel(
            sample_size=28,
            num_class_embeds=CLASSES + 1,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            **settings,
        )
        super().__init__(", ".join(f"{k}={v}" for k, v in settings.items()), network, bf16)
        self.scheduler = DDPMScheduler(T, clip_sample=False)
        self.scheduler.set_timesteps(T)

    def training_step(self, data: ImageArrays, batch: int) -> Job:
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        batches = endless(data, batch)

        def step() -> None:
            self.network.train()
            x0, labels = next(batches)
            noise, t = torch.randn_like(x0), torch.randint(T, (batch,))
            labels = labels.masked_fill(torch.rand(batch) < 0.1, CLASSES)
            with self.autocast():
                eps = self.network(self.scheduler.add_noise(x0, noise, t), t, labels).sample
            F.mse_loss(eps.float(), noise).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    @torch.no_grad()
    def guided_step(self, batch: int) -> Job:
        x, times = torch.randn(batch, 3, 28, 28), iter(self.scheduler.timesteps)
        labels = torch.tensor(labels_of(batch))
        both = torch.cat([labels, torch.full_like(labels, CLASSES)])

        @torch.no_grad()
        def step() -> None:
            nonlocal x
            self.network.eval()
            t = next(times)
            with self.autocast():
                eps_c, eps_u = self.network(torch.cat([x, x]), t, both).sample.float().chunk(2)
            x = self.scheduler.step(eps_u + (1 + W) * (eps_c - eps_u), t, x).prev_sample

        return step


def contenders(bf16: bool, *, report: bool) -> dict[str, Contender]:
    """Ours first; every network but the report's own has within 25 % the arithmetic of ours."""
    small = digits_recipe("small")
    settings = f"channels={tuple(small.config['channels'])}, patch=2"
    found: dict[str, Contender] = {
        SHIPPED: Ours(settings, small.build(), "small", bf16),
        "ours: ContextUnet at like FLOPs": Ours("n_feat=24", ContextUnet(n_feat=24), "report", bf16),
        "denoising-diffusion-pytorch": DenoisingDiffusionPytorch(bf16),
        "smalldiffusion": Smalldiffusion(bf16),
        "diffusers": Diffusers(bf16),
    }
    if report:
        found["the report's ContextUnet"] = Ours("n_feat=128", digits_recipe("report").build(), "report", bf16)
    return found


def endless(data: ImageArrays, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(data, batch, shuffle=True, drop_last=True)
    while True:
        yield from loader


def labels_of(batch: int) -> list[int]:
    return [i % CLASSES for i in range(batch)]


def gflop(job: Job) -> float:
    """Arithmetic of one call, 2 for a multiplication and addition, as torch counts convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops() / 1e9


def networks(page: Page, found: dict[str, Contender]) -> None:
    x, zero = torch.randn(1, 3, 28, 28), torch.zeros(1, dtype=torch.int64)
    arithmetic = {}
    for name, contender in found.items():
        contender.network.eval()
        with torch.no_grad():
            arithmetic[name] = gflop(lambda c=contender: c.forward(x, zero, zero))
    rows = []
    for name, contender in found.items():
        million = sum(p.numel() for p in contender.network.parameters()) / 1e6
        share = arithmetic[name] / arithmetic[SHIPPED]
        rows.append([name, contender.settings, f"{million:.2f}", f"{arithmetic[name]:.3f}", f"{share:.2f}"])
    page.add("All take 3×28×28 as it is; none needed padding to 32.")
    page.add(table(["network", "settings", "million weights", "GFLOP an image", "to ours"], rows, text=2))


def compare(page: Page, title: str, jobs: dict[str, Job], repeats: int) -> None:
    """One table: seconds a step, ratio to ours, and seconds for equal arithmetic."""
    for job in jobs.values():
        job()  # lazy initialisation is not arithmetic
    work = {name: gflop(job) for name, job in jobs.items()}
    seconds = in_turns(jobs, repeats)
    per_gflop = {name: [s / work[name] for s in times] for name, times in seconds.items()}
    rows = [
        [
            name,
            f"{1000 * statistics.median(times):.1f}",
            f"{1000 * min(times):.1f}",
            f"{ratio(times, seconds[SHIPPED]):.2f}",
            f"{work[name]:.1f}",
            f"{1000 * statistics.median(per_gflop[name]):.2f}",
            f"{ratio(per_gflop[name], per_gflop[SHIPPED]):.2f}",
        ]
        for name, times in seconds.items()
    ]
    page.add(f"### {title}")
    page.add(table(["network", "ms, median", "ms, least", "to ours", "GFLOP", "ms a GFLOP", "to ours"], rows))


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=11)
    parser.add_argument("--bf16", action="store_true", help="everyone under bfloat16 autocast, not in float32")
    parser.add_argument("--channels-last", action="store_true", help="the peers' weights channels-last, too, as ours")
    parser.add_argument("--without-report", action="store_true", help="leave the report's big network out")
    parser.add_argument("--batch", type=int, default=64, help="images in a training step, 64 by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    batch, sizes, repeats = (8, [4], 1) if options.quick else (options.batch, [10, 64], options.repeats)
    if repeats * len(sizes) + 3 > T:
        parser.error(f"--repeats {repeats} is more than the {T} steps that a sampler has")

    data = ImageArrays(torch.randint(256, (2048, 3, 28, 28), dtype=torch.uint8), torch.arange(2048) % CLASSES)
    found = contenders(options.bf16, report=not options.without_report)
    if options.channels_last:
        for contender in found.values():
            contender.network.to(memory_format=torch.channels_last)

    page = Page(options.out)
    page.add("# One step beside public peers")
    page.add(f"{machine()}; {peers_versions()}.")
    layout = "all networks channels-last" if options.channels_last else "each network in the layout its users get"
    page.add(
        f"{'bfloat16 autocast' if options.bf16 else 'float32'}, {layout}; medians of {repeats} rounds, in each of "
        f"which all take their turn; ratios are medians of the ratios within a round."
    )
    networks(page, found)
    # sampling first: smalldiffusion's training loop is handed the network by accelerate, which wraps it under bf16
    for size in sizes:
        jobs = {name: contender.guided_step(size) for name, contender in found.items()}
        compare(page, f"One guided DDPM step, w = 2, {size} images", jobs, repeats)
    jobs = {name: contender.training_step(data, batch) for name, contender in found.items()}
    compare(page, f"One training step, {batch} images: forward, backward, Adam", jobs, repeats)
    page.close()
    return 0


def peers_versions() -> str:
    from importlib.metadata import version

    names = ("denoising-diffusion-pytorch", "smalldiffusion", "diffusers")
    return ", ".join(f"{name} {version(name)}" for name in names)


if __name__ == "__main__":
    sys.exit(main())
