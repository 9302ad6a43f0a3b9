"""Pages in a real Chromium: `make test-browser`."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the Python package playwright is not installed"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of the programs {', '.join(PROGRAMS)} is installed")
    with playwright.sync_playwright() as driver:
        # A container's root has no sandbox.
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """Opens pages; what they complain of is collected in `problems`."""

    def __init__(self, browser) -> None:
        self.browser, self.problems = browser, list[str]()

    def __call__(self, address: str, **about):
        """A page of an address, in a context of its own."""
        page = self.browser.new_context(viewport={"width": 1280, "height": 800}, **about).new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self._failed(request))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.goto(address)
        return page

    def _note(self, kind: str, text: str) -> None:
        # The tests read pixels.
        if kind in ("error", "warning") and "willReadFrequently" not in text:
            self.problems.append(f"{kind}: {text}")

    def _failed(self, request) -> None:
        # A video that is scrolled away stops loading.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.problems.append(f"{request.url}: {request.failure}")


@pytest.fixture
def opened(browser) -> Iterator[Opened]:
    """Opens pages, and fails where one of them had an error."""
    opened = Opened(browser)
    yield opened
    for context in browser.contexts:
        context.close()
    assert opened.problems == []


@pytest.fixture
def serious_faults():
    """What axe finds serious or critical in a page: (rule, element)."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )

    def faults(page) -> list[tuple[str, str]]:
        return [
            (violation["id"], node["html"])
            for violation in axe.Axe().run(page).response["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    return faults


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *about) -> None:
        """Print nothing."""


@pytest.fixture(scope="session")
def served():
    """Serves folders: a function from a folder to its address."""
    servers = []

    def serve(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
