"""Make the emoji world's sprites and JSON from npm packages of emoji.

    npm install --prefix packages @iconify-json/{noto,twemoji,openmoji,fluent-emoji-flat,fluent-emoji} emojibase-data
    pip install resvg_py
    python tools/make_emoji.py packages/node_modules

writes dlcv_diffusion/assets/emoji_*.webp, a sheet for each artist, and emoji.json. What there is in the world stands in
`tools/emoji_things.txt`, a list made by hand; `--keywords` prints what emojibase calls each of the things, to choose
synonyms from. `--json` writes the JSON alone, where no picture has changed.
"""

import argparse
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from dlcv_diffusion.emoji.sprites import fit_sprite, write_sheet
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import ARTISTS, WORLD
from dlcv_diffusion.files import atomic_write

LIST = Path(__file__).with_name("emoji_things.txt")
PACKAGES = ("noto", "twemoji", "openmoji", "fluent-emoji-flat", "fluent-emoji")
HELD_OUT_STYLE = "woodcut"
LARGE = 256
"""Pixels a side of an SVG before its sprite is cut out."""


def read_list(path: Path) -> tuple[list[dict], list[str], dict[str, list[str]]]:
    """The things with their slugs, what takes no article, and the held-out things with their relatives."""
    things, without_article, held_out, group = [], [], {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith("["):
            group = line.strip("[]")
        elif group == "held out" and line and not line.startswith("#"):
            name, relatives = line.split(":")
            held_out[name] = [relative.strip() for relative in relatives.split(",")]
        elif line and not line.startswith("#"):
            slug, name, synonyms = re.fullmatch(r"(?:\* )?([\w-]+)(?: = ([^:]+))?(?:: (.+))?", line).groups()
            words = [name or slug.replace("-", " "), *(synonyms.split(", ") if synonyms else ())]
            without_article += [word[1:] for word in words if word.startswith("~")]
            name, *synonyms = (word.lstrip("~") for word in words)
            thing = {"name": name, "synonyms": synonyms, "group": group, "core": line.startswith("*")}
            things.append({"slug": slug, **thing})
    words = [word for thing in things for word in (thing["name"], *thing["synonyms"])]
    twice = {word for word in words if words.count(word) > 1}
    assert not twice, f"these stand twice: {sorted(twice)}"
    return things, without_article, held_out


def held_out_pairs(core: list[str], styles: list[str], seed: int = 0) -> list[tuple[str, str]]:
    """One style for each thing, and as many things for each style: a tenth of the pairs where there are ten styles."""
    order = np.random.default_rng(seed).permutation(len(core))
    return sorted((core[place], styles[turn % len(styles)]) for turn, place in enumerate(order))


def content(things: list[dict], without_article: list[str], held_out: dict[str, list[str]]) -> dict:
    """What `emoji.json` holds."""
    core = [thing["name"] for thing in things if thing["core"] and thing["name"] not in held_out]
    return {
        "things": [{key: value for key, value in thing.items() if key != "slug"} for thing in things],
        "without_article": without_article,
        "held_out_things": held_out,
        "held_out_style": HELD_OUT_STYLE,
        "held_out_pairs": held_out_pairs(core, [name for name in STYLES if name != HELD_OUT_STYLE]),
    }


def picture(icons: dict, slug: str) -> Image.Image:
    """An icon of an Iconify package, LARGE pixels a side."""
    import resvg_py

    while slug not in icons["icons"]:
        slug = icons["aliases"][slug]["parent"]
    icon = icons["icons"][slug]
    left, top, width, height = (icon.get(key, icons.get(key, 0)) for key in ("left", "top", "width", "height"))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {names} viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=LARGE, height=LARGE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def keywords(packages: Path) -> dict[str, str]:
    """{slug: emojibase's name and keywords}."""
    slugs = json.loads((packages / "@iconify-json" / "noto" / "chars.json").read_text(encoding="utf-8"))
    entries = json.loads((packages / "emojibase-data" / "en" / "data.json").read_text(encoding="utf-8"))
    said = {entry["hexcode"].lower(): ", ".join([entry["label"], *entry.get("tags", ())]) for entry in entries}
    return {slug: said.get(code, said.get(f"{code}-fe0f", "")) for code, slug in slugs.items()}


def write_sheets(packages: Path, slugs: list[str], out: Path) -> None:
    """A sheet of sprites for each artist."""
    for artist, package in zip(ARTISTS, PACKAGES, strict=True):
        icons = json.loads((packages / "@iconify-json" / package / "icons.json").read_text(encoding="utf-8"))
        sheet = out / f"emoji_{artist}.webp"
        write_sheet(sheet, np.stack([fit_sprite(picture(icons, slug)) for slug in slugs]))
        print(f"{sheet}: {len(slugs)} sprites, {sheet.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="the folder that holds @iconify-json/")
    parser.add_argument("--keywords", action="store_true", help="print names and keywords, and write nothing")
    parser.add_argument("--json", action="store_true", help="write emoji.json alone")
    parser.add_argument("--things", default=LIST, type=Path)
    parser.add_argument("--out", default=WORLD.parent, type=Path)
    args = parser.parse_args()
    things, without_article, held_out = read_list(args.things)
    if args.keywords:
        said = keywords(args.packages)
        print("\n".join(f"{thing['name']}, {', '.join(thing['synonyms'])} | {said[thing['slug']]}" for thing in things))
        return
    if not args.json:
        write_sheets(args.packages, [thing["slug"] for thing in things], args.out)
    world = content(things, without_article, held_out)
    with atomic_write(args.out / WORLD.name) as temporary:
        lines = (f'"{key}": {_lines(value)}' for key, value in world.items())
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{args.out / WORLD.name}: {len(things)} things, {sum(thing['core'] for thing in things)} of them core")


def _lines(value: object) -> str:
    """JSON with one entry a line."""
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return "[\n " + ",\n ".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
