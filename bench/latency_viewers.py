"""The processes of bench/latency.py: both servers, and the viewers that record what they see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from bench.latency_figures import OURS, STOCK, WARMUP_MS, Shown, rate_kbit_s

ROOT = Path(__file__).resolve().parents[1]
MEASURE = Path(__file__).with_name("latency_page") / "measure.js"
START_S = 120.0  # a model may have to be compiled on the first start
STOP_S = 10.0
IDLE_S = 15.0
CLIENT_S = 45.0  # for the aiortc client to start, see the first picture and end
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with it
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(frozen=True)
class Case:
    """What is shown, and for how long."""

    codec: str
    size: int
    fps: int
    model: str  # what the server was started with; also a path, which no offer may name
    bitrate: int
    seconds: float  # from the first picture, warm-up included

    @property
    def name(self) -> str:
        return f"{self.size}@{self.fps}"

    @property
    def controls(self) -> dict[str, Any]:
        return {"resolution": self.size, "fps": self.fps, "bitrate": self.bitrate}


def no_chromium() -> str:
    return (
        "No Chromium or Chrome was found: install one (Debian: apt-get install chromium), "
        "name it with --chromium PATH, or measure to the decoder with --no-browser."
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Process:
    """A child that serves HTTP: started, waited for, and stopped, its output kept for trouble."""

    def __init__(self, *command: str, port: int) -> None:
        self.command, self.port = command, port
        self.url = f"http://127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in __aexit__
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._child = await asyncio.create_subprocess_exec(
            *self.command, stdout=self._log, stderr=self._log, env=environment
        )
        try:
            await self._until_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child.returncode is None:
            self._child.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(STOP_S):
                    await self._child.wait()
            except TimeoutError:
                self._child.kill()
                await self._child.wait()
        self._log.close()

    async def _until_ready(self) -> None:
        end = time.monotonic() + START_S
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < end and self._child.returncode is None:
                try:
                    async with http.get(f"{self.url}/livez") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise SystemExit(f"{' '.join(self.command[1:])} did not start:\n{self.output()}")

    def output(self) -> str:
        """The last lines it printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]


class Servers:
    """Ours and, where asked for, the baseline, each in a process of its own."""

    def __init__(self, model: str, *, stock: bool) -> None:
        port = free_port()
        command = [sys.executable, "-m", "realtime", "serve", "--model", model]
        self._children = {OURS: Process(*command, "--port", str(port), port=port)}
        if stock:
            port = free_port()
            script = str(Path(__file__).with_name("stock_server.py"))
            self._children[STOCK] = Process(sys.executable, script, "--port", str(port), port=port)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for child in self._children.values():
                await stack.enter_async_context(child)
            self._http = await stack.enter_async_context(aiohttp.ClientSession())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def url(self, path: str) -> str:
        return self._children[path].url

    async def idle(self) -> None:
        """Wait until the last session has ended: it draws on for a while without its viewer."""
        end = time.monotonic() + IDLE_S
        while time.monotonic() < end:
            async with self._http.get(f"{self.url(OURS)}/stats") as response:
                if not (await response.json())["sessions"]:
                    return
            await asyncio.sleep(0.1)
        raise SystemExit("a session of the last case did not end; see /stats of the server.")

    async def stock_stamps(self, session: str) -> list[list[int]]:
        async with self._http.get(f"{self.url(STOCK)}/stamps/{session}") as response:
            return (await response.json())["stamps_ns"]

    async def leave(self, path: str, recorded: dict[str, Any]) -> None:
        """Take the viewer away; it may have been noticed already."""
        address = f"{self.url(path)}/sessions/{recorded['session']}/viewers/{recorded['viewer']}"
        async with self._http.delete(address) as response:
            await response.read()


class BrowserViewer:
    """A headless Chromium with one page per case."""

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._script = MEASURE.read_text()

    async def __aenter__(self) -> Self:
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        try:
            self._browser = await self._playwright.chromium.launch(
                executable_path=self._executable, args=FLAGS
            )
        except BaseException:
            await self._playwright.stop()
            raise
        self.name = f"headless Chromium {self._browser.version}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._browser.close()
        await self._playwright.stop()

    async def watch(self, url: str, case: Case, *, gather: bool) -> dict[str, Any]:
        """Show `case` for its time.

        Args:
            gather: Wait for ICE gathering before the offer is sent, as example code does; our
                server needs no candidate of the client's.
        """
        page = await self._browser.new_page(viewport={"width": 640, "height": 640})
        try:
            await page.goto(f"{url}/livez")
            options = {"codec": case.codec, "controls": case.controls, "seconds": case.seconds}
            more = {"warmup": WARMUP_MS / 1e3, "gather": gather, "reader": f"{url}/barcode.js"}
            found = await page.evaluate(self._script, {**options, **more})
        finally:
            await page.close()
        return {
            **{key: found[key] for key in ("rows", "clocks", "stamps", "session", "viewer")},
            "join_ms": found["rows"][0]["called"] - found["begun"],
            "keyframes": found["atEnd"]["keyFramesDecoded"],
            "kbit_s": rate_kbit_s(found["atStart"], found["atEnd"]),
        }


class AiortcViewer:
    """bench/aiortc_viewer.py, in a process of its own per case."""

    name = "aiortc client (holds each frame until the next begins)"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def watch(self, url: str, case: Case, *, gather: bool) -> dict[str, Any]:
        script = str(Path(__file__).with_name("aiortc_viewer.py"))
        options = ["--url", url, "--codec", case.codec, "--seconds", str(case.seconds)]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            script,
            *options,
            "--controls",
            json.dumps(case.controls),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(case.seconds + CLIENT_S):
                out, _ = await child.communicate()
        except TimeoutError:
            raise SystemExit(
                "the aiortc client did not end in time; is the server alive?"
            ) from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            raise SystemExit("the aiortc client failed; what it printed stands above.")
        found = json.loads(out)
        if not found["rows"]:
            raise SystemExit("the aiortc client saw no picture within 20 s.")
        return {
            **{key: found[key] for key in ("stamps", "session", "viewer")},
            "rows": [Shown(int(number), at_ms) for number, at_ms in found["rows"]],
            "clocks": None,
            "join_ms": found["rows"][0][1] - found["begun_ms"],
            "keyframes": None,
            "kbit_s": None,
        }
