"""Devices, precision and layout."""

import contextlib

import pytest
import torch
from torch import nn

from dlcv_diffusion import UserError
from dlcv_diffusion.device import autocast, best_device, has_fast_bf16, named_device, prepare


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))


def test_the_best_device_works():
    assert torch.zeros(1, device=best_device()).sum().item() == 0


@pytest.mark.parametrize("quick", [True, False])
def test_autocast_runs_convolutions_in_bfloat16_where_that_is_quick(monkeypatch, quick):
    monkeypatch.setattr("dlcv_diffusion.device.has_fast_bf16", lambda device: quick)
    x = torch.zeros(1, 3, 4, 4)
    with autocast("cpu"):
        assert net()(x).dtype == (torch.bfloat16 if quick else torch.float32)
    assert isinstance(autocast("cpu", fast=False), contextlib.nullcontext)


def test_no_bf16_on_mps():
    assert not has_fast_bf16("mps") and isinstance(autocast("mps"), contextlib.nullcontext)


def test_preparing_changes_the_layout_and_not_the_numbers():
    model, x = net(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    prepared = prepare(model, "cpu")
    assert prepared[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(prepared(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "device", ["gpu", "meta", "cpu:3", "cpu:x", "mps:1", "hpu", "cuda:", "cuda:99", "cuda:" + 40 * "9"]
)
def test_a_device_that_is_not_here_is_told_with_those_that_are(device):
    with pytest.raises(UserError) as error:
        prepare(net(), device)
    assert str(error.value).startswith(f"cannot use device '{device}'; this machine has cpu")


@pytest.mark.parametrize(
    "gpus, said",
    [(0, "this machine has cpu"), (1, "this machine has cpu, cuda"), (3, "this machine has cpu, cuda:0 … cuda:2")],
)
def test_the_gpus_are_counted(monkeypatch, gpus, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"{said}$"):
        named_device(f"cuda:{gpus}")
    assert all(named_device(f"cuda:{index}").index == index for index in range(gpus))


def test_the_best_device_is_the_default():
    assert named_device() == named_device(None) == best_device()
