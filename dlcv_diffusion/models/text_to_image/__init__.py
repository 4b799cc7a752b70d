"""Latent text-to-image models of Stable Diffusion's kind: an autoencoder, a text encoder, a U-Net, a scheduler."""
