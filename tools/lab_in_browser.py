"""JupyterLab with a notebook in it, in a headless Chromium: what the browser tests and `benchmarks/sliders.py` share.

    with running_lab(folder) as lab, chromium() as browser:
        notebook = LabNotebook(browser, lab, "04_ddim_eta.ipynb")
        notebook.run_all()
        notebook.handle("noise added, η").press("ArrowRight")

The browser is the system's own; Playwright drives it and downloads nothing.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import TimeoutError as PageTimeout
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_ONE = (
    "no Chromium or Chrome is installed; on Debian `apt-get install chromium` brings one, elsewhere your system's "
    "packages or google.com/chrome"
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
TOKEN = "a-token-of-the-tests"
PATIENCE = 60_000  # milliseconds for the page to react; a busy machine is slow
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},  # dark where the browser asks for it
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # every cell is in the page, seen or not
}

TOO_WIDE = """box => [box, ...box.querySelectorAll('*')].filter(part => {
  const {left, right} = part.getBoundingClientRect(), own = box.getBoundingClientRect();
  return right > left && right > Math.min(own.right, innerWidth) + 1;
}).map(part => part.className || part.tagName)"""
"""Parts of a box that stand out of it, or of the window."""


class Lab(NamedTuple):
    """A running server: its address, ending in a slash, and where it writes what it says."""

    url: str
    log: Path


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome, if there is one."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def running_lab(
    folder: Path, scratch: Path, environment: Mapping[str, str] | None = None, patience: float = 120
) -> Iterator[Lab]:
    """A JupyterLab whose files are those of `folder`, with settings of its own in `scratch`, on a free port.

    Raises `RuntimeError`, with the end of its log, where it does not answer within `patience` seconds.
    """
    places = {name: scratch / name for name in ("config", "data", "runtime", "settings", "workspaces", "app_settings")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    overrides = places["app_settings"] / "overrides.json"
    overrides.write_text(json.dumps(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *(f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}"),
        "--ContentsManager.pre_save_hook=saving.keep_metadata",  # as `make lab` has it
        *(f"--LabApp.user_settings_dir={places['settings']}", f"--LabApp.workspaces_dir={places['workspaces']}"),
        *(f"--LabServerApp.app_settings_dir={places['app_settings']}", "--LabApp.extension_manager=readonly"),
    ]
    own = {f"JUPYTER_{name.upper()}_DIR": str(places[name]) for name in ("config", "data", "runtime")}
    own["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = scratch / "jupyterlab.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            env={**os.environ, **own, **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Lab(_address(server, places["runtime"], log, patience), log)
        finally:
            server.send_signal(signal.SIGTERM)  # it ends its kernels, then itself
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _address(server: subprocess.Popen, runtime: Path, log: Path, patience: float) -> str:
    """Where the server answers, once it does: the port may be another one if ours was taken in the meantime."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        for info in runtime.glob(f"jpserver-{server.pid}.json"):
            try:
                url = json.loads(info.read_text())["url"]
                direct.open(f"{url}api/status?token={TOKEN}", timeout=10).close()
                return url
            except (OSError, ValueError):
                pass
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser, as Playwright's `Browser`. Raises `FileNotFoundError` where none is installed."""
    executable = find_browser()
    if executable is None:
        raise FileNotFoundError(HOW_TO_GET_ONE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET, headless=True)
        try:
            yield browser
        finally:
            browser.close()


# Every picture that the live view shows is noted with its time, and every change of the line below it. A picture
# counts from the frame that follows its decoding. The keyboard's events are noted too: a move begins at the keydown.
WATCH = """view => {
  const events = [], image = view.querySelector('figure:last-of-type img'), note = (kind, what) => {
    events.push({at: performance.now(), kind, what});
  };
  const line = view.querySelector('.dlcv-line');
  image.addEventListener('load', () => {
    const {src, naturalWidth, naturalHeight} = image, {state} = view.dataset;
    requestAnimationFrame(() => {
      const {width, height} = image.getBoundingClientRect(), paper = new OffscreenCanvas(64, 64).getContext('2d');
      paper.drawImage(image, 0, 0, 64, 64);
      const grey = [...paper.getImageData(0, 0, 64, 64).data].filter((_, place) => place % 4 === 0);
      note('picture', {src, state, grey, size: [naturalWidth, naturalHeight, width, height]});
    });
  });
  new MutationObserver(() => note('line', line.textContent)).observe(line, {childList: true, subtree: true});
  document.addEventListener('keydown', () => note('key', ''), true);
  Object.assign(window, {sliderEvents: events, sliderView: view});
}"""


PIXELS = """image => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext('2d').drawImage(image, 0, 0);
  return canvas.toDataURL();
}"""

TEXT_SIZE = "part => parseFloat(getComputedStyle(part).fontSize)"

PROMPTS = """[...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
  .filter(cell => cell.querySelector('.cm-content')?.textContent.trim() !== '')
  .map(cell => cell.querySelector('.jp-InputPrompt').textContent)"""
STARTED = f"() => {PROMPTS}.some(prompt => /[*\\d]/.test(prompt))"
RAN = f"""() => {PROMPTS}.every(prompt => /\\d/.test(prompt))
  || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') !== null"""

FINISHED = """() => {
  const events = window.sliderEvents, since = events.slice(events.findLastIndex(event => event.kind === 'key') + 1);
  const picture = since.findLast(event => event.kind === 'picture');
  const shown = window.sliderView.querySelector('figure:last-of-type img').src;
  return picture && window.sliderView.dataset.state === 'done' && shown === picture.what.src;
}"""


class LabNotebook:
    """A notebook that is open in JupyterLab, alone on its page; close it when you are done, for its kernel's sake."""

    def __init__(self, browser: Any, lab: Lab, name: str, *, size: tuple[int, int] = (1280, 1000)) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.goto(f"{lab.url}doc/tree/{name}?token={TOKEN}&reset")
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        self.page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()  # in the status bar

    def __enter__(self) -> "LabNotebook":
        return self

    def __exit__(self, *_: Any) -> None:
        self.context.close()

    def run_all(self, patience: float = 300) -> None:
        """Run > Run All Cells, from the menu, and wait until the last cell has run or one has failed."""
        for attempt in range(5):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name=re.compile("^Run All Cells$")).click()
            try:
                self.page.wait_for_function(STARTED, timeout=PATIENCE / 4)
                break
            except PageTimeout:  # too early for JupyterLab, which may ask for a kernel that it has
                if attempt == 4:
                    raise
                if (choose := self.page.locator(".jp-Dialog .jp-mod-accept").first).is_visible():
                    choose.click()
        self.page.wait_for_function(RAN, timeout=1000 * patience)

    def errors(self) -> list[str]:
        """What failed: tracebacks of cells, widgets that could not be shown."""
        failed = self.page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        dead = self.page.get_by_text(re.compile("^Error (displaying|creating) widget")).all()
        return failed + [text.inner_text() for text in dead if text.evaluate(TEXT_SIZE) > 0]

    def restart_kernel(self) -> None:
        """As its reader does: 0, 0 in command mode, and yes."""
        self.page.locator(".jp-InputPrompt").first.click()
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.page.locator(".jp-Dialog .jp-mod-accept").first.click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")

    def reload(self) -> None:
        """Open the page again."""
        self.page.reload()
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        self.page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()

    def save(self) -> None:
        """File > Save Notebook, by its keys, and wait until the server has written it."""
        with self.page.expect_response(lambda answer: answer.request.method == "PUT" and "api/contents" in answer.url):
            self.page.locator(".jp-Notebook").press("Control+s")

    def view(self, number: int = 0) -> Any:
        """The live view of an explorer, scrolled to, as a Playwright locator."""
        view = self.page.locator(".dlcv-explorer").nth(number)
        view.scroll_into_view_if_needed()
        view.locator("img:visible").first.wait_for()
        return view

    def handle(self, label: str, number: int = 0) -> Any:
        """The slider with this label: it takes the keys."""
        return self.view(number).get_by_label(label, exact=True)

    def button(self, name: str, number: int = 0) -> Any:
        """One of the buttons."""
        return self.view(number).get_by_role("button", name=name, exact=True)

    def fingerprint(self, number: int = 0) -> str:
        """The pixels that the live view shows, as a data URL: equal pictures, equal words."""
        return self.view(number).locator("figure:last-of-type img").evaluate(PIXELS)

    def words(self, number: int = 0) -> str:
        """The line below the picture."""
        return self.view(number).locator(".dlcv-line").inner_text()

    def facts(self, number: int = 0) -> str:
        """The caption, and the facts that made what is seen."""
        return self.view(number).locator(".dlcv-facts").inner_text()

    def state(self, number: int = 0) -> str:
        """How things stand: done, waiting, busy, draft, stopped, error, or gone."""
        return self.view(number).get_attribute("data-state")

    def screenshot(self, path: Path, number: int | None = None) -> None:
        """The page, or one live view of it, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.page if number is None else self.view(number)).screenshot(path=path)

    def watch(self, number: int = 0) -> None:
        """Begin to note what the live view shows, and when."""
        self.view(number).evaluate(WATCH)

    def events(self) -> list[dict[str, Any]]:
        """What was noted: `at` (milliseconds), `kind` ("key", "picture" or "line") and `what`."""
        return self.page.evaluate("window.sliderEvents")

    def forget(self) -> None:
        """Begin a new list of events."""
        self.page.evaluate("window.sliderEvents.length = 0")

    def wait_until_finished(self, patience: float = 60) -> None:
        """Wait until, since the last key, a picture has come that is shown, and the line below names no step."""
        every = 50  # milliseconds; by default it would be asked at every frame, and frames be drawn for that alone
        self.page.wait_for_function(FINISHED, timeout=1000 * patience, polling=every)
