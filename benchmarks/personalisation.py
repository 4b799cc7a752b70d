"""Textual inversion against the settings of diffusers' own example: seconds a step, and the most memory that it took.

    python benchmarks/personalisation.py --threads 2 --out benchmarks/results/personalisation.md

Theirs is our transcription of what `examples/textual_inversion` does in a step: pictures to latents by the autoencoder,
noise, the U-Net, AdamW on the whole lookup table, whose other rows are then put back. Ours encodes the pictures once,
and trains the new word's vector alone. Each runs in processes of its own, in turns, on the same weights: those of the
small pipeline that ships (or --model), and random ones of Stable Diffusion 1.x's sizes.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from side_by_side import Page, arguments, machine, table

from dlcv_diffusion.models.clip.loading import SHIPPED
from dlcv_diffusion.models.clip.small import read_small_clip
from dlcv_diffusion.models.clip.tokenizer import write_tokenizer
from dlcv_diffusion.models.foreign import quietly
from dlcv_diffusion.models.text_to_image import load_text_to_image
from dlcv_diffusion.personalisation import Concept, train_textual_inversion

SD1 = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8}
SD1_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "scaling_factor": 0.18215}
TINY = {"block_out_channels": (32, 32, 32, 32), "cross_attention_dim": 768, "attention_head_dim": 2}
TINY_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "scaling_factor": 0.18215}


def write_random_sd1(folder: Path, tiny: bool) -> Path:
    """A pipeline of random weights in Stable Diffusion 1.x's sizes, saved in half precision; `tiny`: narrow ones."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    merges = read_small_clip(SHIPPED["emoji"]).merges
    write_tokenizer(folder / "tokenizer", merges, context=77)
    blocks = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    text = {"num_hidden_layers": 1 if tiny else 12, "num_attention_heads": 12, "hidden_size": 768}
    unet = UNet2DConditionModel(
        sample_size=16 if tiny else 64, down_block_types=blocks[0], up_block_types=blocks[1], **(TINY if tiny else SD1)
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=128 if tiny else 512,
        **(TINY_VAE if tiny else SD1_VAE),
    )
    encoder = CLIPTextModel(CLIPTextConfig(intermediate_size=3072, max_position_embeddings=77, **text))
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    parts = {"unet": unet, "vae": vae, "text_encoder": encoder, "scheduler": PNDMScheduler(**betas)}
    parts |= {"tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer")}
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    for part in (unet, vae, encoder):
        part.half()
    with quietly():
        StableDiffusionPipeline(**parts, **rest).save_pretrained(folder)
    return folder


def write_pictures(folder: Path, side: int) -> Path:
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number in range(4):
        pixels = torch.randint(256, (side, side, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder


def ours(model: Path, pictures: Path, steps: int, batch: int, scratch: Path) -> Iterator[float]:
    """The loss of every step."""
    options = {"steps": steps, "batch_size": batch, "precision": "no", "device": "cpu", "accumulate": 1}
    sd = load_text_to_image(model, "cpu")
    concept = Concept(pictures, "<new1>", "fox")
    for state in train_textual_inversion(sd, concept, scratch, checkpointing=False, **options):
        yield state.loss


def theirs(model: Path, pictures: Path, steps: int, batch: int, scratch: Path) -> Iterator[float]:
    """As diffusers' example, step by step; the loss of every step."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)
    tokenizer, encoder, unet, vae = pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.vae
    noises = DDPMScheduler.from_config(pipe.scheduler.config)
    tokenizer.add_tokens("<new1>")
    new, first = (tokenizer.convert_tokens_to_ids(word) for word in ("<new1>", "fox</w>"))
    encoder.resize_token_embeddings(max(len(tokenizer), encoder.config.vocab_size))
    table_ = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table_[new] = table_[first]
    for part in (vae, unet, encoder):
        part.requires_grad_(False)
    table_.requires_grad_(True)
    encoder.train()
    kept = table_.detach().clone()
    adam = torch.optim.AdamW([table_], lr=5e-3, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    paths, generator = sorted(pictures.glob("*.png")), torch.Generator().manual_seed(0)
    length = tokenizer.model_max_length
    said = tokenizer("a photo of a <new1>", padding="max_length", max_length=length, return_tensors="pt").input_ids
    for _ in range(steps):
        rows = torch.randint(len(paths), (batch,), generator=generator).tolist()
        x = torch.stack([pil_to_tensor(Image.open(paths[row])) for row in rows]) / 127.5 - 1
        z = vae.encode(x).latent_dist.sample().detach() * vae.config.scaling_factor
        eps, t = torch.randn_like(z), torch.randint(0, noises.config.num_train_timesteps, (batch,))
        z_t = noises.add_noise(z, eps, t)
        predicted = unet(z_t, t, encoder(said.expand(batch, -1))[0]).sample
        velocity = noises.config.prediction_type == "v_prediction"
        loss = F.mse_loss(predicted, noises.get_velocity(z, eps, t) if velocity else eps)
        loss.backward()
        adam.step()
        adam.zero_grad()
        others = torch.ones(len(table_), dtype=torch.bool)
        others[new] = False
        with torch.no_grad():
            table_[others] = kept[others]
        yield loss.item()


def child(words: dict) -> None:
    """One recipe, in this process: seconds of each step behind the first, and the most memory in GiB, as JSON."""
    torch.set_num_threads(words["threads"])
    recipe, times = {"ours": ours, "theirs": theirs}[words["recipe"]], []
    paths = (Path(words[name]) for name in ("model", "pictures"))
    steps = recipe(*paths, words["steps"] + 1, words["batch"], Path(words["scratch"]))
    next(steps)
    begun = time.perf_counter()
    for _ in steps:
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": times, "GiB": most}))


def rows_of(name: str, model: Path, side: int, batch: int, steps: int, repeats: int, threads: int, scratch: Path):
    """Two rows of the table: theirs and ours, in turns."""
    found = {"theirs": [], "ours": []}
    pictures = write_pictures(scratch / f"pictures_{side}", side)
    for turn in range(repeats):
        for recipe in found:
            words = {"recipe": recipe, "model": str(model), "pictures": str(pictures), "steps": steps, "batch": batch}
            words |= {"threads": threads, "scratch": str(scratch / f"{name}_{recipe}_{turn}".replace(" ", "_"))}
            run = subprocess.run(
                [sys.executable, __file__, "--child", json.dumps(words)], capture_output=True, text=True
            )
            if run.returncode:
                raise SystemExit(run.stderr)
            found[recipe].append(json.loads(run.stdout.strip().splitlines()[-1]))
    seconds = {recipe: statistics.median(t for run in runs for t in run["seconds"]) for recipe, runs in found.items()}
    memory = {recipe: statistics.median(run["GiB"] for run in runs) for recipe, runs in found.items()}
    return [
        [name, said, f"{seconds[recipe]:.3f}", f"{seconds['theirs'] / seconds[recipe]:.2f} ×", f"{memory[recipe]:.2f}"]
        for recipe, said in (("theirs", "diffusers' example's settings"), ("ours", "ours"))
    ]


def main() -> None:
    if "--child" in sys.argv:
        child(json.loads(sys.argv[sys.argv.index("--child") + 1]))
        return
    parser = arguments(__doc__.splitlines()[0], repeats=3)
    parser.add_argument("--model", default=None, help="a small pipeline's folder; what ships by default")
    args = parser.parse_args()
    threads, page = args.threads or torch.get_num_threads(), Page(args.out)
    torch.set_num_threads(threads)
    rows = []
    with TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        if not args.quick:
            from dlcv_diffusion.models.text_to_image.loading import SHIPPED as MODELS

            small = Path(args.model or MODELS["emoji"])
            rows += rows_of("small pipeline", small, 64, 16, 10, args.repeats, threads, scratch)
        sd1 = write_random_sd1(scratch / "sd1", args.quick)
        large = (128, 1, 1, 1) if args.quick else (512, 1, 1, 2)
        rows += rows_of("SD 1.x's sizes", sd1, *large, threads, scratch)
    page.add(f"# Textual inversion\n\n{machine('cpu')}\n\nfloat32; 16 pictures a step, of SD 1.x's sizes one")
    page.add(table(["weights", "", "seconds a step", "times as fast", "most memory, GiB"], rows, text=2))
    page.close()


if __name__ == "__main__":
    main()
