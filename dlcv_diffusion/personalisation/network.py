"""The network that personalisation trains: copies that share all weights with the model, beside what trains."""

from collections.abc import Container, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check
from ..models.text_to_image import TextToImage
from .tokens import with_vectors


class PersonalisedNetwork(nn.Module):
    """ε_θ(z_t, t, c(y; v)), of which the vectors v of new words train, and those weights of the U-Net that are named.

    Copies that share all other weights with the model, which stays as it is, to the bit. What trains is in float32.

    - vectors: (token, (n, d)) of each concept, where they begin; trained: names of the U-Net's weights.
    - dtype: of the frozen weights; scale: how much faster the vectors move, see `WordsAndVectors`.
    - checkpointing: the U-Net's activations are computed twice instead of kept.

    Raises `UserError` for tokens that are taken.

    >>> network = PersonalisedNetwork(sd, [("<new1>", initial_vectors(sd, "dog"))])   # doctest: +SKIP
    >>> network(z_t, t, token_ids(["a <new1>"], network.tokenizer)).shape             # doctest: +SKIP
    torch.Size([1, 4, 64, 64])
    """

    def __init__(
        self,
        sd: TextToImage,
        vectors: Sequence[tuple[str, Tensor]],
        trained: Sequence[str] = (),
        *,
        dtype: torch.dtype = torch.float32,
        scale: float = 1.0,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.lengths = {token: len(rows) for token, rows in vectors}
        self.trained, self.dtype = list(trained), dtype
        self.text_encoder = frozen_copy(sd.text_encoder, dtype)
        self.tokenizer = with_vectors(sd.tokenizer, self.text_encoder, vectors, scale)
        self.unet = frozen_copy(sd.unet, dtype, trained)
        if checkpointing:
            self.unet.enable_gradient_checkpointing()

    def c(self, ids: Tensor) -> Tensor:
        """c(y; v), (B, L, d), of the sentences' ids (B, L)."""
        return self.text_encoder(ids)[0]

    def forward(self, z_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """What the U-Net predicts, like z_t (B, c, h, w), for t (B,) and ids (B, L)."""
        c = self.c(ids).to(self.dtype)
        return self.unet(z_t.to(self.dtype), t, encoder_hidden_states=c, return_dict=False)[0]

    @property
    def vectors(self) -> dict[str, Tensor]:
        """v by token, (n, d) float32."""
        rows = self.text_encoder.get_input_embeddings().vectors.split([*self.lengths.values()])
        return dict(zip(self.lengths, rows, strict=True))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The U-Net's weights that train, by name, float32."""
        return {name: self.unet.get_parameter(name) for name in self.trained}


def frozen_copy(network: nn.Module, dtype: torch.dtype | None = None, trained: Container[str] = ()) -> Any:
    """A copy that shares its weights with the network and trains none of them: the network stays as it is, to the bit.

    - dtype: of the frozen weights; where it is another than theirs, they are copied.
    - trained: names of weights that the copy has for itself, in float32, to train.

    >>> linear = nn.Linear(2, 2)
    >>> copy = frozen_copy(linear, trained=["bias"])
    >>> copy.weight.data_ptr() == linear.weight.data_ptr(), copy.bias.data_ptr() == linear.bias.data_ptr()
    (True, False)
    """
    memo: dict[int, Any] = {id(buffer): buffer.detach() for buffer in network.buffers()}
    for name, weight in network.named_parameters():
        own = name in trained
        value = weight.detach().to(torch.float32, copy=True) if own else weight.detach().to(dtype or weight.dtype)
        memo[id(weight)] = nn.Parameter(value, requires_grad=own)
    return deepcopy(network, memo).eval()


def cross_attention(unet: nn.Module) -> list[str]:
    """Names of the weights of every cross-attention's keys and values, W^k and W^v, (channels, width of the text).

    Raises `UserError` for a network without any.

    >>> cross_attention(pipeline.unet)[0]   # doctest: +SKIP
    'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'
    """
    found = [name for name, _ in unet.named_parameters() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    advice = "Custom Diffusion trains its keys and values; give a Stable Diffusion model"
    check(found, f"this {type(unet).__name__} has no cross-attention (attn2.to_k); {advice}")
    return found
