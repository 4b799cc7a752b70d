"""Learn held-out things and the held-out style of the emoji world, and measure what came of it against the truth.

    python tools/measure_personalisation.py --work runs/personalisation --out measured.json
    python tools/measure_personalisation.py --model runs/text_to_image/model --things owl guitar --style woodcut

1. Each concept alone: "a <new1>" with the initialiser, by textual inversion, and by Custom Diffusion.
2. Two of them in one picture, by the five ways of `personalisation.ways`, on the same seeds.

What was learnt before is not learnt again. Sheets of what was drawn are left in --work.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from dlcv_diffusion.emoji.captions import phrase
from dlcv_diffusion.emoji.concepts import true_pictures, write_concept
from dlcv_diffusion.emoji.judge import load_judge
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.models.text_to_image import draw, load_text_to_image
from dlcv_diffusion.personalisation import (
    Concept,
    load_concepts,
    merge,
    train_custom_diffusion,
    train_textual_inversion,
)
from dlcv_diffusion.personalisation.measure import markdown, measure
from dlcv_diffusion.personalisation.ways import WAYS, Learnt, Wanted, beside, draw_by, in_style
from dlcv_diffusion.training.recipe import write_sheet
from dlcv_diffusion.zero_shot import load_clip

STYLE_INITIALISER = "drawing"
SHOWN = 40


class Study:
    """The concepts of a measurement, where they are learnt, and with what they are measured."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.world = args, load_world()
        self.load = partial(load_text_to_image, args.model, "cpu")
        self.judge, self.clip = load_judge(args.judge) if args.judge else load_judge(), load_clip("emoji", device="cpu")
        self.seeds = range(args.seed, args.seed + args.count)

    def token(self, name: str) -> str:
        """The second thing's, and the style's, is <new2>: each is learnt by the word that it has beside the first."""
        return "<new2>" if name in (*self.args.things[1:2], self.args.style) else "<new1>"

    def concept(self, name: str, token: str) -> Concept:
        folder = write_concept(self.world, name, self.args.work / "pictures" / name)
        if name in STYLES:
            return Concept(folder, token, STYLE_INITIALISER, "style")
        return Concept(folder, token, self.world.held_out_things[name][0].split()[-1], prior=self.args.prior)

    def learnt(self, method: str, names: tuple[str, ...], tokens: tuple[str, ...]) -> Path:
        """The run of a method on these concepts, which is begun, gone on with, or there."""
        out = self.args.work / f"{method} {' '.join(names)} {' '.join(token[1:-1] for token in tokens)}".replace(
            " ", "_"
        )
        if not (out / "model.safetensors").is_file():
            concepts = [self.concept(*pair) for pair in zip(names, tokens, strict=True)]
            options: dict[str, Any] = {"resume": (out / "checkpoint.safetensors").exists(), "device": "cpu"}
            options |= {} if self.args.steps is None else {"steps": self.args.steps}
            if method == "inversion":
                steps = train_textual_inversion(self.load(), concepts[0], out, **options)
            else:
                steps = train_custom_diffusion(self.load(), concepts, out, **options)
            for _ in tqdm(steps, desc=out.name, total=None, disable=None):
                pass
        return out / "model.safetensors"

    def both(self, names: tuple[str, str]) -> Learnt:
        tokens = ("<new1>", "<new2>")
        apart = tuple(self.learnt("inversion", (name,), (token,)) for name, token in zip(names, tokens, strict=True))
        alone = [self.learnt("custom", (name,), (token,)) for name, token in zip(names, tokens, strict=True)]
        merged = self.args.work / f"merged_{'_'.join(names)}.safetensors"
        if not merged.is_file():
            merge(self.load(), alone, merged)
        return Learnt(apart, self.learnt("custom", names, tokens), merged)

    def shipped(self) -> dict[str, Path]:
        """Files of the two studies by the names that they ship under, see `personalisation.shipped`."""
        first, second = self.args.things[:2]
        found = {}
        for other in (second, self.args.style):
            learnt = self.both((first, other))
            found |= {first: learnt.apart[0], other: learnt.apart[1]}
            found |= {f"{first}_{other}": learnt.joint, f"{first}_{other}_merged": learnt.merged}
        return {name: Path(path) for name, path in found.items()}


def alone(study: Study, name: str) -> Iterator[dict[str, Any]]:
    """Rows of one concept: the initialiser's word, and what each method made of "a <new1>"."""
    world, is_style = study.world, name in STYLES
    things, style = (("fox",), name) if is_style else ((name,), None)
    token, said = study.token(name), "a fox in the style of {}" if is_style else "a {}"
    truth, _ = true_pictures(world, list(things), study.args.count, style=style)
    near = "a line drawing" if is_style else phrase(world, world.held_out_things[name][0]).split(" ", 1)[1]
    wanted = Wanted(name, said.format(token), said.format(near), ("", ""), things, style)
    files = {"the initialiser": None}
    files["textual inversion"] = study.learnt("inversion", (name,), (token,))
    files["Custom Diffusion"] = study.learnt("custom", (name,), (token,))
    for way, file in files.items():
        sd = study.load()
        if file:
            load_concepts(sd, file)
        prompt = wanted.prompt if file else wanted.plain
        images = draw(sd, [prompt] * study.args.count, study.seeds, scale=study.args.scale)
        write_sheet(images[:SHOWN], study.args.work / "sheets" / f"{name} {way}.png".replace(" ", "_"), 10)
        yield {"wanted": name, "way": way, **alone_row(study, images, truth, wanted)}


def alone_row(study: Study, images: torch.Tensor, truth: torch.Tensor, wanted: Wanted) -> dict[str, Any]:
    if wanted.style:
        return measure(study.judge, study.clip, images, truth, wanted)
    plain = Wanted(**{**vars(wanted), "style": "plain"})  # one thing, in none of the styles
    return measure(study.judge, study.clip, images, truth, plain)


def together(study: Study, wanted: Wanted, names: tuple[str, str]) -> Iterator[dict[str, Any]]:
    learnt = study.both(names)
    truth, _ = true_pictures(study.world, list(wanted.things), study.args.count, style=wanted.style)
    for way in WAYS:
        images = draw_by(way, study.load, learnt, wanted, study.seeds, scale=study.args.scale)
        write_sheet(images[:SHOWN], study.args.work / "sheets" / f"{wanted.name} {way}.png".replace(" ", "_"), 10)
        yield {"wanted": wanted.name, "way": way, **measure(study.judge, study.clip, images, truth, wanted)}


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="emoji", help="a text-to-image model of the emoji world")
    add("--judge", default=None, help="a judge's file; the one that ships by default")
    add("--work", type=Path, default=Path("runs/personalisation"))
    add("--out", type=Path, default=None, help="JSON to write")
    add("--assets", type=Path, default=None, help="folder to copy what was learnt of the two studies into, as it ships")
    add("--things", nargs="*", default=["owl", "guitar"], help="held-out things, the first two of them together")
    add("--style", default="woodcut")
    add("--count", type=int, default=100, help="pictures a row")
    add("--prior", type=int, default=0, help="pictures of its kind for Custom Diffusion")
    add("--steps", type=int, default=None, help="of each learning, instead of the preset's")
    add("--scale", type=float, default=3.0)
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parsed(arguments)
    study, rows = Study(args), []
    for name in (*args.things, args.style):
        rows += alone(study, name)
    first, second = args.things[:2]
    for wanted, names in (
        (beside(study.world, first, second), (first, second)),
        (in_style(study.world, first, args.style), (first, args.style)),
    ):
        rows += together(study, wanted, names)
    print(markdown(rows))
    if args.assets:
        for name, path in study.shipped().items():
            with atomic_write(args.assets / f"{name}.safetensors") as temporary:
                shutil.copyfile(path, temporary)
    if args.out:
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
