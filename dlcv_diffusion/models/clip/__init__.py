"""CLIP (Radford et al., arXiv 2103.00020): pictures and words in one space. Any of open_clip's, transformers', or ours.

A `Clip` is an encoder of pictures, as everything is that we measure with, and of words.
"""

from .encoder import Clip
from .loading import SHIPPED, load_clip

__all__ = ["SHIPPED", "Clip", "load_clip"]
