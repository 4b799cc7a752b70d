"""Problem 3, first half: CLIP classifies pictures into classes that it is only told the names of.

clip = load_clip("emoji")                              # or "ViT-B-32", "openai"; or a folder of transformers
found = classify(clip, load_pictures("hw2_data/clip_zeroshot"), templates="ensemble")
found.accuracy, found.cases(right=5, wrong=5)
zero_shot_explorer(clip, load_pictures("emoji").subset(range(12)))
"""

from ..models.clip import Clip, load_clip
from .classify import class_embeddings, classify, scores
from .explorer import zero_shot_explorer
from .pictures import Pictures, load_pictures
from .result import Case, ZeroShotResult
from .search import picture_features, search
from .templates import COURSE, ENSEMBLE, read_templates

__all__ = ["COURSE", "ENSEMBLE", "Case", "Clip", "Pictures", "ZeroShotResult", "class_embeddings", "classify"]
__all__ += [
    "load_clip",
    "load_pictures",
    "picture_features",
    "read_templates",
    "scores",
    "search",
    "zero_shot_explorer",
]
