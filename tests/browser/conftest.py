"""The real App in a real browser: a server of its own for each test, and headless Chromium to look at it."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from fiftyone_selfsame.brain.paths import home
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The background services of the browser look for hosts of its maker at every start; a test machine may have no network.
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Collects what the progress dialog says, however briefly it says it.
WATCH_PROGRESS = """
window.seenProgress = [];
new MutationObserver(() => {
    const said = document.body.innerText.match(/[^\\n]+: [\\d,]+ of [\\d,]+/g) || [];
    window.seenProgress.push(...said);
}).observe(document.body, {subtree: true, childList: true, characterData: true});
"""


class AppPage:
    """One tab with the App in it."""

    def __init__(self, page):
        self._page = page

    def open(self, address: str) -> None:
        self._page.goto(address)
        self.wait_for_grid()
        self._page.evaluate(WATCH_PROGRESS)

    def wait_for_grid(self) -> None:
        self._page.locator("[data-cy=fo-grid] [data-cy=looker] canvas[canvas-loaded=true]").first.wait_for()

    def choose_operator(self, label: str) -> None:
        """Opens the form of an operator from the operator browser."""
        self._page.locator("[data-cy=action-browse-operations]").click()
        self._page.locator("[data-cy=operators-browser-search]").fill(label)
        self._page.locator("[data-cy=operators-browser]").get_by_text(label, exact=True).first.click()
        self.button("Execute").wait_for()

    def button(self, name: str):
        return self._page.get_by_role("button", name=name, exact=True)

    def execute(self) -> list[str]:
        """Runs the operator whose form is open, and closes the dialog with its result.

        Returns what the dialog said of its progress, and then its result.
        """
        self._page.evaluate("window.seenProgress = []")
        self._start()
        result = self._page.get_by_text(re.compile(r" in [\d.]+ s\b"))
        result.wait_for(timeout=300_000)
        said = [*self._page.evaluate("window.seenProgress"), result.inner_text()]
        self.button("Done").click()
        result.wait_for(state="hidden")
        return said

    def execute_without_result(self) -> None:
        """Runs an operator that changes the grid and closes its dialog by itself."""
        self._start()

    def _start(self) -> None:
        # The button is dead until the form has been checked; the form goes away when the operator has started.
        self._page.locator("button:enabled", has_text=re.compile("^Execute$")).click()
        self.button("Cancel").wait_for(state="hidden")

    def wait_for_samples(self, n: int) -> None:
        """Waits until the grid says that it holds this many samples, and shows the first of them."""
        self._page.locator("[data-cy=entry-counts]", has_text=re.compile(rf"^{n:,} samples?$")).wait_for()
        self.wait_for_grid()

    def values_in_grid(self, field: str) -> list[str]:
        """The values of a field as the thumbnails of the grid show them, in order."""
        tags = self._page.locator(f"[data-cy=fo-grid] [data-cy='tag-{field}']")
        tags.first.wait_for()
        return tags.all_inner_texts()

    def open_panel(self, name: str) -> "PanelPage":
        """Opens one of the plugin's panels beside the grid."""
        self._page.locator("[data-cy=new-panel-btn]").first.click()
        self._page.locator(f"[data-cy=new-panel-option-selfsame_{name}]").click()
        return self.opened_panel(name)

    def opened_panel(self, name: str) -> "PanelPage":
        """One of the plugin's panels that is open, or about to be."""
        panel = PanelPage(self._page.locator(f"[data-cy=selfsame-{name}]"))
        panel.root.wait_for()
        return panel

    def first_thumbnail(self) -> Image.Image:
        """The first picture of the grid, with all that is drawn over it, once it has come to rest."""
        last, now = b"", b"-"
        while now != last:
            self._page.wait_for_timeout(500)
            last, now = now, self._page.locator("[data-cy=looker]").first.screenshot()
        return Image.open(io.BytesIO(now)).convert("RGB")


class PanelPage:
    """A panel of the plugin in the App."""

    def __init__(self, root):
        self.root = root

    def part(self, name: str):
        """An element of the panel."""
        return self.root.locator(f"[data-cy=selfsame-{name}]")

    def press(self, *keys: str) -> None:
        """Presses keys, the panel having the keyboard, each once the panel has answered the one before."""
        for key in keys:
            self.settle()
            self.root.press(key)
        self.settle()

    def settle(self) -> None:
        """Waits until nothing is asked of the server."""
        quiet = 0
        while quiet < 3:
            self.root.page.wait_for_timeout(50)
            quiet = quiet + 1 if self.root.get_attribute("data-busy") == "false" else 0

    def listed(self) -> list[int]:
        """Numbers of the groups in the list, in its order."""
        rows = self.root.locator("[data-cy^=selfsame-group-]").all()
        return [int(row.get_attribute("data-cy").split("-")[-1]) for row in rows]

    def members(self) -> list[str]:
        """Ids of the members that are shown."""
        return [tile.get_attribute("data-id") for tile in self.root.locator("[data-cy^=selfsame-member-]").all()]

    def overflow(self) -> int:
        """By how many pixels the widest part sticks out of the panel to the right; lists may scroll by themselves."""
        return self.root.evaluate(
            """root => {
                const right = root.getBoundingClientRect().right;
                const scrolls = element => element.closest('[data-cy=selfsame-list], svg');
                const ends = [...root.querySelectorAll('*')].filter(element => !scrolls(element))
                    .map(element => element.getBoundingClientRect().right);
                return Math.round(Math.max(...ends) - right);
            }"""
        )


def pytest_addoption(parser):
    parser.addoption(
        "--save-screenshots", action="store_true", help="write the screenshots that the README shows to docs/images"
    )


@pytest.fixture
def browser():
    """Headless Chromium, one per test: as long as Playwright lives, an event loop runs in this thread, and there
    FiftyOne returns tasks instead of results, to all other tests too."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a test machine may be busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def serve_app(tmp_path):
    """Serves the App as the demo does: ``serve_app(dataset name) -> address``. One server per test, because the App
    keeps open panels, view and selection on the server."""
    servers = []
    log = tmp_path / "server.log"

    def serve(name: str) -> str:
        port = free_port()
        command = [sys.executable, "-m", "fiftyone_selfsame.fixtures.demo", "--only-app"]
        server = subprocess.Popen(
            [*command, "--name", name, "--port", str(port)],
            env={**os.environ, "BROWSER": "true", "FIFTYONE_PLUGINS_DIR": str(home() / "app_plugins")},
            stdin=subprocess.DEVNULL,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        servers.append(server)
        wait_until_served(f"http://localhost:{port}", server, log)
        return f"http://localhost:{port}/datasets/{name}"

    yield serve
    for server in servers:
        server.terminate()
        server.wait(30)


@pytest.fixture
def open_app(page, serve_app):
    """``open_app(dataset name) -> AppPage``."""

    def open_dataset(name: str) -> AppPage:
        app = AppPage(page)
        app.open(serve_app(name))
        return app

    return open_dataset


@pytest.fixture
def page(browser):
    """A page of a fresh browser profile, with the App's first-visit pop-up (it swallows clicks) marked as seen."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def save_screenshot(request, page, tmp_path):
    """``save_screenshot(name)``: to docs/images if ``--save-screenshots`` asks for it, else to a throw-away folder."""
    folder = ROOT / "docs" / "images" if request.config.getoption("--save-screenshots") else tmp_path

    def save(name: str) -> Path:
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, type="jpeg", quality=85)
        return path

    return save


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_served(address: str, server: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the App is not served on {address}:\n{log.read_text()[-4000:]}")
