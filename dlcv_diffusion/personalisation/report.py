"""The report's figures and table for Problem 3's second half: two concepts in one picture, by five ways."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..emoji.concepts import true_pictures
from ..emoji.judge import load_judge
from ..emoji.world import World, load_world
from ..errors import check
from ..figures import ReportFigure, save_figure
from ..files import staging_folder
from ..models.text_to_image import TextToImage, cross_attention_maps, draw
from .concepts import load_concepts
from .figures import attention_figure, best_and_worst
from .measure import shows
from .shipped import measured_concepts, shipped_concept
from .ways import WAYS, StudyFiles, Wanted, beside, draw_by, in_style

STUDIES = ("owl guitar", "owl woodcut")
"""What ships of two concepts together: two held-out things, and one in the held-out style."""
SHOWN = 4
"""Of the best, and of the worst."""
SCALE, STEPS = 3.0, 25


def shipped_study(name: str, world: World | None = None) -> tuple[Wanted, StudyFiles]:
    """What ships of two concepts together: what is wanted, and what was learnt. "owl guitar" or "owl woodcut".

    Raises `UserError` for another name.

    >>> shipped_study("owl guitar")[0].prompt   # doctest: +SKIP
    'a <new1> next to a <new2>'
    """
    check(name in STUDIES, f"no study '{name}' ships; there are {', '.join(STUDIES)}")
    world, (first, second) = world or load_world(), name.split()
    wanted = in_style(world, first, second) if second == world.held_out_style else beside(world, first, second)
    joint, merged = shipped_concept(name), shipped_concept(f"{name} merged")
    return wanted, StudyFiles((shipped_concept(first), shipped_concept(second)), joint, merged)


def ways_figure(
    name: str, load: Callable[[], TextToImage], *, shown: int = SHOWN, progress: bool = False
) -> ReportFigure:
    """The best and the worst of the pictures that were measured, by each of the five ways: their seeds, drawn again.

    In a green frame are those in which the judge finds both concepts.

    - name: of a shipped study; load: gives a fresh model. shown: of the best, and of the worst.

    >>> fig = ways_figure("owl guitar", load_text_to_image)   # doctest: +SKIP
    """
    world, drawn = load_world(), {}
    wanted, files = shipped_study(name, world)
    rows = {row["way"]: row for row in measured_concepts() if row["wanted"] == wanted.name}
    truth, _ = true_pictures(world, list(wanted.things), 2 * shown, style=wanted.style)
    judge, found = load_judge(), {}
    for way in WAYS:
        row = rows[way]
        order = sorted(range(row["count"]), key=lambda place, row=row: -row["scores"][place])
        places = order[:shown] + order[-shown:]
        how = {"scale": row["scale"], "steps": row["steps"], "progress": progress}
        images = draw_by(way, load, files, wanted, [row["seed"] + place for place in places], **how)
        drawn[way] = images, [row["scores"][place] for place in places]
        found[way] = shows(judge, images, wanted)["both"].tolist()
    said = f"“{wanted.prompt}”: of {row['count']} pictures the best and the worst {shown}"
    said += ", by CLIP's cosine with the true ones (the first row: any true ones). Green: the judge finds both"
    facts = {"model": load().name, "sampler": "DPM-Solver++", "steps": row["steps"], "guidance scale": row["scale"]}
    facts["seeds"] = range(row["seed"], row["seed"] + row["count"])
    return best_and_worst(drawn, truth=truth, found=found, count=shown, caption=said, facts=facts)


def leak_figure(
    sd: TextToImage, prompt: str, words: Sequence[str], seeds: Sequence[int] = (0, 1, 2), *, title: str = ""
) -> ReportFigure:
    """Pictures of a prompt, and where some of its words count while they are drawn, over all steps.

    - sd: a model that knows the words; words: of the prompt, as its tokenizer splits it.

    Raises `UserError` for a word that is not one of the prompt's tokens.

    >>> fig = leak_figure(sd, "a <new1> next to a <new2>", ["<new1>", "<new2>"])   # doctest: +SKIP
    """
    pieces = sd.tokenizer.convert_ids_to_tokens(sd.tokens([prompt])[0].tolist())
    read = [piece.removesuffix("</w>") for piece in pieces]
    unread = [word for word in words if word not in read]
    check(not unread, f"'{', '.join(unread)}' is no token of the prompt, which is read as {' · '.join(read[1:])[:80]}")
    with cross_attention_maps(sd.unet, sd.shape[1] / sd.shape[2]) as maps:
        images = draw(sd, [prompt] * len(seeds), seeds, scale=SCALE, steps=STEPS)
    facts = {"model": sd.name, "sampler": "DPM-Solver++", "steps": STEPS, "guidance scale": SCALE}
    facts["seeds"] = list(seeds)
    places, caption = {word: read.index(word) for word in words}, f"“{prompt}”: where each word counts"
    return attention_figure(images, maps.mean()[: len(seeds)], places, title=title, caption=caption, facts=facts)


def write_personalisation_figures(
    out: str | Path, load: Callable[[], TextToImage], *, seed: int = 0, progress: bool = False
) -> list[Path]:
    """The report's figures and table for Problem 3's second half; returns their paths.

    `personalisation_beside.png`, `personalisation_style.png`: see `ways_figure`; `personalisation_leak_apart.png`,
    `…_joint.png`: see `leak_figure`; `personalisation_measured.csv`: what was measured of 100 pictures each.

    - load: gives a fresh model of the emoji world, on which what ships was learnt. seed: of the first picture whose
      attention is shown; the other pictures are those that were measured.

    The files appear when all are made. Raises `UserError` where `out` cannot be written.

    >>> write_personalisation_figures("figures", load_text_to_image)   # doctest: +SKIP
    """
    names = ["beside.png", "style.png", "leak_apart.png", "leak_joint.png", "measured.csv"]
    names = [f"personalisation_{name}" for name in names]
    measured, (wanted, learnt) = measured_concepts(), [shipped_study(name) for name in STUDIES][0]
    written: list[Path] = []
    with staging_folder(out) as staging:
        for name, study in zip(names, STUDIES, strict=False):
            written.append(save_figure(ways_figure(study, load, progress=progress), staging / name))
        titles = {"learnt apart": learnt.apart, "learnt together, with keys and values": (learnt.joint,)}
        for name, (title, files) in zip(names[2:], titles.items(), strict=False):
            sd = load()
            tokens = load_concepts(sd, *files)
            figure = leak_figure(sd, wanted.prompt, tokens, range(seed, seed + 3), title=title)
            written.append(save_figure(figure, staging / name))
        _write_table(measured, staging / names[4])
    return [Path(out) / name for name in [*(path.name for path in written), names[4]]]


def _write_table(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    rows = []
    for measurement in measured:
        row = {name: value for name, value in measurement.items() if name != "scores"}
        for name in [name for name in row if name.endswith("_interval")]:
            row[name.replace("interval", "low")], row[name.replace("interval", "high")] = row.pop(name)
        rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
