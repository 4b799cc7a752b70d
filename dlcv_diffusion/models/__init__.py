"""Networks, and how their weights are kept. See `context_unet` (the report's), `unet` (DDPM's) and `registry`."""

from .context_unet import ContextUnet
from .registry import build_model, read_model, save_model, shipped_weights
from .unet import UNet

__all__ = ["ContextUnet", "UNet", "build_model", "read_model", "save_model", "shipped_weights"]
