"""Zero-shot classification (arXiv 2103.00020, section 3.1.2): the class whose text lies nearest to the picture."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Real
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError, check
from ..evaluation.accuracy import accuracy_of
from ..evaluation.encoder import finite
from ..models.clip import Clip
from ..recent import Recent
from .pictures import Pictures, unlike
from .result import ZeroShotResult
from .templates import filled_in, template_list
from .words import unknown_names

KEPT = 16
"""Sets of class embeddings that are kept for each model."""

_kept: WeakKeyDictionary[Clip, Recent] = WeakKeyDictionary()


def class_embeddings(clip: Clip, classes: Sequence[str], templates: str | Sequence[str] = "single") -> Tensor:
    """One embedding (K, D) of length 1 for each class: the mean of its templates' embeddings, each of length 1.

    (Section 3.1.4 of the paper: ensembling in the space of embeddings.) They are kept, computed once a model.

    - templates: "single", "ensemble" or a list, see `templates.template_list`.

    Raises `UserError` for no class, two of the same name, or templates without a place for the name.

    >>> W = class_embeddings(clip, ["fox", "owl"], ["a photo of a {}."])   # doctest: +SKIP
    >>> W.shape                                                            # doctest: +SKIP
    torch.Size([2, 512])
    """
    classes, templates = unlike(list(classes), "the classes"), template_list(templates, clip)
    key = tuple(classes), tuple(templates), state_of(clip)
    kept = _kept.setdefault(clip, Recent(KEPT))
    if key not in kept:
        texts = [filled_in(template, name) for name in classes for template in templates]
        features = clip.encode_texts(texts).unflatten(0, (len(classes), len(templates)))
        kept[key] = F.normalize(features.mean(1), dim=1)
    return kept[key]


def state_of(clip: Clip) -> tuple[int, torch.device]:
    """What changes when a model is trained on, or moved, after which its embeddings are others."""
    return sum(weight._version for weight in clip.parameters()), clip.device


def scores(clip: Clip, features: Tensor, embeddings: Tensor, temperature: float | None = None) -> Tensor:
    """p(class | picture) = softmax over classes of cos(picture, class) / τ, (N, K) float32.

    - features (N, D) and embeddings (K, D), of length 1; temperature τ: the model's own by default.

    Raises `UserError` for a temperature that is not above 0.

    >>> p = scores(clip, clip(images), class_embeddings(clip, ["fox", "owl"]))   # doctest: +SKIP
    """
    temperature = clip.temperature if temperature is None else above_zero(temperature)
    return (features @ embeddings.T / temperature).softmax(dim=1)


def above_zero(temperature: float) -> float:
    """The temperature; `UserError` where it is no finite number above 0.

    >>> above_zero(0.07)
    0.07
    """
    sound = isinstance(temperature, Real | Tensor) and 0 < temperature < math.inf
    check(sound, f"the temperature is {temperature!r}; it must be a finite number above 0")
    return temperature


def classify(
    clip: Clip,
    pictures: Pictures,
    classes: Sequence[str] | None = None,
    templates: str | Sequence[str] = "single",
    *,
    batch_size: int = 64,
    fast: bool = False,
    progress: bool = False,
) -> ZeroShotResult:
    """Classify pictures by the names of the classes alone; nothing is trained.

    Pictures are opened, and made what the model takes, batch by batch while the one before is computed: no more than
    two batches are in memory. One that cannot be read is named in the result, and the others go on.

    - classes: other names for the pictures' classes, in their order. templates: see `class_embeddings`.
    - fast: bfloat16 where the device is quick at it. progress: a bar.

    Raises `UserError` for classes or templates that make no sense, where no picture can be read, and for weights that
    give NaN.

    >>> found = classify(load_clip("ViT-B-32", "openai"), load_pictures("hw2_data/clip_zeroshot"))   # doctest: +SKIP
    >>> found.accuracy                                                                              # doctest: +SKIP
    0.5648
    """
    from tqdm.auto import tqdm

    check(batch_size >= 1, f"cannot take {batch_size} pictures at a time; choose a batch size of at least 1")
    classes, begun = list(classes or pictures.classes), time.perf_counter()
    fits = len(classes) == len(pictures.classes)
    check(fits, f"there are {len(pictures.classes)} classes of pictures, and {len(classes)} names; give one for each")
    embeddings = class_embeddings(clip, classes, templates)
    rows, parts, unreadable = [], [], {}
    with tqdm(total=len(pictures), unit="image", disable=None if progress else True) as bar:
        for numbers, prepared, failed in prepared_batches(clip, pictures, batch_size):
            unreadable |= failed
            if numbers:
                features = finite(clip.encode_prepared(prepared, fast=fast), "CLIP's features")
                parts.append(scores(clip, features, embeddings).cpu())
                rows += numbers
            bar.update(len(numbers) + len(failed))
    first = next(iter(unreadable.values()), "")
    check(rows, f"none of the {len(pictures)} pictures can be read: {first}")
    probabilities, labels = torch.cat(parts), pictures.labels[rows]
    read = probabilities.argmax(1)
    return ZeroShotResult(
        **vars(accuracy_of(read, labels, len(classes))),
        classes=tuple(classes),
        files=tuple(pictures.files[row] for row in rows),
        labels=labels,
        predictions=read,
        probabilities=probabilities,
        templates=tuple(template_list(templates, clip)),
        unreadable=unreadable,
        model=clip.name,
        source=pictures.source,
        notes=(*clip.notes, *unfamiliar(clip, pictures.classes)),
        seconds=time.perf_counter() - begun,
    )


def unfamiliar(clip: Clip, classes: Sequence[str]) -> list[str]:
    """A note about classes that are not among the names a model such as ours gives of what it was trained on.

    >>> unfamiliar(clip, ["fox", "skyscraper"])   # doctest: +SKIP
    ["1 of the 2 classes is not the name of a thing that 'clip-small' was trained on: 'skyscraper'; for …"]
    """
    new = unknown_names(clip, classes)
    if not new:
        return []
    said = "is not the name of a thing" if len(new) == 1 else "are not names of things"
    such = ":" if len(new) == 1 else ", such as"
    note = f"{len(new)} of the {len(classes)} classes {said} that '{clip.name}' was trained on{such} '{new[0]}'"
    return [f"{note}; for photographs take another CLIP, such as ViT-B-32 with the weights openai"]


Batch = tuple[list[int], Tensor, dict[str, str]]


def prepared_batches(clip: Clip, pictures: Pictures, batch_size: int) -> Iterator[Batch]:
    """Batch by batch the rows, what the network takes, (B, 3, H, W), and what could not be read, by file.

    The next batch is opened in threads while the one before is used.
    """
    workers = min(4, os.cpu_count() or 1)
    firsts = range(0, len(pictures), batch_size)
    with ThreadPoolExecutor(workers) as pool:

        def begin(first: int) -> list[Future]:
            rows = range(first, min(first + batch_size, len(pictures)))
            return [pool.submit(_opened, clip, pictures, row) for row in rows]

        coming = begin(0)
        for first in firsts:
            here, coming = coming, begin(first + batch_size) if first + batch_size < len(pictures) else []
            found = [future.result() for future in here]
            good = [(first + place, x) for place, (x, _) in enumerate(found) if x is not None]
            failed = {pictures.files[first + place]: said for place, (_, said) in enumerate(found) if said}
            yield [row for row, _ in good], torch.stack([x for _, x in good]) if good else torch.empty(0), failed


def _opened(clip: Clip, pictures: Pictures, row: int) -> tuple[Tensor | None, str]:
    try:
        return clip.prepare([pictures.read(row)])[0], ""
    except UserError as error:
        return None, str(error)
