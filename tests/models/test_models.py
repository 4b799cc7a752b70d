"""The networks: the report's against the original's arithmetic, DDPM's against torch's and diffusers' own parts."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import (
    SCHEDULE,
    generator,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlcv_diffusion import UserError, ddim, ddpm, dpm_solver, last, seeded_noise
from dlcv_diffusion.models import ContextUnet, UNet, build_model
from dlcv_diffusion.models.unet import ResidualBlock, SelfAttention, attention, timestep_embedding

# --- the report's network ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report_network():
    return ContextUnet(in_channels=3, height=28, width=28, n_feat=128, n_cfeat=20, n_downs=2).eval()


def test_the_report_s_network_has_its_size(report_network):
    assert sum(parameter.numel() for parameter in report_network.parameters()) == 28_729_603


@torch.no_grad()
def test_the_report_s_network_has_its_arithmetic(report_network):
    with FlopCounterMode(display=False) as counter:
        report_network(torch.zeros(1, 3, 28, 28), torch.tensor([0]))
    assert round(counter.get_total_flops() / 1e9, 2) == 9.36


def test_the_parameters_have_the_original_s_names(report_network):
    state = report_network.state_dict()
    shapes = {
        "init_conv.conv1.0.weight": (128, 3, 3, 3),
        "init_conv.conv2.1.running_mean": (128,),
        "init_conv.handle_channel.weight": (128, 3, 1, 1),
        "down_blocks.0.model.0.handle_channel.weight": (256, 128, 1, 1),
        "down_blocks.1.model.1.conv2.0.bias": (512,),
        "up0.0.weight": (512, 512, 7, 7),
        "up0.1.weight": (512,),
        "up_blocks.0.model.0.weight": (1024, 256, 2, 2),
        "up_blocks.1.model.2.conv2.1.bias": (128,),
        "final_conv.0.weight": (128, 256, 3, 3),
        "final_conv.3.weight": (3, 128, 1, 1),
        "timeembs.0.model.0.weight": (512, 1),
        "timeembs.1.model.2.weight": (256, 256),
        "contextembs.0.model.0.weight": (512, 20),
        "contextembs.0.model.2.bias": (512,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "up_blocks.0.model.1.handle_channel.weight" not in state  # equal channels need no matching
    assert {name.split(".")[0] for name in state} == {
        "init_conv",
        "down_blocks",
        "up0",
        "up_blocks",
        "final_conv",
        "timeembs",
        "contextembs",
    }


def original(state, x, t, c, n_downs):
    """The public repository's forward pass, in eval mode, on a state dict: t is t / T, c is one-hot."""

    def unit(h, name):
        h = F.conv2d(h, state[f"{name}.0.weight"], state[f"{name}.0.bias"], padding=1)
        mean, var = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
        return F.gelu(F.batch_norm(h, mean, var, state[f"{name}.1.weight"], state[f"{name}.1.bias"]))

    def block(x, name, residual):
        h = unit(unit(x, f"{name}.conv1"), f"{name}.conv2")
        if not residual:
            return h
        key = f"{name}.handle_channel"
        if f"{key}.weight" in state:
            x = F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"])
        return (h + x) / 1.414

    def perceptron(x, name):
        h = F.gelu(F.linear(x, state[f"{name}.model.0.weight"], state[f"{name}.model.0.bias"]))
        return F.linear(h, state[f"{name}.model.2.weight"], state[f"{name}.model.2.bias"])[:, :, None, None]

    first = block(x, "init_conv", True)
    downs, h = [], first
    for i in range(n_downs):
        h = block(block(h, f"down_blocks.{i}.model.0", True), f"down_blocks.{i}.model.1", False)
        downs.append(h := F.max_pool2d(h, 2))
    h = F.gelu(h.mean((2, 3), keepdim=True))
    h = F.conv_transpose2d(h, state["up0.0.weight"], state["up0.0.bias"])
    h = F.gelu(F.group_norm(h, 8, state["up0.1.weight"], state["up0.1.bias"]))
    for i in range(n_downs):
        h = h * perceptron(c, f"contextembs.{i}") + perceptron(t[:, None], f"timeembs.{i}")
        name = f"up_blocks.{i}.model"
        h = torch.cat([h, downs[-1 - i]], dim=1)
        h = F.conv_transpose2d(h, state[f"{name}.0.weight"], state[f"{name}.0.bias"], stride=2)
        h = block(block(h, f"{name}.1", True), f"{name}.2", False)
    h = F.conv2d(torch.cat([h, first], dim=1), state["final_conv.0.weight"], state["final_conv.0.bias"], padding=1)
    h = F.gelu(F.group_norm(h, 8, state["final_conv.1.weight"], state["final_conv.1.bias"]))
    return F.conv2d(h, state["final_conv.3.weight"], state["final_conv.3.bias"])


@torch.no_grad()
@pytest.mark.parametrize("n_downs, height, width", [(1, 6, 10), (2, 28, 28), (3, 16, 8)])
def test_it_computes_what_the_original_does(n_downs, height, width):
    model = with_random_weights(small_context_unet(height=height, width=width, n_downs=n_downs, timesteps=350))
    x, t = torch.randn(5, 3, height, width, generator=generator()), torch.tensor([0, 1, 100, 200, 349])
    labels = torch.tensor([0, 7, 19, 20, 20])
    c = F.one_hot(labels.clamp(max=19), 20).float() * (labels < 20)[:, None]
    expected = original(model.state_dict(), x, t / 350, c, n_downs)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(x, t, labels), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(x, t), original(model.state_dict(), x, t / 350, 0 * c, n_downs))


@torch.no_grad()
@settings(max_examples=12)
@given(n_downs=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 4), channels=st.integers(1, 4))
def test_any_size_that_can_be_halved_will_do(n_downs, rows, columns, channels):
    size = (channels, rows * 2**n_downs, columns * 2**n_downs)
    model = small_context_unet(in_channels=channels, height=size[1], width=size[2], n_downs=n_downs).eval()
    assert model(torch.zeros(2, *size), torch.tensor([0, 1])).shape == (2, *size)


@pytest.mark.parametrize("height, width, n_downs", [(30, 28, 2), (28, 30, 2), (28, 28, 3), (28, 28, 0), (28, 28, -1)])
def test_a_size_that_cannot_be_halved_is_told(height, width, n_downs):
    with pytest.raises(UserError, match=f"{height}×{width} images cannot be halved {n_downs} times"):
        small_context_unet(height=height, width=width, n_downs=n_downs)


def test_images_of_another_size_are_told():
    with pytest.raises(UserError, match="made for images of 8×8, not 12×8"):
        small_context_unet()(torch.zeros(1, 3, 12, 8), torch.tensor([0]))


# --- the DDPM paper's U-Net -------------------------------------------------------------------------------------------


@torch.no_grad()
@settings(max_examples=12)
@given(
    levels=st.integers(1, 3),
    patch=st.sampled_from([1, 2]),
    channels=st.integers(1, 3),
    blocks=st.integers(1, 2),
    attend=st.booleans(),
    batch=st.integers(1, 3),
)
def test_the_u_net_gives_what_it_is_given(levels, patch, channels, blocks, attend, batch):
    widths = (8, 16, 24)[:levels]
    model = UNet(channels, widths, blocks, (attend,) * levels, patch, num_classes=5)
    size = (channels, 2 * model.divisor, 3 * model.divisor)
    t, labels = torch.arange(batch), torch.arange(batch) + 3
    assert model(torch.zeros(batch, *size), t, labels).shape == (batch, *size)


def test_blocks_and_attention_can_differ_by_level():
    model = UNet(channels=(8, 16), blocks=(1, 3), attention=(True, False), num_classes=0)
    attention = [module.norm.num_channels for module in model.modules() if isinstance(module, SelfAttention)]
    assert attention == [8, 16, 8, 8]  # on the way down, in the middle, and twice on the way up
    assert sum(isinstance(module, ResidualBlock) for module in model.modules()) == (1 + 3) + 2 + (2 + 4)
    again = build_model("UNet", model.config)
    assert again.config == model.config and again.state_dict().keys() == model.state_dict().keys()


def test_a_new_u_net_predicts_no_noise():
    """The head starts at zero, as in DDPM's code, so that the first loss is the noise's own variance."""
    model = small_unet()
    assert model(torch.randn(2, 3, 28, 28, generator=generator()), torch.tensor([0, 349])).abs().max() == 0


@torch.no_grad()
def test_no_labels_are_null_labels():
    model = with_random_weights(small_unet())
    x, t = torch.randn(3, 3, 8, 8, generator=generator()), torch.tensor([0, 10, 300])
    null = model(x, t)
    assert torch.equal(null, model(x, t, torch.full((3,), 20)))
    assert not torch.allclose(null, model(x, t, torch.full((3,), 3)), atol=1e-3)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours():
    """GroupNorm, unlike BatchNorm, looks at one image at a time, in training too."""
    model = with_random_weights(small_unet()).train()
    x, t, labels = torch.randn(3, 3, 8, 8, generator=generator()), torch.tensor([0, 10, 300]), torch.tensor([1, 2, 20])
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, t, labels), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(30, 28), (28, 27), (1, 5)])
def test_sides_of_any_length_are_filled_up_with_zeros(height, width):
    model = with_random_weights(small_unet())
    x, t = torch.randn(2, 3, height, width, generator=generator()), torch.tensor([0, 300])
    filled = torch.zeros(2, 3, -(-height // 4) * 4, -(-width // 4) * 4)
    filled[..., :height, :width] = x
    assert model(x, t).shape == x.shape and torch.equal(model(x, t), model(filled, t)[..., :height, :width])


@torch.no_grad()
@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver])
def test_without_labels_it_is_a_denoiser_as_it_is(sampler):
    model = with_random_weights(small_unet(num_classes=0, timesteps=20)).train()
    noise = {"seeds": range(2)} if sampler is ddpm else {}
    step = last(sampler(model, seeded_noise((2, 3, 8, 8), range(2)), SCHEDULE, steps=3, **noise))
    assert step.x.shape == (2, 3, 8, 8) and step.x.isfinite().all() and model.training


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_torch_s(heads):
    ours = with_random_weights(SelfAttention(16, heads))
    theirs = nn.MultiheadAttention(16, heads, batch_first=True).eval()
    theirs.in_proj_weight.copy_(ours.qkv.weight[:, :, 0, 0])
    theirs.in_proj_bias.copy_(ours.qkv.bias)
    theirs.out_proj.weight.copy_(ours.out.weight[:, :, 0, 0])
    theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 16, 3, 5, generator=generator())
    places = ours.norm(x).flatten(2).transpose(1, 2)
    y, _ = theirs(places, places, places)
    torch.testing.assert_close(ours(x), x + y.transpose(1, 2).reshape(x.shape), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dim", [8, 64])
def test_the_timestep_embedding_is_diffusers(dim):
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 1.0, 2.5, 349.0, 999.0])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_embedding(t, dim), theirs)


def test_t_is_scaled_to_a_thousand_steps(monkeypatch):
    from dlcv_diffusion.models import unet

    seen = []
    monkeypatch.setattr(unet, "timestep_embedding", lambda t, dim: seen.append(t) or timestep_embedding(t, dim))
    small_unet(timesteps=350)(torch.zeros(2, 3, 8, 8), torch.tensor([0, 175]))
    assert seen[0].tolist() == [0, 500]


# --- both -------------------------------------------------------------------------------------------------------------


def test_an_unknown_model_or_setting_is_told():
    with pytest.raises(UserError, match="unknown model 'VNet'.* knows ContextUnet, UNet"):
        build_model("VNet", {})
    with pytest.raises(UserError, match="do not fit the model 'UNet'.*newer version"):
        build_model("UNet", {"wings": 2})
    with pytest.raises(UserError, match="do not fit the model 'UNet'"):
        build_model("UNet", {"channels": (12, 20)})  # GroupNorm's eight groups
    with pytest.raises(UserError, match="cannot be halved"):
        build_model("ContextUnet", {"height": 27})


@pytest.mark.parametrize("network", [small_unet, small_context_unet])
def test_it_runs_in_bfloat16_as_a_whole_too(network):
    model = with_random_weights(network()).to(torch.bfloat16)
    assert model(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), torch.tensor([3])).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2, 4, 64, 24), (3, 1, 2, 8), (1, 2, 49, 5)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 0), (torch.bfloat16, 1e-2)])
def test_attention_is_torch_s_in_either_precision(shape, dtype, tolerance):
    """Forwards, and its gradients; of q, k and v that lie in memory as a convolution leaves them."""
    b, heads, places, width = shape
    drawn = torch.randn(b, places, 3 * heads * width, generator=generator())
    results = []
    for attend in (attention, F.scaled_dot_product_attention):
        qkv = drawn.to(dtype, copy=True).requires_grad_()
        q, k, v = qkv.transpose(1, 2).view(b, 3, heads, width, places).transpose(-1, -2).unbind(1)
        y = attend(q, k, v)
        (y.float() * torch.arange(width)).sum().backward()
        results.append((y, qkv.grad))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_two_matrix_products_are_exact_attention(monkeypatch):
    """What they compute in bfloat16, computed in float32 by them: torch's, to 1e-5."""
    q, k, v = torch.randn(3, 2, 4, 64, 24, generator=generator()).bfloat16()
    fused = F.scaled_dot_product_attention(*(part.float() for part in (q, k, v)))
    monkeypatch.setattr(torch, "bfloat16", torch.float32)  # so that float32 goes that way too
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    torch.testing.assert_close(attention(q.float(), k.float(), v.float()), fused, atol=1e-5, rtol=1e-5)


def test_many_places_go_through_the_fused_kernel(monkeypatch):
    """Which keeps no scores: at 128×128 places they would take a gigabyte a head."""
    asked, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: asked.append(q.shape) or fused(q, k, v))
    few, many = (torch.randn(1, 2, places, 3, generator=generator()).bfloat16() for places in (256, 257))
    attention(few, few, few)
    assert asked == []
    assert torch.equal(attention(many, many, many), fused(many, many, many)) and asked == [many.shape]
    attention(few.float(), few.float(), few.float())
    assert len(asked) == 2
