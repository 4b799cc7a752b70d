"""The README's code blocks run as they stand, and are right for any prediction where the truth is known."""

import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
import torch
from small_concepts import write_concept
from torch import nn

from dlcv_diffusion import NoiseSchedule
from dlcv_diffusion.models import registry
from dlcv_diffusion.models.registry import save_model
from dlcv_diffusion.personalisation import textual_inversion

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
MEAN, STD = 0.3, 0.2


class Gaussian(nn.Module):
    """The best network for data of independent pixels N(MEAN, STD²): it gives E[ε | x_t], E[v | x_t] or E[x0 | x_t]."""

    def __init__(self, prediction: str, timesteps: int, in_channels: int = 3, num_classes: int = 0):
        super().__init__()
        self.prediction, self.timesteps = prediction, timesteps
        self.in_channels, self.num_classes = in_channels, num_classes
        self.config = dict(prediction=prediction, timesteps=timesteps, in_channels=in_channels, num_classes=num_classes)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, labels=None):
        abar = NoiseSchedule.linear(self.timesteps).alphas_bar[t].float().reshape(-1, 1, 1, 1)
        gain = abar.sqrt() * STD**2 / (abar * STD**2 + 1 - abar)
        x0 = MEAN + gain * (x - abar.sqrt() * MEAN)
        eps = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        return {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[self.prediction]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    monkeypatch.setitem(registry.MODELS, "Gaussian", Gaussian)


def run(block: str, **names) -> dict:
    exec(compile(block, str(README), "exec"), names)  # noqa: S102 – our own README
    return names


def assert_right(images: torch.Tensor, rel: float = 0.15) -> None:
    """20 or 50 steps of a network without errors lose a tenth of the standard deviation; all steps, next to none.

    The mean is 0.01 short with T = 350, whose last x_T is not yet plain noise.
    """
    assert images.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert images.std().item() == pytest.approx(STD, rel=rel)


def test_there_are_five_blocks():
    names = ["digits", "faces", "mine", "clip", "personalisation"]
    assert len(BLOCKS) == len(names) and all(name in block for name, block in zip(names, BLOCKS, strict=True))


def test_personalisation_as_it_stands_but_shorter(monkeypatch, capsys):
    write_concept(Path("my_dog"))
    short = replace(textual_inversion.PRESETS["small"], steps=3)
    monkeypatch.setattr(textual_inversion, "PRESETS", {"small": short})
    images = run(BLOCKS[4])["images"]
    assert images.shape == (4, 3, 64, 64) and images.float().std() > 20
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3"]


def test_zero_shot_as_it_stands():
    found = run(BLOCKS[3])["found"]
    assert found.count == 500 and found.accuracy > 0.7 and len(found.cases(right=5, wrong=5)) == 10


def test_digits_as_they_stand():
    images = run(BLOCKS[0])["images"]
    assert images.shape == (20, 3, 28, 28) and images.isfinite().all()
    assert Path("digits.png").stat().st_size > 10_000


def test_faces_as_they_stand():
    images = run(BLOCKS[1])["images"]
    assert images.shape == (5, 1, 64, 64) and images.float().std() > 20


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_digits_of_gaussian_data(prediction, tmp_path):
    facts = {"prediction": prediction, "schedule": NoiseSchedule.linear(350).config}
    save_model(Gaussian(prediction, 350, num_classes=20), tmp_path / "gaussian.safetensors", facts)
    block = BLOCKS[0].replace('"digits"', '"gaussian.safetensors"')
    assert_right(run(block)["images"])
    assert_right(run(block.replace("steps=20", "steps=350"))["images"], rel=0.02)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_faces_of_gaussian_data(prediction, tmp_path):
    facts = {"prediction": prediction, "schedule": NoiseSchedule.linear(1000).config, "shape": (1, 64, 64)}
    save_model(Gaussian(prediction, 1000, 1), tmp_path / "gaussian.safetensors", facts)
    images = run(BLOCKS[1].replace('"faces"', '"gaussian.safetensors"'))["images"]
    assert_right(images / 127.5 - 1)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_your_own_network_of_gaussian_data(prediction):
    block = BLOCKS[2].replace('"v"', f'"{prediction}"')
    assert_right(run(block, network=Gaussian(prediction, 1000))["images"])
    assert_right(run(block.replace("steps=50", "steps=1000"), network=Gaussian(prediction, 1000))["images"], rel=0.02)
