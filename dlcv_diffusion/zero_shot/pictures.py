"""Pictures with labels, opened when they are wanted: the course's folder, the emoji world's, or images in memory."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..arguments import as_tensor
from ..declared import validated
from ..emoji.scenes import KINDS, Kind, Scene
from ..emoji.splits import Split, pictures
from ..emoji.world import World, load_world
from ..errors import check
from ..evaluation.accuracy import class_labels
from ..evaluation.encoder import checked_images
from ..evaluation.handed_in import first_of
from ..images.folders import PICTURE_SUFFIXES, names_in
from ..images.pictures import open_picture
from ..reading import reading

NAMED = re.compile(r"(\d+)[_-].*")
LABELS = "id2label.json"
ALONE: Mapping[Kind, float] = {kind: 1 / 3 for kind in KINDS if kind != "pair"}
WORLD_SETS: Mapping[str, Split] = {"emoji": "unseen", "emoji-woodcuts": "held_out_style"}
GIVE_LABELS = 'the course\'s is {"0": "bicycle", …}'


@dataclass(frozen=True)
class Pictures:
    """Pictures and what they show.

    - files: a name for each; labels: (N,) int64, places in `classes`; classes: names as they go into a template.
    - read: the picture of a row, RGB of any size; raises `UserError` for one that cannot be read.
    - source: what they are called in reports.

    >>> pictures = Pictures.of(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), [0, 1], ["fox", "owl"])
    >>> len(pictures), pictures.read(0).size
    (2, (64, 64))
    """

    files: Sequence[str]
    labels: Tensor
    classes: Sequence[str]
    read: Callable[[int], Image.Image] = field(repr=False)
    source: str = "pictures"

    def __post_init__(self) -> None:
        check(len(self.files), f"there are no pictures in '{self.source}'")
        object.__setattr__(self, "labels", class_labels(self.labels, len(self.files), len(self.classes)))
        object.__setattr__(self, "classes", unlike(list(self.classes), f"'{self.source}'"))

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def of(
        cls,
        images: Tensor,
        labels: Sequence[int] | Tensor,
        classes: Sequence[str],
        files: Sequence[str] | None = None,
        source: str = "pictures in memory",
    ) -> "Pictures":
        """Images in memory, uint8 (N, C, H, W), as files named `{label}_{n}.png`."""
        images, labels = checked_images(images), as_tensor(labels, "labels are whole numbers, one for each picture")
        images = images.cpu().expand(-1, 3, -1, -1)
        names = files or [f"{label}_{row}.png" for row, label in enumerate(labels.tolist())]

        def read(row: int) -> Image.Image:
            return Image.fromarray(images[row].permute(1, 2, 0).contiguous().numpy())

        return cls(list(names), labels, list(classes), read, source)

    def subset(self, rows: Sequence[int]) -> "Pictures":
        """Some of the rows, in this order."""
        rows = list(rows)
        files = [self.files[row] for row in rows]
        return Pictures(files, self.labels[rows], self.classes, lambda row: self.read(rows[row]), self.source)


def load_pictures(folder: str | Path, labels: str | Path | None = None, *, keep_underscores: bool = False) -> Pictures:
    """The pictures of a folder in the course's layout, `{label}_{n}.png`, opened one by one when they are wanted.

    - folder: with the pictures, or the course's `clip_zeroshot`, which has them in `val/`, or what holds it; or
      "emoji": 500 unseen scenes of the emoji world, one thing each, whose classes are its things; or "emoji-woodcuts":
      500 in the style that the shipped CLIP was not trained on.
    - labels: the JSON file of the classes' names, by default `id2label.json` in the folder or beside it.
    - keep_underscores: names are read as words, "willow_tree" as "willow tree", unless this is true.

    Raises `UserError` for a folder or file that is missing, a picture whose name does not begin with its label, and a
    label without a name.

    >>> pictures = load_pictures("hw2_data/clip_zeroshot")   # doctest: +SKIP
    >>> len(pictures), pictures.classes[0]                   # doctest: +SKIP
    (2500, 'bicycle')
    """
    if str(folder) in WORLD_SETS and not os.path.exists(folder):
        check(labels is None, "the emoji world knows its classes; leave the labels out")
        said = "keep_underscores (--keep-underscores) does nothing for the emoji world, whose names have none"
        check(not keep_underscores, f"{said}; leave it out")
        return world_pictures(load_world(), WORLD_SETS[str(folder)], 500, seed=0)[0]
    folder = Path(folder)
    folder = folder / "clip_zeroshot" if os.path.isdir(folder / "clip_zeroshot") else folder
    inside = folder / "val" if os.path.isdir(folder / "val") else folder
    advice = "give the course's clip_zeroshot/val, or a folder of pictures named {label}_{n}.png"
    files = [name for name in names_in(inside, advice) if name.lower().endswith(PICTURE_SUFFIXES)]
    places = [place / LABELS for place in (folder, inside, folder.parent)]
    labels = Path(labels) if labels is not None else next((p for p in places if os.path.isfile(p)), None)
    check(labels, f"no {LABELS} in '{folder}' or beside it; give the file of the classes' names: {GIVE_LABELS}")
    names = read_labels(labels)
    check(files, f"no pictures in '{inside}'; {advice}")
    found = {name: NAMED.fullmatch(name) for name in files}
    strange = [name for name in files if not found[name]]
    check(not strange, f"'{inside}' holds {first_of(strange)}, whose name does not begin with its label; {advice}")
    files = sorted(files, key=lambda name: (int(found[name][1]), len(name), name))
    numbers = [int(found[name][1]) for name in files]
    unknown = [name for name, number in zip(files, numbers, strict=True) if number not in names]
    missing = f"'{labels}' has no name for the label of {first_of(unknown)}; add it: {GIVE_LABELS}"
    check(not unknown, missing)
    place = {number: row for row, number in enumerate(names)}
    classes = list(names.values()) if keep_underscores else [_as_words(name) for name in names.values()]
    rows = torch.tensor([place[number] for number in numbers])

    def read(row: int) -> Image.Image:
        return open_picture(inside / files[row], "replace it, or take it out")

    return Pictures(files, rows, classes, read, str(folder))


def world_pictures(
    world: World, split: Split, count: int, seed: int, *, kinds: Mapping[Kind, float] | None = None, **options: Any
) -> tuple[Pictures, list[Scene]]:
    """Scenes of one thing each, with the names of the split's things as classes; options are those of `emoji.splits`.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> found, shown = world_pictures(load_world(), "held_out_things", 4, seed=0)
    >>> len(found.classes), shown[0].things[0] in found.classes
    (8, True)
    """
    images, shown = pictures(world, split, count, seed, kinds=kinds or ALONE, **options)
    held_out = split == "held_out_things"
    classes = [name for name in world.names if (name in world.held_out_things) == held_out]
    if split == "held_out_pairs":
        classes = sorted({thing for thing, _ in world.held_out_pairs})
    labels = [classes.index(scene.things[0]) for scene in shown]
    files = [f"{label}_{row}.png" for row, label in enumerate(labels)]
    return Pictures.of(images, labels, classes, files, f"the emoji world, {split}"), shown


def read_labels(path: str | Path) -> dict[int, str]:
    """The classes' names by their numbers, ascending, from JSON: {"0": "bicycle", …}, with text or numbers as keys, or
    a list.

    Raises `UserError` for a file that is missing or holds something else, and for the reverse, names to numbers.

    >>> read_labels("hw2_data/clip_zeroshot/id2label.json")[0]   # doctest: +SKIP
    'bicycle'
    """
    with reading(path, "is not JSON in UTF-8", GIVE_LABELS):
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=_named_once)
    content = dict(enumerate(content)) if isinstance(content, list) else content
    check(content and isinstance(content, Mapping), f"'{path}' names no class; {GIVE_LABELS}")
    reverse = all(str(v).isdigit() and not str(k).isdigit() for k, v in content.items())
    check(not reverse, f"'{path}' gives a number to each name; turn it round: {GIVE_LABELS}")
    names = validated(dict[int, str], content, f"'{path}'")
    check(len(names) == len(content), f"'{path}' writes one label in two ways, such as 1 and 01; {GIVE_LABELS}")
    empty = next((number for number, name in names.items() if not name.strip()), None)
    check(empty is None, f"'{path}': the name of label {empty} is empty; {GIVE_LABELS}")
    return dict(sorted(names.items()))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose last value of a key would otherwise win without a word."""
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    check(twice is None, f"the label {twice!r} is there twice in the classes' names; take one out")
    return dict(pairs)


def _as_words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def unlike(classes: list[str], source: Any) -> list[str]:
    """The classes; `UserError` where two have the same name, which no text can tell apart."""
    twice = next((name for name in classes if classes.count(name) > 1), None)
    check(twice is None, f"{source}: two classes are called '{twice}'; say in words how they differ")
    check(len(classes) > 1, f"{source}: there is one class alone, '{''.join(classes)[:60]}'; give at least two names")
    return classes
