"""`zero_shot_explorer` without a browser: what it computes, says and keeps, how soon, and its still picture."""

import asyncio
import base64
import io
import re
import statistics
import threading
import time

import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from small_clips import SEEING, clip_file, open_clip_name, small_clip, transformers_folder  # noqa: F401 – fixtures
from small_runs import one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion.errors import check
from dlcv_diffusion.images.pictures import open_picture
from dlcv_diffusion.models.clip import Clip
from dlcv_diffusion.models.clip.open_clip_towers import own_towers
from dlcv_diffusion.zero_shot import Pictures, class_embeddings, load_clip, scores, zero_shot_explorer
from dlcv_diffusion.zero_shot.bars import bars_html, picture_html
from dlcv_diffusion.zero_shot.figures import WRONG, percent, temperatures_figure

CLASSES = ["fox", "owl", "castle"]


@pytest.fixture
def pictures():
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8, generator=draw)
    images = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return Pictures.of(images, [0, 1, 2, 0], CLASSES)


@pytest.fixture
def clip():
    ours = small_clip(SEEING, templates=["a photo of a {}."], classes=["fox", "owl"])
    return Clip(own_towers(ours), "small", ours.facts).eval()


@pytest.fixture
def explorer(clip, pictures):
    explorer = zero_shot_explorer(clip, pictures)
    explorer.panel  # noqa: B018 - built when it is first asked for
    return explorer


def bars(explorer):
    """(word, probability, cosine), row by row, as the live table writes them."""
    return re.findall(r'<th scope="row".*?>(?:▸ )?(?:<b>)?([^<]*).*?<td.*?>(.*?)</td><td.*?>(.*?)</td>', explorer._bars)


def words_of_bars(explorer):
    return [word for word, *_ in bars(explorer)]


def line(explorer):
    return explorer.panel.line


def choices(explorer):
    return next(field["texts"] for field in explorer.panel.fields if field["name"] == "picture")


def uploaded(explorer, name, content):
    explorer._asked({"do": "upload", "name": name}, [memoryview(content)])


def a_png(colour="navy", size=(30, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "open_clip", "transformers"])
def test_probabilities_are_those_of_scores(kind, pictures, clip_file, open_clip_name, transformers_folder):  # noqa: F811
    source = {"ours": (clip_file,), "open_clip": open_clip_name, "transformers": (transformers_folder,)}[kind]
    clip = load_clip(*map(str, source), device="cpu")
    explorer = zero_shot_explorer(clip, pictures)
    for template, temperature in (("A photo of a {}.", None), ("{}", 0.2)):
        features = clip.encode_images([pictures.read(1)])
        wanted = scores(clip, features, class_embeddings(clip, CLASSES, [template]), temperature)[0]
        found = explorer.probabilities(1, CLASSES, template, temperature or clip.temperature)
        torch.testing.assert_close(found.float(), wanted, atol=1e-5, rtol=1e-4)


def test_it_starts_with_what_suits_the_model(clip, pictures, clip_file):  # noqa: F811
    explorer = zero_shot_explorer(clip, pictures)
    assert explorer.template == "a photo of {}." and explorer.words == ["a fox", "an owl", "a castle"]
    assert explorer.temperature == clip.temperature
    explorer = zero_shot_explorer(load_clip(clip_file, device="cpu"), pictures)
    assert explorer.template == "A photo of a {}." and explorer.words == CLASSES


def test_a_model_that_is_trained_on_is_asked_anew(clip, pictures):
    explorer = zero_shot_explorer(clip, pictures)
    before = explorer.probabilities(0, CLASSES, "{}", 1.0)
    with torch.no_grad():
        for weight in clip.parameters():
            weight.mul_(0.9)
    assert not torch.equal(explorer.probabilities(0, CLASSES, "{}", 1.0), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0}, "temperature is 0;"),
        ({"temperature": -0.1}, "temperature is -0.1;"),
        ({"template": "a photo"}, "no place for the name"),
        ({"template": "ensemble"}, "no place for the name"),
        ({"words": ["fox", "fox"]}, "'fox' is there twice"),
        ({"picture": 4}, "no picture 4; give a row from 0 to 3"),
        ({"picture": -1}, "no picture -1"),
    ],
)
def test_probabilities_of_nothing_are_refused(options, said, clip, pictures):
    asked = {"picture": 0, "words": CLASSES, "template": "{}", "temperature": 0.1, **options}
    with pytest.raises(UserError, match=re.escape(said)):
        zero_shot_explorer(clip, pictures).probabilities(**asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"words": "a fox"}, "type at least two words"),
        ({"words": ""}, "no words to choose from"),
        ({"words": "fox, owl,fox"}, "'fox' is there twice"),
        ({"words": [str(number) for number in range(201)]}, "201 words; type at most 200"),
        ({"words": ["fox", "fox " * 60]}, "tokens long, and this CLIP reads 16; say it shorter"),
        ({"template": "a photo"}, "no place for the name"),
        ({"words": ["salt, pepper", "fox"]}, "'salt, pepper' is one word of the list, but a comma"),
        ({"words": ["fox", "an owl\na cat"]}, "is one word of the list, but a comma, semicolon or new line"),
        ({"words": [1, 2]}, "1 is no text; give words"),
        ({"words": ["fox", None]}, "None is no text; give words"),
        ({"words": 7}, "7 is no text; give words"),
        ({"template": "ensemble"}, "the template 'ensemble' has no place for the name"),
        ({"template": "single"}, "the template 'single' has no place for the name"),
        ({"template": ["a {}", "the {}"]}, "no place for the name"),
        ({"template": ""}, "the template '' has no place for the name"),
        ({"temperature": 0}, "temperature is 0; it must be a finite number above 0"),
        ({"temperature": "0.1"}, "temperature is '0.1'; it must be a finite number above 0"),
        ({"still": [0.1, -1]}, "temperature is -1"),
        ({"still": []}, "give the still picture's temperatures, one or more"),
        ({"still": 0.1}, "give the still picture's temperatures, one or more"),
        ({"still": [0.1, float("inf")]}, "temperature is inf"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(options, said, clip, pictures):
    with pytest.raises(UserError, match=re.escape(said)):
        zero_shot_explorer(clip, pictures, **options)


# --- the live view ----------------------------------------------------------------------------------------------------


def test_each_control_moves_what_it_should(explorer):
    start, picture = bars(explorer), explorer._picture
    assert words_of_bars(explorer) == ["a fox", "an owl", "a castle"] and "a castle" in line(explorer)
    explorer.move(temperature=1.0)
    warmer = bars(explorer)
    assert warmer != start and [cos for *_, cos in warmer] == [cos for *_, cos in start]
    assert explorer._picture == picture and "τ\u00a0=\u00a01" in explorer.panel.facts
    explorer.panel.values = dict(explorer.panel.start)
    assert bars(explorer) == start
    explorer.move(picture=2)
    assert (
        explorer._picture != picture
        and bars(explorer) != start
        and words_of_bars(explorer) == [word for word, *_ in start]
    )
    explorer.move(picture=0)
    explorer.move(words="a fox\na <cat>")
    assert words_of_bars(explorer) == ["a fox", "a &lt;cat&gt;"]
    assert "CLIP reads “a photo of a fox.” and so on. Not the name of a thing" in line(explorer)
    explorer.move(template="{} at night")
    assert "“a fox at night”" in line(explorer)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "there are no words"),
        ("a fox", "'a fox' alone has the probability 1"),
        ("a fox, a fox", "'a fox' is there twice"),
        ("a fox, " + "an owl and " * 20, "this CLIP reads 16; say it shorter"),
    ],
)
def test_words_that_do_not_do_are_said_and_nothing_is_lost(explorer, words, said):
    before, was = bars(explorer), explorer.panel.values["words"]
    explorer.move(words=words)
    assert said in line(explorer) and "Error" not in line(explorer)
    assert bars(explorer) == before and explorer._bars in explorer.panel.area and explorer.panel.state == "error"
    explorer.move(words=was)
    assert bars(explorer) == before and explorer.panel.state == "done"


def test_an_own_picture_joins_the_others_and_a_file_that_is_none_changes_nothing(explorer):
    given = bars(explorer)
    uploaded(explorer, "me <1>.png", memoryview(a_png()))
    own, picture = bars(explorer), explorer._picture
    assert own != given and 'alt="the picture your own: me &lt;1&gt;.png"' in picture
    assert len(choices(explorer)) == 5
    uploaded(explorer, "notes.txt", b"no picture at all")
    assert "'notes.txt' is not a picture that can be read" in line(explorer)
    assert (bars(explorer), explorer._picture) == (own, picture)
    explorer.move(picture=0)
    assert bars(explorer) == given
    uploaded(explorer, "second.png", a_png("orange"))
    assert choices(explorer)[4:] == ["your own: second.png"]
    assert bars(explorer) not in (given, own)


def test_every_upload_is_shown_as_itself(explorer):
    """Pictures of all sizes, whose places in memory are used again and again."""
    seen = set()
    for number in range(40):
        width, height = 20 + number, 60 - number
        uploaded(explorer, f"{number}.png", a_png((6 * number, 255 - 6 * number, 90), (width, height)))
        shown = re.search('base64,(.*?)"', explorer._picture)[1]
        wide, high = Image.open(io.BytesIO(base64.b64decode(shown))).size
        assert f"your own: {number}.png" in explorer._picture
        assert abs(wide / high - width / height) < 0.05
        seen.add(explorer._picture)
    assert len(seen) == 40
    kept = [key for key in (*explorer._drawn, *(place for place, _ in explorer._reader._pictures)) if key != 0]
    assert len(set(kept)) == 1, "what was uploaded before is forgotten"


def test_the_same_file_can_be_uploaded_again(explorer):
    uploaded(explorer, "me.png", a_png())
    own = bars(explorer)
    explorer.move(picture=1)
    assert bars(explorer) != own
    uploaded(explorer, "me.png", a_png())
    assert bars(explorer) == own


def test_words_cannot_be_taken_for_an_uploaded_picture(explorer):
    uploaded(explorer, "me.png", a_png())
    key = explorer.panel.values["picture"]
    before = explorer._reader._pictures[key, next(state for place, state in explorer._reader._pictures)]
    explorer.move(template="{}")
    explorer.move(words=f"a fox, {key}")
    assert before is explorer._reader._pictures[key, next(state for place, state in explorer._reader._pictures)]
    assert words_of_bars(explorer) == ["a fox", key]


def test_whatever_goes_wrong_with_an_upload_is_a_sentence(explorer, monkeypatch):
    def full(*args, **options):
        raise MemoryError("too large")

    before = bars(explorer)
    monkeypatch.setattr("dlcv_diffusion.zero_shot.explorer.open_picture", full)
    uploaded(explorer, "me.png", a_png())
    assert "MemoryError: too large" in line(explorer) and bars(explorer) == before
    assert len(choices(explorer)) == 4
    explorer.move(picture=1)
    assert "MemoryError" not in line(explorer) and bars(explorer) != before


def test_an_upload_is_opened_in_the_thread_of_the_cells_and_its_refusal_stays(clip, pictures, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "dlcv_diffusion.zero_shot.explorer.open_picture",
        lambda *args, **options: opened.append(threading.current_thread()) or open_picture(*args, **options),
    )

    async def scenario():
        explorer = zero_shot_explorer(clip, pictures)
        explorer.panel  # noqa: B018
        explorer.move(words="a fox, a wolf")
        await asyncio.sleep(0.01)
        await asyncio.to_thread(uploaded, explorer, "notes.txt", b"no picture at all")
        before = len(choices(explorer)), explorer.panel.values["picture"]
        await asyncio.sleep(0.01)
        await explorer._task
        await asyncio.sleep(0.2)
        assert "'notes.txt' is not a picture" in line(explorer)
        assert words_of_bars(explorer) == ["a fox", "a wolf"], "what was typed is answered all the same"
        assert before == (len(choices(explorer)), explorer.panel.values["picture"])

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert opened == [threading.main_thread()]


def test_words_that_are_forgotten_meanwhile_are_there_all_the_same(clip, pictures, monkeypatch):
    monkeypatch.setattr("dlcv_diffusion.zero_shot.reader.KEPT", 24)
    explorer = zero_shot_explorer(clip, pictures, [f"word {n}" for n in range(23)])
    found = explorer.probabilities(0, [f"word {n}" for n in range(5, 45)], "{}", 0.1)
    wanted = explorer.probabilities(0, [f"word {n}" for n in reversed(range(5, 45))], "{}", 0.1)
    torch.testing.assert_close(found, wanted.flip(0))


def test_training_between_two_steps_of_an_answer_does_not_break_it(clip, pictures):
    explorer = zero_shot_explorer(clip, pictures)
    explorer.panel  # noqa: B018
    explorer.panel.unobserve_all()
    explorer.move(words=", ".join(f"word {n}" for n in range(30)))
    for _ in explorer._show():
        with torch.no_grad():
            next(clip.parameters()).mul_(1.01)
    assert "Error" not in line(explorer) and "and 20 less probable" in explorer._bars


def test_only_the_last_of_many_moves_is_encoded_and_texts_are_encoded_once(clip, pictures, monkeypatch):
    encoded = []
    encode = clip.encode_texts
    monkeypatch.setattr(clip, "encode_texts", lambda texts: encoded.extend(texts) or encode(texts))

    async def scenario():
        explorer = zero_shot_explorer(clip, pictures, "fox, owl", template="{}")
        explorer.panel  # noqa: B018
        typed = "fox, owl, cat"
        for end in range(9, len(typed) + 1):
            explorer.move(words=typed[:end])
            await asyncio.sleep(0.005)
        while len(bars(explorer)) < 3:
            await asyncio.sleep(0.001)
        explorer.move(temperature=2.0)
        await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert encoded == ["fox", "owl", "cat"]


def test_it_answers_within_a_fifth_of_a_second(explorer):
    times = {}
    for number in range(8):
        moves = {
            "a picture": lambda: explorer.move(picture=(number + 1) % 4),  # noqa: B023 - called at once
            "a temperature": lambda: explorer.move(temperature=0.02 * (number + 1)),  # noqa: B023
            "a word": lambda: explorer.move(words=f"a fox, an owl, {number} cats"),  # noqa: B023
            "a template": lambda: explorer.move(template=f"{{}} {number}"),  # noqa: B023
            "an upload": lambda: uploaded(explorer, f"{number}.png", a_png((number, 0, 0), (640, 480))),  # noqa: B023
        }
        for name, move in moves.items():
            begun = time.process_time()
            move()
            times.setdefault(name, []).append(time.process_time() - begun)
    assert {name: spent for name, spent in times.items() if statistics.median(spent) >= 0.2} == {}


def test_what_is_shown_is_downloaded_and_the_line_of_code_computes_it_again(explorer):
    explorer.move(picture=2, temperature=0.5)
    name, png = explorer._file()
    assert name == "zero_shot.png" and png.startswith(b"\x89PNG")
    shares = eval(explorer.panel.code, {"explorer": explorer})  # noqa: S307 - it is what the panel says
    assert [share for _, share, _ in bars(explorer)] == [percent(share) for share in shares.tolist()]


def test_bars_say_who_is_first_and_of_many_only_ten_are_shown():
    page = bars_html([f"word {n}" for n in range(12)], [0.1] * 12, [n / 66 for n in range(12)])
    assert page.count("<tr>") == 1 + 10 and "and 2 less probable" in page and "▸ <b>word 11</b>" in page
    assert page.index("word 11") < page.index("word 10")


def test_a_picture_keeps_its_shape():
    source = re.search('base64,(.*?)"', picture_html(Image.new("RGB", (400, 100)), "wide"))[1]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (224, 56)


# --- the still picture ------------------------------------------------------------------------------------------------


def test_the_still_has_pictures_at_temperatures(clip, pictures):
    explorer = zero_shot_explorer(clip, pictures, "a fox, a bridge", title="Words", facts={"seed": 0})
    assert explorer.still.caption.endswith("Run this cell to move the controls")
    words = [text.get_text() for text in explorer.still.texts]
    assert words[:2] == ["Words", "τ = 0.07, as learnt"] and words[4:] == [
        f"{n}_{n}.png: {CLASSES[n]}" for n in range(3)
    ]
    assert explorer.still.facts == {"model": "small", "seed": 0, "template": "a photo of {}."}
    drawn = [text.get_text() for axes in explorer.still.axes for text in axes.texts]
    share = explorer.probabilities(0, ["a fox", "a bridge"], "a photo of {}.", clip.temperature)[0]
    assert drawn[0] == f"a fox  {percent(share, 0)}" and len(drawn) == 3 * 3 * 2


def colours(figure):
    return {to_hex(bar.get_facecolor()[:3]).upper() for axes in figure.axes for bar in axes.patches}


def pictures_in(figure):
    return [text.get_text() for text in figure.texts if ".png: " in text.get_text()]


def test_the_still_has_a_picture_that_is_read_wrongly_where_there_is_one(clip, pictures):
    """All four show one picture; so the words are right in three of them, or wrong in three, as labels say."""
    image, words, template = pictures.read(0), ["fox", "owl"], "{}"
    read = int(zero_shot_explorer(clip, pictures, words, template=template).probabilities(0, words, template).argmax())
    for labels, shown in (([0, 0, 0, 0, 1, 1], [0, 1, 4]), ([0, 1, 0, 0, 1, 0], [0, 1, 2]), ([0] * 6, [0, 1, 2])):
        labels = [abs(label - read) for label in labels]
        same = Pictures(list("abcdef"), torch.tensor(labels), words, lambda row: image)
        figure = zero_shot_explorer(clip, same, words, template=template).still
        names = [text.get_text() for text in figure.texts if text.get_text()[1:3] == ": "]
        assert names == [f"{'abcdef'[row]}: {words[labels[row]]}" for row in shown]
        assert (WRONG.upper() in colours(figure)) == (len(set(labels)) == 2)


def test_what_cannot_be_read_is_left_out_of_the_still_and_named(clip, pictures):
    def read(row):
        check(row not in broken, f"'{row}.png' is not a picture that can be read; replace it")
        return pictures.read(row)

    broken = {1}
    some = Pictures(["0.png", "1.png", "2.png", "3.png"], pictures.labels, CLASSES, read)
    figure = zero_shot_explorer(clip, some).still
    assert [name[:5] for name in pictures_in(figure)] == ["0.png", "2.png", "3.png"]
    assert figure.caption.endswith("Left out, since not to be read: 1.png. Run this cell to move the controls")
    broken |= {0, 2, 3}
    with pytest.raises(UserError, match=r"none of the first 4 pictures can be read: '0\.png' is not a picture"):
        zero_shot_explorer(clip, some).still  # noqa: B018


def test_what_has_the_same_name_stands_in_the_still_twice(clip, pictures):
    some = Pictures(["a.png"] * 3, torch.tensor([0, 0, 0]), CLASSES, pictures.read)
    figure = zero_shot_explorer(clip, some, still=[0.1, 0.10001]).still
    assert len(pictures_in(figure)) == 3
    assert [text.get_text() for text in figure.texts if "τ" in text.get_text()] == ["τ = 0.1", "τ = 0.10001"]


def test_a_figure_of_temperatures_below_0_is_refused():
    picture = [("a fox", Image.new("RGB", (8, 8)))]
    for temperature in (0, -1, float("nan")):
        with pytest.raises(UserError, match="must be a finite number above 0"):
            temperatures_figure(picture, ["fox", "owl"], torch.tensor([[0.3, 0.2]]), [("τ", temperature)])
