"""The course's way in and out: `input.json` with its prompts, and the folder of pictures that is handed in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import Field, StringConstraints

from ..declared import declared, validated
from ..errors import check
from ..evaluation.handed_in import first_of
from ..files import staging_folder
from ..images.folders import names_in
from ..models.text_to_image import TextToImage, draw
from ..reading import reading

PER_PROMPT = 25
ADVICE = "give the course's input.json"
WRITES = "`dlcv personalise sample` writes them"
PLACEHOLDER = re.compile(r"<[^<>\s]+>")
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w-]{0,63}$")]


@declared
class Asked:
    """What `input.json` asks for with one concept.

    - src_image: what it is called; token_name: its word in the prompts.
    - prompt: what is drawn. Only grading needs the others, one for each prompt: prompt_4_clip_eval: what CLIP is asked
      of it; baseline: image and text score to reach.
    """

    token_name: Text
    prompt: Annotated[list[Text], Field(min_length=1)]
    prompt_4_clip_eval: list[Text] = Field(default_factory=list)
    baseline: list[tuple[float, float]] = Field(default_factory=list)
    src_image: str = ""


def read_input(path: str | Path, *, graded: bool = False) -> dict[str, Asked]:
    """The concepts of the course's `input.json` by their folder, "0", "1", …

    - graded: what grading needs has to be there, too.

    Raises `UserError` for a file that is missing or another, for lists of different lengths, and for a prompt without
    the concept's token.

    >>> read_input("hw2_data/textual_inversion/input.json")["0"].token_name   # doctest: +SKIP
    '<new1>'
    """
    with reading(path, "is not JSON", ADVICE):
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    found = validated(Annotated[dict[Name, Asked], Field(min_length=1)], content, f"'{path}'")
    for concept, asked in found.items():
        counts = len(asked.prompt), len(asked.prompt_4_clip_eval), len(asked.baseline)
        said = "{} prompts, {} of prompt_4_clip_eval and {} baselines".format(*counts)
        fits = len(set(counts) if graded else {count for count in counts if count}) == 1
        check(fits, f"'{path}' has for the concept {concept} {said}; there must be as many of each")
        lacking = next((prompt for prompt in asked.prompt if asked.token_name not in prompt), None)
        check(lacking is None, f"'{path}': the prompt '{lacking}' lacks the token {asked.token_name}; write it in")
    return found


def picture_name(concept: str, prompt: int, number: int) -> str:
    """Where the course looks for a picture, below the folder that is handed in.

    >>> picture_name("0", 1, 24)
    '0/1/source0_prompt1_24.png'
    """
    return f"{concept}/{prompt}/source{concept}_prompt{prompt}_{number}.png"


def write_hw2_personalisation(
    sd: TextToImage,
    asked: Mapping[str, Asked],
    out: str | Path,
    *,
    count: int = PER_PROMPT,
    seed: int = 0,
    scale: float = 6.0,
    steps: int = 25,
    progress: bool = False,
) -> list[Path]:
    """Draw what the course asks for, `OUT/{concept}/{prompt}/source{c}_prompt{p}_{i}.png`; picture i of `seed` + i.

    - sd: a model that knows the concepts' tokens, see `load_concepts`.

    The files appear under their names only when every one of them is written; files of the same names are replaced.
    Raises `UserError` for a token that the model does not know, and where `out` cannot be written.

    >>> write_hw2_personalisation(sd, read_input("input.json"), "out")   # doctest: +SKIP
    """
    known = {token.lower() for token in sd.tokenizer.added_tokens_encoder}
    needed = [each.token_name for each in asked.values()]
    needed += [name for each in asked.values() for prompt in each.prompt for name in PLACEHOLDER.findall(prompt)]
    unknown = [name for name in dict.fromkeys(needed) if name.lower() not in known]
    said = f"'{sd.name}' does not know {', '.join(unknown)}"
    check(not unknown, f"{said}; load what `dlcv personalise train` wrote (load_concepts, --embeddings)")
    rows = [(concept, p, i) for concept, each in asked.items() for p in range(len(each.prompt)) for i in range(count)]
    folders = list(dict.fromkeys(f"{concept}/{p}" for concept, p, _ in rows))
    with staging_folder(out, folders) as staging:
        prompts = [asked[concept].prompt[p] for concept, p, _ in rows]
        seeds = [seed + number for _, _, number in rows]
        images = draw(sd, prompts, seeds, scale=scale, steps=steps, progress=progress)
        for row, image in zip(rows, images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / picture_name(*row))
    return [Path(out, picture_name(*row)) for row in rows]


def handed_in_paths(folder: str | Path, asked: Mapping[str, Asked], count: int) -> dict[tuple[str, int], list[Path]]:
    """The pictures that were handed in, by concept and number of the prompt.

    Raises `UserError` where one is missing, or one that does not belong there lies beside them.
    """
    found = {}
    for concept, each in asked.items():
        for prompt in range(len(each.prompt)):
            names = [picture_name(concept, prompt, number) for number in range(count)]
            below = Path(names[0]).parent
            there = [f"{below.as_posix()}/{name}" for name in names_in(Path(folder, below), WRITES)]
            missing = [name for name in names if name not in there]
            strange = [name for name in there if name not in names]
            expected = f"the prompt {prompt} of the concept {concept} has {count} pictures"
            check(not missing, f"'{folder}' lacks {first_of(missing)}; {expected}; {WRITES}")
            check(not strange, f"'{folder}' holds {first_of(strange)}, which does not belong there; {expected}")
            found[concept, prompt] = [Path(folder, name) for name in names]
    return found
