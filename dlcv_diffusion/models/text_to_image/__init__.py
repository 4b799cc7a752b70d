"""Latent text-to-image models of Stable Diffusion's kind: an autoencoder, a text encoder, a U-Net, a scheduler."""

from .attention import cross_attention_maps
from .denoiser import TextToImage, as_text_to_image, from_pipeline
from .drawing import draw
from .latents import decode, encode, read_autoencoder
from .loading import load_text_to_image

__all__ = ["TextToImage", "as_text_to_image", "decode", "encode", "from_pipeline", "load_text_to_image"]
__all__ += ["cross_attention_maps", "draw", "read_autoencoder"]
