"""Words: how they are separated, what suits a template, and which of them a model gives no name for."""

import re

import pytest
import torch
from small_clips import small_clip

from dlcv_diffusion import UserError
from dlcv_diffusion.models.clip import Clip
from dlcv_diffusion.models.clip.open_clip_towers import own_towers
from dlcv_diffusion.zero_shot import Pictures
from dlcv_diffusion.zero_shot.classify import unfamiliar
from dlcv_diffusion.zero_shot.reader import Reader
from dlcv_diffusion.zero_shot.words import first_words, unknown_names, words_in, words_of


@pytest.fixture
def clip():
    ours = small_clip(classes=["fox", "Owl", "hot dog"])
    return Clip(own_towers(ours), "small", ours.facts).eval()


def pictures_of(*classes):
    images = torch.zeros(len(classes), 3, 8, 8, dtype=torch.uint8)
    return Pictures.of(images, list(range(len(classes))), list(classes))


def test_words_are_separated_as_people_do():
    assert words_in(" a fox,an  owl ，a cat、\n\na dog; ") == ["a fox", "an owl", "a cat", "a dog"]
    assert words_of([" a fox\n", "an  owl"]) == ["a fox", "an owl"]


@pytest.mark.parametrize(
    ("word", "new"),
    [
        ("a fox", False),
        ("The OWL", False),
        ("a fox on a blue background", False),
        ("an owl, at night", False),
        ("hot dog", False),
        ("foxglove", True),
        ("a dog", True),
        ("a puppy", True),
    ],
)
def test_a_word_is_new_unless_it_holds_a_known_name(word, new, clip):
    assert unknown_names(clip, [word]) == [word] * new
    assert bool(unfamiliar(clip, [word])) == new, "a class is judged as a word is"


def test_a_model_that_names_nothing_says_nothing(clip):
    for facts in ({}, {"classes": []}):
        clip.facts = facts
        assert unknown_names(clip, ["a skyscraper"]) == []


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("a photo of {}.", "an owl"),
        ("{}", "an owl"),
        ("the picture shows {}", "an owl"),
        ("a drawing, {}", "an owl"),
        ("a {}", "owl"),
        ("a small {}", "owl"),
        ("A photo of the very large {} at night", "owl"),
        ("a photo of my {}", "owl"),
        ("a low-resolution {}", "owl"),
    ],
)
def test_a_word_has_one_article(template, first):
    assert first_words(pictures_of("owl", "fox"), template)[0] == first


def test_classes_of_several_words_are_one_word_each_and_found_again(clip):
    pictures = pictures_of("crane, bird", "crane; machine", "a fox", "fox")
    words = first_words(pictures, "a photo of {}.")
    assert words == ["a crane bird", "a crane machine", "a fox"]
    assert [Reader(clip, pictures).true_word(row, words) for row in range(4)] == [*words, "a fox"]
    alike = pictures_of("tench, Tinca", "tench Tinca", "owl")
    assert first_words(alike, "a {}") == ["tench Tinca", "owl"]
    with pytest.raises(UserError, match=re.escape("classes are one word, 'tench Tinca', but for commas and articles")):
        first_words(pictures_of("tench, Tinca", "tench Tinca"), "a {}")
