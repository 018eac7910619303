"""The pictures of the page in docs/images: the real server, a real Chromium, nothing arranged.

    python bench/screenshot.py --out docs/images            page-desktop.png and page-phone.png

Each is taken once the latency plot is full (19 of its 20 s), at 1280x800 and at 390x844 points;
never before 8 s of one unbroken stream, since the figures are of the last seconds and would still
show how it began.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.latency_viewers import FLAGS, Process, free_port, no_chromium

if TYPE_CHECKING:
    from playwright.async_api import Page

SHOTS = {  # name: width, height, device pixels per point, touch
    "page-desktop": (1280, 800, 1.5, False),
    "page-phone": (390, 844, 2, True),
}


SETTLED_S = 8.0  # the figures look back 5 s at most, and the server's first one is of its start
PATIENCE_S = 30.0  # for the stream to begin, and beyond the time wanted of it
# Seconds of stream that the page has shown without a break; 0 where it is not running.
STREAMED_S = """(() => {
  const page = window.stylewire;
  const samples = page?.phase === 'live' ? page.samples : [];
  return samples.length ? (samples.at(-1).atMs - samples[0].atMs) / 1000 : 0;
})()"""


async def settle(page: Page, seconds: float) -> None:
    """Return when `page` has shown its stream for so long, and it is the first that it has.

    Raises:
        SystemExit: No stream, or it broke off.
    """
    end = time.monotonic() + seconds + PATIENCE_S
    while (shown := await page.evaluate(STREAMED_S)) < seconds:
        if time.monotonic() > end:
            raise SystemExit(
                f"the page has shown {shown:.1f} s of stream, not {seconds:g}; look at it yourself."
            )
        await page.wait_for_timeout(100)
    if (connects := await page.evaluate("window.stylewire.connects")) != 1:
        raise SystemExit(
            f"the stream broke off: the page connected {connects} times; run it again."
        )


async def take(
    url: str, chromium: str, out: Path, query: str, seconds: float, seed: int | None
) -> None:
    """Write the screenshots of the page at `url`, each after `seconds` of stream."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, (width, height, scale, touch) in SHOTS.items():
            page = await browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                has_touch=touch,
            )
            await page.goto(f"{url}/{query}")
            if seed is not None:
                await settle(page, 1.0)
                await page.fill("#seed", str(seed))
                await page.press("#seed", "Enter")
                await page.evaluate("document.activeElement.blur()")
            print(f"{name}: {seconds:g} s of stream first", flush=True)
            await settle(page, seconds)
            await page.screenshot(path=out / f"{name}.png")
            await page.close()
        await browser.close()


async def run(given: argparse.Namespace) -> None:
    if given.url is not None:
        await take(given.url, given.chromium, given.out, given.query, given.seconds, given.seed)
        return
    port = free_port()
    command = [sys.executable, "-m", "realtime", "serve", "--model", given.model]
    async with Process(*command, "--port", str(port), port=port) as server:
        await take(server.url, given.chromium, given.out, given.query, given.seconds, given.seed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench/screenshot.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="FOLDER")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, help="type this seed into the page first")
    parser.add_argument("--url", help="of a server that runs already, instead of starting one")
    parser.add_argument("--query", default="", help="e.g. '?codec=VP8'")
    parser.add_argument("--seconds", type=float, default=19.0, help="of stream before each")
    parser.add_argument("--chromium", help="path; else chromium or google-chrome on PATH")
    given = parser.parse_args(argv)
    if not SETTLED_S <= given.seconds <= 19:
        parser.error(f"--seconds is {given.seconds:g}; choose {SETTLED_S:g} to 19.")
    given.chromium = given.chromium or shutil.which("chromium") or shutil.which("google-chrome")
    if given.chromium is None:
        print(no_chromium(), file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(given))
    print(f"written: {', '.join(str(given.out / f'{name}.png') for name in SHOTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
