"""The emoji world as it ships: whole sheets, one name for each thing, licences; and other artists from a folder."""

import json
import re
import shutil

import numpy as np
import pytest
from make_emoji import LIST, content, read_list
from PIL import Image

from dlcv_diffusion.emoji.sprites import LONGEST, SHORTEST, SIDE, fit_sprite
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import ARTISTS, WORLD, load_world
from dlcv_diffusion.errors import UserError


@pytest.fixture(scope="module")
def world():
    return load_world()


def test_the_sheets_are_whole(world):
    assert world.artists == ARTISTS and len(world.things) > 300 and len(world.core) == 100
    for sheet in world.sheets.values():
        assert sheet.shape == (len(world.things), SIDE, SIDE, 4) and sheet.dtype == np.uint8
        alpha = sheet[..., 3] > 127
        assert alpha.mean((1, 2)).min() > 0.04 and alpha.mean((1, 2)).max() < 0.75
        assert len({sprite.tobytes() for sprite in sheet}) == len(sheet), "two things look the same"


def test_sprites_are_trimmed_centred_and_alike_in_size(world):
    for sheet in world.sheets.values():
        for sprite in sheet:
            rows, columns = (np.flatnonzero((sprite[..., 3] > 12).any(axis)) for axis in (1, 0))
            assert SHORTEST - 2 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= LONGEST
            assert all(abs(side.min() + side.max() - SIDE + 1) <= 3 for side in (rows, columns))


def test_every_name_and_synonym_means_one_thing(world):
    words = [word.casefold() for thing in world.things for word in (thing.name, *thing.synonyms)]
    assert len(words) == len(set(words))
    assert all(re.fullmatch(r"[A-Za-z][\w' -]*\w", word) for word in words)
    assert world.without_article <= {word for thing in world.things for word in (thing.name, *thing.synonyms)}


def test_what_is_held_out_is_of_the_core_and_has_relatives_that_are_not(world):
    held_out, trained = set(world.held_out_things), set(world.core) - set(world.held_out_things)
    assert len(held_out) == 8 and held_out < set(world.core)
    assert all(relatives and set(relatives) <= trained for relatives in world.held_out_things.values())
    styles = set(STYLES) - {world.held_out_style}
    assert world.held_out_style in STYLES and len(styles) >= 7
    pairs = world.held_out_pairs
    assert {thing for thing, _ in pairs} <= trained and {style for _, style in pairs} == styles
    assert abs(len(pairs) / (len(trained) * len(styles)) - 0.1) < 0.005
    per_style = [sum(style == other for _, other in pairs) for style in styles]
    assert max(per_style) - min(per_style) <= 1


def test_the_json_says_what_the_list_says():
    made = json.loads(json.dumps(content(*read_list(LIST))))
    assert made == json.loads(WORLD.read_text(encoding="utf-8"))


def test_every_sheet_has_its_licence():
    licences = WORLD.with_name("LICENCES.md").read_text(encoding="utf-8")
    known = {"noto": "Apache-2.0", "twemoji": "CC BY 4.0", "openmoji": "CC BY-SA 4.0"}
    for artist in ARTISTS:
        row = next(line for line in licences.splitlines() if f"`emoji_{artist}.webp`" in line)
        assert row.rstrip("| ").endswith(known.get(artist, "MIT"))


def test_a_name_that_is_not_there_is_told_with_the_nearest(world):
    assert world.sprite("fox", "noto").shape == (4, SIDE, SIDE)
    with pytest.raises(UserError, match="no thing 'elefant'; did you mean elephant"):
        world.sprite("elefant", "noto")
    with pytest.raises(UserError, match="no artist 'picasso'; there are noto, "):
        world.sprite("fox", "picasso")


# --- artists from elsewhere ---------------------------------------------------------------------------------


@pytest.fixture
def folder(world, tmp_path):
    """Two drawings of another size, as another artist may have them."""
    for name, file in (("fox", "fox.png"), ("ice cream cone", "Ice_cream_cone.png")):
        Image.fromarray(world.pixels(name, "noto"), "RGBA").resize((100, 100)).save(tmp_path / file)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_another_artist_comes_from_a_folder(world, folder):
    wider = load_world(extra={"sixth": folder})
    assert wider.artists == (*ARTISTS, "sixth")
    assert [name for name in wider.names if wider.has(name, "sixth")] == ["fox", "ice cream cone"]
    theirs, ours = (each.astype(int) for each in (wider.pixels("fox", "sixth"), world.pixels("fox", "noto")))
    assert np.abs(theirs - ours)[..., 3].mean() < 12
    with pytest.raises(UserError, match="the artist 'sixth' drew no owl"):
        wider.sprite("owl", "sixth")


def test_what_is_wrong_with_such_a_folder_is_said(folder, tmp_path):
    with pytest.raises(UserError, match="none' is not there; give a folder of pictures such as fox.png"):
        load_world(extra={"sixth": folder / "none"})
    with pytest.raises(UserError, match="the artist 'noto' is there already"):
        load_world(extra={"noto": folder})
    Image.new("RGB", (64, 64), "white").save(folder / "owl.png")
    with pytest.raises(UserError, match="owl.png' has no transparent ground"):
        load_world(extra={"sixth": folder})
    (folder / "owl.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="owl.png' is not a picture that can be read"):
        load_world(extra={"sixth": folder})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no picture named after one of the 341 things"):
        load_world(extra={"sixth": empty})
    with pytest.raises(UserError, match="nothing in this picture is opaque"):
        fit_sprite(Image.new("RGBA", (64, 64)))


def test_a_damaged_world_is_one_sentence(tmp_path):
    for artist in ARTISTS:
        shutil.copy(WORLD.with_name(f"emoji_{artist}.webp"), tmp_path)
    content = json.loads(WORLD.read_text(encoding="utf-8"))
    path = tmp_path / "emoji.json"
    path.write_text(json.dumps({**content, "things": content["things"][:-30]}), encoding="utf-8")
    with pytest.raises(UserError, match="does not hold 311 sprites"):
        load_world(path=path)
    path.write_text(json.dumps({**content, "things": [{"name": "fox"}]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"emoji.json': things.0.synonyms: "):
        load_world(path=path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not the emoji world's JSON; install the package again"):
        load_world(path=path)
