"""A real server in a process of its own, and a real Chromium: what the browser tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
PATIENCE_S = 30.0  # for what takes a second on an idle machine
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with it
    "--disable-gpu",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


def find_chromium() -> str:
    """The browser's path. A missing browser fails the tests: a skipped page is an untested page."""
    named = os.environ.get("STYLEWIRE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(
            "no Chromium or Chrome found; install one (Debian: apt-get install chromium) "
            "or set STYLEWIRE_CHROMIUM to its path.",
            pytrace=False,
        )
    return found


class ServerProcess:
    """`stylewire serve` on one port, as often as wanted."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._log = tempfile.TemporaryFile()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "realtime", "serve", "--port", str(self.port)]
        self._child = subprocess.Popen(
            [*command, *self._options],
            cwd=ROOT,
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )
        end = time.monotonic() + 2 * PATIENCE_S
        while time.monotonic() < end and self._child.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        pytest.fail(f"the server did not start:\n{self.output()}", pytrace=False)

    def kill(self) -> None:
        """At once, without a word to its viewers."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def close(self) -> None:
        self.stop()
        self._log.close()

    def _end(self, number: signal.Signals) -> None:
        if self._child is None:
            return
        self._child.send_signal(number)
        try:
            self._child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            raise
        finally:
            self._child = None

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    async def stats(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/stats") as response:
            return await response.json()

    async def session(self, session: str) -> dict[str, Any]:
        """The part of /stats on one session; its id is cut there."""
        sessions = (await self.stats())["sessions"]
        found = [one for one in sessions if session.startswith(one["id"])]
        assert len(found) == 1, f"{session} is not among {[one['id'] for one in sessions]}"
        return found[0]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess("--model", "testcard", "--resolution", "256")
    process.start()
    yield process
    process.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = find_chromium()
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        await found.close()


class Tab:
    """A page of ours, and what its console complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()  # complaints that are right here
        self.offers: list[float] = []  # when each was posted
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    async def refuse_first_offer(self, status: int, wait_s: int) -> None:
        """As a busy server does: in place of the real one, which then answers the others."""

        async def answer(route: Route) -> None:
            self.offers.append(time.monotonic())
            if len(self.offers) > 1:
                await route.continue_()
                return
            headers = {"Retry-After": str(wait_s)} if wait_s else {}
            body = {"error": "busy", "message": "Come again."}
            await route.fulfill(status=status, headers=headers, json=body)

        await self.page.route("**/offer", answer)

    def check(self) -> None:
        wrong = [c for c in self.complaints if not any(word in c for word in self.expected)]
        assert not wrong, f"the page's console: {wrong}"

    async def state(self, name: str) -> Any:
        """One of the page's read-only figures."""
        return await self.page.evaluate("name => window.stylewire[name]", name)

    async def until(self, condition: str, why: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an expression over `s`, the page's figures, is true.

        Asked again and again from here: Playwright's own waiting evaluates text inside the page,
        which the page's Content-Security-Policy forbids.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            asked = f"((s) => s !== undefined && ({condition}))(window.stylewire)"
            if await self.page.evaluate(asked):
                return
            await asyncio.sleep(0.05)
        figures = await self.page.evaluate(
            "JSON.stringify(Object.fromEntries(Object.getOwnPropertyNames(window.stylewire ?? {})"
            ".map(name => [name, window.stylewire[name]])))"
        )
        pytest.fail(f"{why}: not ({condition}) within {timeout_s:g} s; the page says {figures}")

    async def live(self) -> None:
        await self.until("s.phase === 'live' && s.frames > 3 && s.width > 0", "no live picture")


Opener = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(loop_scope="module")
async def open_tab(browser: Browser, server: ServerProcess) -> AsyncIterator[Opener]:
    """Open the page with a query; at the end its console must have been silent."""
    tabs: list[Tab] = []

    async def opener(
        query: str = "",
        *,
        wait: bool = True,
        script: str = "",
        first_offer: tuple[int, int] | None = None,  # status and Retry-After, seconds
        **options: Any,
    ) -> Tab:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        tab = Tab(await browser.new_page(**options))
        if script:
            await tab.page.add_init_script(script)
        if first_offer:
            await tab.refuse_first_offer(*first_offer)
        tabs.append(tab)
        await tab.page.goto(f"{server.url}/{query}")
        await tab.until("true", "the page's script does not run")
        if wait:
            await tab.live()
        return tab

    yield opener
    for tab in tabs:
        await tab.page.context.close()
    for tab in tabs:
        tab.check()
