"""Maps of cross-attention: what the U-Net computes stays the same, and they are its own softmax."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_concepts import small_networks

from dlcv_diffusion import UserError
from dlcv_diffusion.models.text_to_image import cross_attention_maps


@pytest.fixture(scope="module")
def called():
    unet = small_networks()[0]
    generator = torch.Generator().manual_seed(0)
    z, c = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 32, generator=generator)
    return unet, lambda: unet(z, torch.tensor([10, 500]), encoder_hidden_states=c, return_dict=False)[0]


@torch.no_grad()
def test_looking_changes_nothing(called):
    unet, call = called
    before, processors = call(), unet.attn_processors
    with cross_attention_maps(unet) as maps:
        during = call()
    assert torch.equal(before, during)
    assert unet.attn_processors == processors
    found = maps.mean()
    assert found.shape == (2, 5, 8, 8)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 8, 8), atol=1e-5, rtol=0)
    assert maps.mean(size=(16, 16)).shape == (2, 5, 16, 16)


@torch.no_grad()
def test_they_are_the_softmax_of_queries_and_keys(called):
    """Queries and keys are caught at their linear layers, and the softmax is taken by hand, head by head."""
    unet, call = called
    caught, hooks = {}, []
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            hooks.append(module.register_forward_hook(lambda m, i, out, name=name: caught.__setitem__(name, out)))
    call()
    for hook in hooks:
        hook.remove()
    with cross_attention_maps(unet) as maps:
        call()
        call()  # the mean over calls
    wanted = []
    for name in (name for name in caught if name.endswith("to_q")):
        heads = unet.get_submodule(name.removesuffix(".to_q")).heads
        q, k = (caught[each].unflatten(2, (heads, -1)).transpose(1, 2) for each in (name, name.replace("to_q", "to_k")))
        p = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1).mean(1)
        side = math.isqrt(p.shape[1])
        small = p.transpose(1, 2).reshape(2, 5, side, side)
        wanted.append(F.interpolate(small, (8, 8), mode="bilinear"))
    assert len(wanted) > 1
    torch.testing.assert_close(maps.mean(), torch.stack(wanted).mean(0), atol=1e-5, rtol=0)


def test_the_unet_is_as_before_after_an_error(called):
    unet, _ = called
    processors = unet.attn_processors
    with pytest.raises(ZeroDivisionError), cross_attention_maps(unet):
        1 / 0  # noqa: B018
    assert unet.attn_processors == processors


def test_without_a_call_there_is_nothing_to_show(called):
    with cross_attention_maps(called[0]) as maps:
        pass
    with pytest.raises(UserError, match="was not called"):
        maps.mean()
