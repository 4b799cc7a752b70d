"""Problem 3, second half: a text-to-image model learns a new thing or style from a few pictures.

sd = load_text_to_image("CompVis/stable-diffusion-v1-4")
concept = Concept("my_dog", "<new1>", initialiser="dog")
for state in train_textual_inversion(sd, concept, "runs/dog"): ...         # a vector (arXiv 2208.01618)
for state in train_custom_diffusion(sd, [concept, other], "runs/two"): ...   # keys and values too (2212.04488)
load_concepts(sd, "runs/two")
"""

from .concepts import load_concepts, read_concept_file
from .custom_diffusion import train_custom_diffusion
from .explorer import prompt_explorer
from .learning import Concept
from .merging import merge, merged_weight
from .network import PersonalisedNetwork
from .textual_inversion import train_textual_inversion
from .tokens import add_token

__all__ = ["Concept", "PersonalisedNetwork", "add_token", "load_concepts", "merge", "merged_weight"]
__all__ += ["prompt_explorer", "read_concept_file", "train_custom_diffusion", "train_textual_inversion"]
