"""A report of two columns with our figures in it, in a browser: how large their letters are there."""

import numpy as np
import pytest

from dlcv_diffusion import NoiseSchedule
from dlcv_diffusion.figures import digit_grid, image_grid, line_plot, printed, save_figure, schedule_plot

FACTS = {"seeds": range(10), "sampler": "dpm_solver", "steps": 15, "w": 2.0, "weights": "digits"}

LETTERS = """() => [...document.querySelectorAll('svg text, svg tspan')].filter(part => part.textContent.trim())
  .filter(part => !part.querySelector('tspan')).map(part => {
    const {a, b} = part.getScreenCTM(), size = parseFloat(getComputedStyle(part).fontSize);
    return {words: part.textContent, points: size * Math.hypot(a, b) / 96 * 72};
  })"""
FITS = """() => [...document.querySelectorAll('figure')].every(figure => {
  const {left, right} = figure.getBoundingClientRect(), picture = figure.firstElementChild.getBoundingClientRect();
  return picture.left >= left - 1 && picture.right <= right + 1;
})"""


def figures():
    rng = np.random.default_rng(0)
    noise = lambda *shape: rng.integers(0, 256, (*shape, 3, 28, 28), np.uint8)  # noqa: E731
    yield digit_grid(noise(10, 10), range(10), "MNIST-M", facts=FACTS)
    heads = [f"t = {t}" for t in (349, 140, 84, 42, 14, 0)]
    yield image_grid(
        noise(2, 6), ["street digits, 0  $x$", "predicted $x_0$"], heads, "The reverse process", facts=FACTS
    )
    yield line_plot([0, 0.5, 1], {"lerp": [1, 0.7, 1]}, "α", "length / √D", "Length between two noises", facts=FACTS)
    yield schedule_plot(NoiseSchedule.linear(350), facts={"T": 350})


@pytest.mark.parametrize("width", ["column", "page"])
def test_letters_in_a_report_can_be_read(browser, tmp_path, screenshots, width):
    inches = {"column": 3.3, "page": 7.0}[width]
    with printed(width, format="svg"):
        paths = [save_figure(figure, tmp_path / f"{number}.svg") for number, figure in enumerate(figures())]
    drawings = [path.read_text(encoding="utf-8") for path in paths]
    drawn = "".join(f"<figure>{drawing[drawing.index('<svg') :]}</figure>" for drawing in drawings)
    words = "<p>" + "Ten points of text beside the figures, as in a report. " * 12 + "</p>"
    style = f"main {{ width: 7in; columns: {inches}in; column-gap: 0.4in; font: 10pt serif }} "
    style += "figure { margin: 0 0 12pt; break-inside: avoid } svg { max-width: 100%; height: auto }"
    (tmp_path / "report.html").write_text(f"<meta charset=utf-8><style>{style}</style><main>{words}{drawn}</main>")
    context = browser.new_context(offline=True, viewport={"width": 720, "height": 1000}, device_scale_factor=2)
    try:
        page = context.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        screenshots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=screenshots / f"report_{width}.png", full_page=True)
        letters = page.evaluate(LETTERS)
        plain = [each for each in letters if len(each["words"]) > 2]  # indices of symbols are smaller, as in any text
        assert len(plain) > 30
        assert [each for each in plain if each["points"] < 6.95] == []
        assert page.evaluate(FITS)
    finally:
        context.close()
