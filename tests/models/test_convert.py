"""`.pt` files as people save them: read right, or refused with one sentence, and nothing in them is run."""

import argparse
import os
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from small_runs import (
    generator,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    with_random_weights,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dlcv_diffusion import UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.models.convert import context_unet_from, convert_report_weights
from dlcv_diffusion.tensors import STATE_KEYS, read_state_dict


@pytest.fixture(scope="module")
def model():
    return with_random_weights(small_context_unet(timesteps=20))


def prediction(network):
    x, t, labels = torch.randn(2, 3, 8, 8, generator=generator()), torch.tensor([0, 19]), torch.tensor([1, 20])
    with torch.no_grad():
        return network(x, t, labels)


def beside(**more):
    return lambda model: {"model": model.state_dict(), **more}


FORMS = {
    **{key: lambda model, key=key: {key: model.state_dict(), "epoch": 3} for key in STATE_KEYS},
    "a numpy loss": beside(loss=np.float32(0.03), best=np.float64(0.02), step=np.int64(7), done=np.bool_(True)),
    "a history in numpy": beside(history=np.linspace(1, 0, 50), words=np.array(["a", "b"])),
    "options": beside(args=argparse.Namespace(lr=1e-3, out=pathlib.Path("runs"), more={"a": np.float32(1)})),
    "numbers among the weights": lambda model: {**model.state_dict(), "loss": np.float32(0.03), "epoch": 3},
    "an optimiser": lambda model: {
        "net": model.state_dict(),
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "rng": torch.get_rng_state(),
    },
    "an ordered dict in an ordered dict": lambda model: OrderedDict(net=OrderedDict(model.state_dict())),
    "an average": lambda model: AveragedModel(model).state_dict(),
    "an average under ema": lambda model: {"ema": AveragedModel(model).state_dict()},
    "compiled": lambda model: torch.compile(model).state_dict(),
    "parallel and compiled": lambda model: nn.DataParallel(torch.compile(model)).state_dict(),
    "parameters": lambda model: dict(model.named_parameters()) | dict(model.named_buffers()),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_state_dicts_as_they_are_saved(model, tmp_path, form, zipped):
    torch.save(FORMS[form](model), tmp_path / "report.pt", _use_new_zipfile_serialization=zipped)
    convert_report_weights(tmp_path / "report.pt", tmp_path / "report.safetensors", timesteps=20)
    loaded = load_denoiser(tmp_path / "report.safetensors", device="cpu")
    torch.testing.assert_close(prediction(loaded), prediction(model), rtol=1e-5, atol=1e-6)


class Trap:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_numpy_s_objects_are_not_run_either(model, tmp_path):
    """An array of objects would unpickle what it holds."""
    extra = np.array([Trap(tmp_path / "sprung")], dtype=object)
    torch.save({"model": model.state_dict(), "extra": extra}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="plain tensors; save model.state_dict"):
        read_state_dict(tmp_path / "trap.pt")
    assert names(tmp_path) == ["trap.pt"]


def changed(name, change):
    return lambda state: {**state, name: change(state[name])}


BAD = {
    "a number a million times over": changed("up0.0.bias", lambda bias: torch.zeros(1).expand(10**12)),
    "weights a million times over": changed(
        "up0.0.weight", lambda weight: torch.zeros(1, 1, 1, 1).expand(16, 16, 10**5, 10**5)
    ),
    "sparse": changed("up0.0.bias", lambda bias: bias.to_sparse()),
    "quantised": changed("up0.0.bias", lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8)),
    "nowhere": changed("up0.0.bias", lambda bias: bias.to("meta")),
    "nan": changed("up0.0.bias", lambda bias: bias * torch.nan),
    "infinite": changed("up0.0.bias", lambda bias: bias / 0),
    "too large for float32": changed("up0.0.bias", lambda bias: bias.double() + 1e300),
    "whole numbers": changed("up0.0.bias", lambda bias: bias.long()),
    "complex": changed("up0.0.bias", lambda bias: bias.to(torch.complex64)),
    "no numbers": changed("init_conv.conv1.0.weight", lambda weight: weight[:0]),
    "no number": changed("contextembs.0.model.0.weight", lambda weight: weight[0, 0]),
    "a width that is none": changed("init_conv.conv1.0.weight", lambda weight: weight[:5]),
    "ten thousand levels": lambda state: {**state, **{f"down_blocks.{k}.x": torch.zeros(1) for k in range(10_000)}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BAD)
def test_weights_that_are_none_are_one_sentence_and_write_nothing(model, tmp_path, kind):
    torch.save(BAD[kind](dict(model.state_dict())), tmp_path / "report.pt")
    with pytest.raises(UserError, match="report.pt|report.safetensors") as error:
        convert_report_weights(tmp_path / "report.pt", tmp_path / "report.safetensors", timesteps=20)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert names(tmp_path) == ["report.pt"]


def test_sizes_are_compared_before_there_is_memory_for_them(model):
    state = dict(model.state_dict())
    state["init_conv.conv1.0.weight"] = torch.zeros(1, 1, 1, 1).expand(8_192, 3, 3, 3)
    with pytest.raises(UserError, match="not those of this ContextUnet"):
        context_unet_from(state)


@pytest.mark.parametrize("timesteps", [0, -1, 10**12])
def test_timesteps_that_are_none_are_one_sentence(model, tmp_path, timesteps):
    torch.save(model.state_dict(), tmp_path / "report.pt")
    with pytest.raises(UserError, match="timesteps"):
        convert_report_weights(tmp_path / "report.pt", tmp_path / "report.safetensors", timesteps=timesteps)
    assert names(tmp_path) == ["report.pt"]


@pytest.mark.parametrize("kind", ["itself", "another way to it", "a link", "a hard link", "a link to a link"])
def test_the_file_that_is_read_is_not_written(model, tmp_path, kind):
    pt = tmp_path / "a.pt"
    torch.save(model.state_dict(), pt)
    before, out = pt.read_bytes(), tmp_path / "out.safetensors"
    if kind == "itself":
        out = pt
    elif kind == "another way to it":
        (tmp_path / "sub").mkdir()
        out = tmp_path / "sub" / ".." / "a.pt"
    elif kind == "a hard link":
        os.link(pt, out)
    else:
        out.symlink_to(pt)
        if kind == "a link to a link":
            out, link = tmp_path / "second.safetensors", out
            out.symlink_to(link)
    there = names(tmp_path)
    with pytest.raises(UserError, match="is the file to be read; give another name"):
        convert_report_weights(pt, out)
    assert pt.read_bytes() == before and names(tmp_path) == there
