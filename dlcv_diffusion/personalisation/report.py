"""The report's figures and table for Problem 3's second half: two concepts in one picture, by five ways."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import torch.nn.functional as F

from ..emoji.concepts import true_pictures
from ..emoji.world import World, load_world
from ..figures import ReportFigure, save_figure
from ..files import staging_folder
from ..guidance import guidance_weight, guided
from ..models.clip import load_clip
from ..models.text_to_image import TextToImage, cross_attention_maps
from ..noise import seeded_noise
from ..samplers import ddim, last
from .concepts import load_concepts
from .figures import attention_figure, best_and_worst
from .shipped import measured_concepts, shipped_concept
from .ways import WAYS, Learnt, Wanted, beside, draw_by, in_style

SHOWN = 4
"""Of the best, and of the worst."""
SCALE, STEPS = 3.0, 25


def shipped_study(name: str, world: World | None = None) -> tuple[Wanted, Learnt]:
    """What ships of two concepts together, "owl guitar" or "owl woodcut": what is wanted, and what was learnt.

    >>> shipped_study("owl guitar")[0].prompt   # doctest: +SKIP
    'a <new1> next to a <new2>'
    """
    world, (first, second) = world or load_world(), name.split()
    wanted = in_style(world, first, second) if second == world.held_out_style else beside(world, first, second)
    joint, merged = shipped_concept(name), shipped_concept(f"{name} merged")
    return wanted, Learnt((shipped_concept(first), shipped_concept(second)), joint, merged)


def ways_figure(
    name: str, load: Callable[[], TextToImage], *, count: int = 16, seed: int = 0, progress: bool = False
) -> ReportFigure:
    """The best and the worst of `count` pictures by each of the five ways, by CLIP's cosine with the true pictures.

    - name: of a shipped study; load: gives a fresh model.

    >>> fig = ways_figure("owl guitar", load_text_to_image)   # doctest: +SKIP
    """
    world, clip = load_world(), load_clip("emoji", device="cpu")
    wanted, learnt = shipped_study(name, world)
    truth, _ = true_pictures(world, list(wanted.things), max(count, 2 * SHOWN), style=wanted.style)
    target, drawn = F.normalize(clip.encode_images(truth).mean(0), dim=0), {}
    for way in WAYS:
        seeds = range(seed, seed + count)
        images = draw_by(way, load, learnt, wanted, seeds, scale=SCALE, steps=STEPS, progress=progress)
        drawn[way] = images, (clip.encode_images(images) @ target).tolist()
    said = f"“{wanted.prompt}”. The best and the worst {SHOWN} of {count}, by CLIP's cosine with the true pictures"
    facts = {"model": load().name, "guidance scale": SCALE, "steps": STEPS, "seeds": f"{seed} … {seed + count - 1}"}
    return best_and_worst(drawn, truth=truth, count=SHOWN, caption=said, facts=facts)


def leak_figure(
    sd: TextToImage, prompt: str, words: Sequence[str], seeds: Sequence[int] = (0, 1, 2), *, title: str = ""
) -> ReportFigure:
    """Pictures of a prompt, and where some of its words are looked at while they are drawn, over all steps.

    - sd: a model that knows the words; words: of the prompt, as its tokenizer splits it.

    >>> fig = leak_figure(sd, "a <new1> next to a <new2>", ["<new1>", "<new2>"])   # doctest: +SKIP
    """
    count, read = len(seeds), ["", *(piece.removesuffix("</w>") for piece in sd.tokenizer.tokenize(prompt))]
    noise, c = seeded_noise((count, *sd.shape), seeds, sd.device), sd.encode_prompts([prompt]).expand(count, -1, -1)
    with cross_attention_maps(sd.unet) as maps:
        z = last(ddim(guided(sd, c, guidance_weight(SCALE)), noise, steps=STEPS)).x
    facts = {"model": sd.name, "guidance scale": SCALE, "steps": STEPS, "seeds": list(seeds)}
    places, caption = {word: read.index(word) for word in words}, f"“{prompt}”: where each word is looked at"
    return attention_figure(sd.decode(z), maps.mean()[:count], places, title=title, caption=caption, facts=facts)


def write_personalisation_figures(
    out: str | Path, load: Callable[[], TextToImage], *, seed: int = 0, progress: bool = False
) -> list[Path]:
    """The report's figures and table for Problem 3's second half; returns their paths.

    `personalisation_beside.png`, `personalisation_style.png`: see `ways_figure`; `personalisation_leak_apart.png`,
    `…_joint.png`: see `leak_figure`; `personalisation_measured.csv`: what was measured of 100 pictures each.

    - load: gives a fresh model of the emoji world, on which what ships was learnt.

    The files appear when all are made. Raises `UserError` where `out` cannot be written.

    >>> write_personalisation_figures("figures", load_text_to_image)   # doctest: +SKIP
    """
    names = ["beside.png", "style.png", "leak_apart.png", "leak_joint.png", "measured.csv"]
    names = [f"personalisation_{name}" for name in names]
    with staging_folder(out) as staging:
        for name, study in zip(names, ("owl guitar", "owl woodcut"), strict=False):
            save_figure(ways_figure(study, load, seed=seed, progress=progress), staging / name)
        wanted, learnt = shipped_study("owl guitar")
        titles = {"learnt apart": learnt.apart, "learnt together, with keys and values": (learnt.joint,)}
        for name, (title, files) in zip(names[2:], titles.items(), strict=False):
            sd = load()
            tokens = load_concepts(sd, *files)
            save_figure(leak_figure(sd, wanted.prompt, tokens, range(seed, seed + 3), title=title), staging / name)
        _write_table(staging / names[4])
    return [Path(out) / name for name in names]


def _write_table(path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "scores"} for row in measured_concepts()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
