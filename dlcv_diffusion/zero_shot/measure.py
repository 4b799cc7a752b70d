"""How well a CLIP knows the emoji world: what it was trained on, and the kinds of pictures that it never saw.

Always one thing in a picture, and the names of things as classes. Beside each accuracy stands chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..emoji.captions import SINGLE, TEMPLATES, phrase
from ..emoji.scenes import FULL, Kind, Variety
from ..emoji.splits import Split
from ..emoji.world import World
from ..errors import check
from ..evaluation.calibration import expected_calibration_error
from ..models.clip import Clip
from ..training.objective import generator_of
from .classify import class_embeddings, scores
from .pictures import world_pictures
from .search import picture_features


@dataclass(frozen=True)
class Question:
    """A split, and how many classes each picture is to be told among: `ways`, or all of the split's (None).

    - kinds, variety: of the scenes, see `emoji.splits`. Raises `UserError` for fewer than two ways.
    """

    name: str
    split: Split
    ways: int | None = None
    kinds: Mapping[Kind, float] | None = None
    variety: Variety = FULL

    def __post_init__(self) -> None:
        check(
            self.ways is None or self.ways >= 2, f"a picture cannot be told among {self.ways} classes; give 2 or more"
        )


def questions(artists: Sequence[str] = (), trained: Sequence[str] = FULL.artists) -> list[Question]:
    """The questions of the measurement; with `artists`, the same scenes by those, whom nobody trained on.

    >>> [question.name for question in questions(["openmoji"])][-1]
    'artist openmoji'
    """
    seen, plain = Variety(artists=tuple(trained)), {"white": 0.5, "colour": 0.5}
    found = [
        Question("unseen scenes, all things", "unseen", variety=seen),
        Question("unseen scenes", "unseen", 50, variety=seen),
        Question("unseen scenes, plain", "unseen", 50, plain, seen),
        Question("unseen scenes, in a style", "unseen", 50, {"style": 1.0}, seen),
        Question("held-out pairs", "held_out_pairs", 50, variety=seen),
        Question("held-out style", "held_out_style", 50, variety=seen),
        Question("held-out things", "held_out_things", variety=seen),
    ]
    for artist in artists:
        found.append(Question(f"artist {artist}", "unseen", 50, plain, Variety(artists=(artist,))))
    return found


def ask(clip: Clip, world: World, question: Question, count: int = 2_000, seed: int = 1) -> dict[str, Any]:
    """What one question's answer is, with one template and with the ensemble: a row of plain JSON.

    With `ways`, each picture has classes of its own: the true one, and others drawn at random.

    >>> ask(clip, load_world(), questions()[0])["single"]["accuracy"]   # doctest: +SKIP
    0.97
    """
    asked, _ = world_pictures(world, question.split, count, seed, kinds=question.kinds, variety=question.variety)
    ways = len(asked.classes) if question.ways is None else min(question.ways, len(asked.classes))
    row = {"question": question.name, "ways": ways, "chance": 1 / ways, "count": count}
    texts, (_, features) = [phrase(world, name) for name in asked.classes], picture_features(clip, asked)
    for name, templates in (("single", [SINGLE]), ("ensemble", TEMPLATES)):
        p = scores(clip, features, class_embeddings(clip, texts, templates).cpu())
        row[name] = among(p, asked.labels, ways, seed)
    return row


def among(probabilities: Tensor, labels: Tensor, ways: int, seed: int) -> dict[str, float]:
    """Accuracy and calibration error where each picture is told among so many classes, its own and others at random.

    - probabilities: (N, K), K ≥ ways; labels: (N,) int64.

    >>> among(found.probabilities, found.labels, 50, seed=0)   # doctest: +SKIP
    {'accuracy': 0.98, 'calibration_error': 0.01}
    """
    count, classes = probabilities.shape
    order = torch.rand(count, classes, generator=generator_of(seed, 3))
    order.scatter_(1, labels[:, None], 2.0)
    chosen = order.topk(ways, dim=1).indices.flip(1)  # its own comes last, so that a tie is no success
    p = probabilities.double().gather(1, chosen)
    p = p / p.sum(1, keepdim=True).clamp(min=1e-300)  # all are 0 where a class that was not chosen has everything
    own = torch.full((count,), ways - 1)
    right = (p.argmax(1) == own).double().mean().item()
    return {"accuracy": right, "calibration_error": expected_calibration_error(p, own)}


def ranks_of_relatives(clip: Clip, world: World, count: int = 400, seed: int = 1) -> dict[str, dict[str, Any]]:
    """For pictures of each held-out thing, told among all things' names: the median rank of its own name, and of the
    best of its relatives, which were trained on.

    Rank 1 is the most probable. By chance the median of one name would be half of all.

    >>> ranks_of_relatives(clip, load_world())["owl"]   # doctest: +SKIP
    {'own': 40, 'relative': 2, 'read_as': 'parrot'}
    """
    asked, shown = world_pictures(world, "held_out_things", count, seed)
    embeddings = class_embeddings(clip, [phrase(world, name) for name in world.names], [SINGLE])
    _, features = picture_features(clip, asked, batch_size=256)
    p = scores(clip, features.to(embeddings.device), embeddings).cpu()
    ranks = (p.argsort(1, descending=True).argsort(1) + 1).double()
    found = {}
    for thing, relatives in world.held_out_things.items():
        rows = [row for row, scene in enumerate(shown) if scene.things[0] == thing]
        if rows:
            here = ranks[rows]
            own = here[:, world.names.index(thing)].median()
            relative = here[:, [world.names.index(name) for name in relatives]].min(1).values.median()
            read = world.names[int(p[rows].argmax(1).mode().values)]
            found[thing] = {"own": int(own), "relative": int(relative), "read_as": read}
    return found


def markdown(rows: Sequence[Mapping[str, Any]], form: Callable[[float], str] = "{:.1%}".format) -> str:
    """The rows as a table: one template and the ensemble beside each other, and chance."""
    head = "| pictures | classes | chance | one template | ensemble | calibration error, one / ensemble |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        one, many = row["single"], row["ensemble"]
        found = [form(row["chance"]), form(one["accuracy"]), form(many["accuracy"])]
        errors = f"{one['calibration_error']:.3f} / {many['calibration_error']:.3f}"
        lines.append(f"| {row['question']} | {row['ways']} | {' | '.join(found)} | {errors} |")
    return "\n".join(lines)
