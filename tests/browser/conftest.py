"""The real App in a real browser: a server of its own for each test, and headless Chromium to look at it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from fiftyone_selfsame.brain.paths import home

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


def pytest_addoption(parser):
    parser.addoption(
        "--save-screenshots", action="store_true", help="write the screenshots that the README shows to docs/images"
    )


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def serve_app():
    """Serves the App as the demo does: ``serve_app(dataset name) -> address``. One server per test, because the App
    keeps open panels, view and selection on the server."""
    servers = []

    def serve(name: str) -> str:
        port = free_port()
        log = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "fiftyone_selfsame.fixtures.demo", "--only-app"]
        server = subprocess.Popen(
            [*command, "--name", name, "--port", str(port)],
            env={**os.environ, "BROWSER": "true", "FIFTYONE_PLUGINS_DIR": str(home() / "app_plugins")},
            stdin=subprocess.DEVNULL,
            stdout=log,
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
def page(browser):
    """A page of a fresh browser profile, with the App's first-visit pop-up (it swallows clicks) marked as seen."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def save_screenshot(request, page, tmp_path):
    """``save_screenshot(name)``: to docs/images where ``--save-screenshots`` asks for it, else to a throw-away folder."""
    folder = ROOT / "docs" / "images" if request.config.getoption("--save-screenshots") else tmp_path

    def save(name: str) -> Path:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)
        return path

    return save


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_served(address: str, server: subprocess.Popen, log, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    log.seek(0)
    raise RuntimeError(f"the App is not served on {address}:\n{log.read()[-4000:]}")
