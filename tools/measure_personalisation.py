"""Learn held-out things and the held-out style of the emoji world, and measure what came of it against the truth.

    python tools/measure_personalisation.py --work runs/personalisation --out measured.json
    python tools/measure_personalisation.py --model runs/text_to_image/model --things owl guitar --style woodcut
    python tools/measure_personalisation.py --also tiger shark strawberry cupcake tractor teapot    # each alone

1. Each concept alone: "a <new1>" with the initialiser, by textual inversion, and by Custom Diffusion.
2. Two of them in one picture, by the five ways of `personalisation.ways`, on the same seeds.

Beside each stand other true pictures, measured like those that were drawn. What was learnt before, on the same model in
the same way, is not learnt again. Sheets of what was drawn are left in --work.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from dlcv_diffusion.emoji.captions import GROUNDS, IN_STYLE
from dlcv_diffusion.emoji.concepts import initialiser_of, true_pictures, write_concept
from dlcv_diffusion.emoji.judge import JUDGE, PLAIN, load_judge
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.errors import UserError, check
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.models.text_to_image import draw, load_text_to_image
from dlcv_diffusion.personalisation import (
    Concept,
    custom_diffusion,
    load_concepts,
    merge,
    textual_inversion,
    train_custom_diffusion,
    train_textual_inversion,
)
from dlcv_diffusion.personalisation.concepts import base_facts
from dlcv_diffusion.personalisation.measure import markdown, measure
from dlcv_diffusion.personalisation.ways import WAYS, StudyFiles, Wanted, beside, draw_by, in_style
from dlcv_diffusion.training.recipe import write_sheet
from dlcv_diffusion.zero_shot import load_clip

SHOWN = 40
TRUE_SEED = 9_000
"""Of the true pictures that are measured like drawn ones."""


class Study:
    """The concepts of a measurement, where they are learnt, and with what they are measured."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.world = args, load_world()
        self.load = partial(load_text_to_image, args.model, "cpu")
        self.judge, self.clip = load_judge(args.judge), load_clip("emoji", device="cpu")
        self.seeds = range(args.seed, args.seed + args.count)
        self.steps = {} if args.steps is None else {"steps": args.steps}
        check(len(args.things) > 1, "give two things or more (--things); the first two are drawn together")
        for name in (*args.things, *args.also):
            initialiser_of(self.world, name)
        check(args.style in STYLES, f"there is no style '{args.style}'; there are {', '.join(STYLES)}")

    @cached_property
    def folder(self) -> Path:
        """Where what is learnt on this model in this way is kept."""
        presets = textual_inversion.PRESETS["small"], custom_diffusion.SMALL, custom_diffusion.SIDE_BY_SIDE
        shown = [*GROUNDS, *IN_STYLE]  # what may stand beside the pictures
        follows = repr((base_facts(self.load())["keys_and_values"], self.args.steps, self.args.prior, presets, shown))
        return self.args.work / sha256(follows.encode()).hexdigest()[:8]

    def token(self, name: str) -> str:
        """The second thing's, and the style's, is <new2>: each is learnt by the word that it has beside the first."""
        return "<new2>" if name in (self.args.things[1], self.args.style) else "<new1>"

    def concept(self, name: str) -> Concept:
        folder = write_concept(self.world, name, self.args.work / "pictures" / name)
        kind, prior = ("style", 0) if name in STYLES else ("object", self.args.prior)
        return Concept(folder, self.token(name), initialiser_of(self.world, name), kind, prior=prior)

    def learnt(self, method: str, *names: str) -> Path:
        """The run of a method on these concepts, which is begun, gone on with, or there."""
        out = self.folder / "_".join((method, *names))
        if not (out / "model.safetensors").is_file():
            concepts = [self.concept(name) for name in names]
            options: dict[str, Any] = {"resume": (out / "checkpoint.safetensors").exists(), "device": "cpu"}
            if method == "inversion":
                steps = train_textual_inversion(self.load(), concepts[0], out, **options, **self.steps)
            else:
                steps = train_custom_diffusion(self.load(), concepts, out, **options, **self.steps)
            for _ in tqdm(steps, desc=out.name, disable=None):
                pass
        return out / "model.safetensors"

    def both(self, first: str, second: str) -> StudyFiles:
        alone = [self.learnt("custom", name) for name in (first, second)]
        merged = self.folder / f"merged_{first}_{second}.safetensors"
        if not merged.is_file():
            merge(self.load(), alone, merged)
        apart = self.learnt("inversion", first), self.learnt("inversion", second)
        return StudyFiles(apart, self.learnt("custom", first, second), merged)

    def shipped(self) -> dict[str, Path]:
        """Files of the two studies by the names that they ship under, see `personalisation.shipped`."""
        first, second = self.args.things[:2]
        found = {f"{name}_alone": self.learnt("custom", name) for name in (first, second)}
        for other in (second, self.args.style):
            files = self.both(first, other)
            found |= {first: files.apart[0], other: files.apart[1]}
            found |= {f"{first}_{other}": files.joint, f"{first}_{other}_merged": files.merged}
        return {name: Path(path) for name, path in found.items()}

    def row(self, way: str, images: Tensor, wanted: Wanted, truth: Tensor) -> dict[str, Any]:
        sheet = f"{wanted.name} {way}.png".replace(" ", "_").replace(",", "")
        write_sheet(images[:SHOWN], self.args.work / "sheets" / sheet, 10)
        facts = {"seed": self.args.seed, "scale": self.args.scale, "steps": self.args.sampling_steps}
        facts = {"wanted": wanted.name, "way": way, "model": self.load().name, **facts}
        return {**facts, **measure(self.judge, self.clip, images, truth, wanted)}

    def truth(self, wanted: Wanted, seed: int = 1_000) -> Tensor:
        style = None if wanted.style == PLAIN else wanted.style
        return true_pictures(self.world, list(wanted.things), self.args.count, style=style, seed=seed)[0]


def alone(study: Study, name: str) -> Iterator[dict[str, Any]]:
    """Rows of one concept: the initialiser's word, and what each method made of "a <new1>"; or of a fox in a style."""
    is_style, word = name in STYLES, initialiser_of(study.world, name)
    things, style = (("fox",), name) if is_style else ((name,), PLAIN)
    said = "a fox in the style of {}" if is_style else "a {}"
    wanted = Wanted(name, said.format(study.token(name)), said.format(word), ("", ""), things, style)
    truth = study.truth(wanted)
    for way, method in (("the initialiser", ""), ("textual inversion", "inversion"), ("Custom Diffusion", "custom")):
        sd = study.load()
        if method:
            load_concepts(sd, study.learnt(method, name))
        prompts = [wanted.prompt if method else wanted.plain] * study.args.count
        images = draw(sd, prompts, study.seeds, scale=study.args.scale, steps=study.args.sampling_steps)
        yield study.row(way, images, wanted, truth)
    yield study.row("true pictures", study.truth(wanted, TRUE_SEED), wanted, truth)


def together(study: Study, wanted: Wanted, names: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of two concepts in one picture: the five ways, and the truth."""
    files, truth = study.both(*names), study.truth(wanted)
    how = {"scale": study.args.scale, "steps": study.args.sampling_steps}
    for way in WAYS:
        yield study.row(way, draw_by(way, study.load, files, wanted, study.seeds, **how), wanted, truth)
    yield study.row("true pictures", study.truth(wanted, TRUE_SEED), wanted, truth)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="emoji", help="a text-to-image model of the emoji world")
    add("--judge", type=Path, default=JUDGE)
    add("--work", type=Path, default=Path("runs/personalisation"))
    add("--out", type=Path, default=None, help="JSON to write")
    add("--assets", type=Path, default=None, help="folder to copy what was learnt of the two studies into, as it ships")
    add("--things", nargs="*", default=["owl", "guitar"], help="held-out things, the first two of them together")
    add("--also", nargs="*", default=[], help="further held-out things, each of them alone")
    add("--style", default="woodcut")
    add("--count", type=int, default=100, help="pictures a row")
    add("--prior", type=int, default=24, help="pictures of its kind for Custom Diffusion")
    add("--steps", type=int, default=None, help="of each learning, instead of the preset's")
    add("--sampling-steps", type=int, default=25)
    add("--scale", type=float, default=3.0)
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parsed(arguments)
    study, rows = Study(args), []
    for name in (*args.things, args.style, *args.also):
        rows += alone(study, name)
    first, second = args.things[:2]
    rows += together(study, beside(study.world, first, second), (first, second))
    rows += together(study, in_style(study.world, first, args.style), (first, args.style))
    print(markdown(rows))
    if args.assets:
        for name, path in study.shipped().items():
            with atomic_write(args.assets / f"{name}.safetensors") as temporary:
                shutil.copyfile(path, temporary)
    if args.out:
        lines = ",\n".join(json.dumps(row) for row in rows)
        with atomic_write(args.out) as temporary:
            temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
