"""Latent text-to-image models of Stable Diffusion's kind: an autoencoder, a text encoder, a U-Net, a scheduler."""

from .denoiser import TextToImage, as_text_to_image, from_pipeline
from .latents import decode, encode, read_autoencoder
from .loading import load_text_to_image

__all__ = ["TextToImage", "as_text_to_image", "decode", "encode", "from_pipeline", "load_text_to_image"]
__all__ += ["read_autoencoder"]
