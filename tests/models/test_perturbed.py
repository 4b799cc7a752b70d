"""Perturbed-attention guidance: the sum of its equation, with diffusers' own perturbed processor as the oracle."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, PAGIdentitySelfAttnProcessor2_0
from small_runs import attentive, one_thread, small_network  # noqa: F401

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import Denoiser
from dlcv_diffusion.models.perturbed import PerturbedAttention, attending_alone
from dlcv_diffusion.models.unet import SelfAttention

SCHEDULE = NoiseSchedule.linear(20)


def denoiser(prediction="v"):
    return Denoiser(attentive(small_network("UNet")), SCHEDULE, prediction, shape=(3, 8, 8), null=20, name="small")


def test_an_attention_that_looks_at_itself_alone_is_diffusers_perturbed_one():
    torch.manual_seed(0)
    ours = SelfAttention(16)
    for weight in ours.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    theirs = Attention(16, heads=4, dim_head=4, bias=True, norm_num_groups=8, eps=1e-5, residual_connection=True)
    q, k, v = ours.qkv.weight[..., 0, 0].chunk(3)
    bias = ours.qkv.bias.chunk(3)
    theirs.load_state_dict(
        {"group_norm.weight": ours.norm.weight, "group_norm.bias": ours.norm.bias}
        | {"to_q.weight": q, "to_k.weight": k, "to_v.weight": v}
        | {"to_q.bias": bias[0], "to_k.bias": bias[1], "to_v.bias": bias[2]}
        | {"to_out.0.weight": ours.out.weight[..., 0, 0], "to_out.0.bias": ours.out.bias}
    )
    x = torch.randn(2, 16, 4, 4)
    alone = attending_alone(Denoiser(ours, SCHEDULE)).model
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
        theirs.set_processor(PAGIdentitySelfAttnProcessor2_0())
        wanted = theirs(torch.cat([x, x]))[2:]  # of the doubled batch, the second half is perturbed
        assert torch.allclose(alone(x), wanted, atol=1e-5)
        assert not torch.allclose(ours(x), wanted, atol=1e-2)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_sum_is_the_papers(prediction):
    plain, x, t = denoiser(prediction), torch.randn(2, 3, 8, 8), torch.tensor([3, 15])
    labels = torch.tensor([4, 20])
    with torch.no_grad():
        eps, perturbed = plain(x, t, labels), attending_alone(plain)(x, t, labels)
        guided = PerturbedAttention(plain, 0.5)(x, t, labels)
        assert torch.equal(PerturbedAttention(plain, 0)(x, t, labels), eps)
    assert (eps - perturbed).abs().max() > 1e-3
    assert torch.allclose(guided, 1.5 * eps - 0.5 * perturbed, atol=1e-5)


def test_the_weights_are_shared_and_the_network_is_left_alone():
    plain, x, t = denoiser(), torch.randn(1, 3, 8, 8), torch.tensor([7])
    guided = PerturbedAttention(plain, 1.0)
    assert len(list(guided.parameters())) == len(list(plain.parameters()))
    assert not any(module.alone for module in plain.modules() if isinstance(module, SelfAttention))
    with torch.no_grad():
        before = guided.worse[0](x, t)
        for weight in plain.parameters():
            weight.mul_(1.1)
        assert not torch.allclose(guided.worse[0](x, t), before, atol=1e-4), "it follows a change of the weights"


def test_it_says_what_it_is_and_what_it_cannot():
    plain = denoiser()
    guided = PerturbedAttention(plain)
    assert (guided.shape, guided.null, guided.name, guided.schedule) == ((3, 8, 8), 20, "small", SCHEDULE)
    assert guided.facts["attention_guidance"] == 0.5
    for s in (-1, float("inf"), float("nan")):
        with pytest.raises(UserError, match="the guidance scale is .*; it must be a number from 0 on"):
            PerturbedAttention(plain, s)
    with pytest.raises(UserError, match="is guided in this way already"):
        PerturbedAttention(guided)
    with pytest.raises(UserError, match="the network 'Conv2d' has none of our self-attention"):
        PerturbedAttention(Denoiser(torch.nn.Conv2d(3, 3, 1), SCHEDULE))
    with pytest.raises(UserError, match="takes a plain denoiser"):
        PerturbedAttention(lambda x, t: x)
    unlabelled = Denoiser(attentive(small_network("UNet")), SCHEDULE, "v", shape=(3, 8, 8))
    with pytest.raises(UserError, match="needs a network with labels"):
        PerturbedAttention(unlabelled, 0.3, s_null=0.9)
