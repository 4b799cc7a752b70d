"""Face models that are small enough for tests: the course's kind, diffusers' and ours, and pictures to train on."""

import io
import zipfile

import torch
from PIL import Image
from small_runs import generator, with_random_weights

from dlcv_diffusion import NoiseSchedule
from dlcv_diffusion.models import UNet, save_model

SIZE = 16

UNET_PY = """
import torch
from torch import nn
from blocks import Block  # a file beside this one, as a user may have it


class UNet(nn.Module):
    def __init__(self, channels=3, width=8):
        super().__init__()
        self.into = nn.Conv2d(channels, width, 3, padding=1)
        self.block = Block(width)
        self.out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, t):
        h = self.into(x) + torch.sin(t / 100)[:, None, None, None]
        return self.out(self.block(h))
"""

BLOCKS_PY = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)  # gives something else in training mode

    def forward(self, h):
        return torch.tanh(self.norm(h))
"""


def write_course(folder):
    """`UNet.py`, what it imports, and `UNet.pt` in a folder; the network's own forward function is returned."""
    (folder / "UNet.py").write_text(UNET_PY)
    (folder / "blocks.py").write_text(BLOCKS_PY)
    space = {"__name__": "course"}
    exec(BLOCKS_PY, space)
    exec(UNET_PY.replace("from blocks import Block", ""), space)
    network = with_random_weights(space["UNet"]())
    torch.save(network.state_dict(), folder / "UNet.pt")
    return network


def small_unet2d(**changes):
    """A `UNet2DModel` with random weights."""
    from diffusers import UNet2DModel

    config = {
        "sample_size": SIZE,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(**{**config, **changes}).eval()


def write_own(path, *, prediction="v", name="small", **changes):
    """A model of ours that draws 1×16×16, in a file as `dlcv train faces` writes it."""
    config = {"in_channels": 1, "channels": (8, 16), "blocks": 1, "emb_channels": 32, "timesteps": 1000}
    model = with_random_weights(UNet(**{**config, **changes}))
    size = [model.in_channels, SIZE, SIZE]
    facts = {"schedule": NoiseSchedule.linear(1000).config, "shape": size, "prediction": prediction, "name": name}
    save_model(model, path, facts)
    return path


def picture(number, size=(20, 16)):
    """A picture that is unlike the others."""
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator(number), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def write_pictures(folder, count=12):
    """`count` pictures of 20×16 as PNG, in two folders, beside what is none."""
    for number in range(count):
        path = folder / f"{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    (folder / "readme.txt").write_text("no picture")
    (folder / "0" / "._000.png").write_bytes(b"what macOS leaves")
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def png_bytes(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
