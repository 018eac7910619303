"""The pictures of the page in docs/images: the real server, a real Chromium, nothing arranged.

    python bench/screenshot.py --out docs/images            page-desktop.png and page-phone.png

Each is taken once the latency plot is full (20 s of stream), at 1280x800 and at 390x844 points.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.latency_viewers import FLAGS, Process, free_port, no_chromium

SHOTS = {  # name: width, height, device pixels per point, touch
    "page-desktop": (1280, 800, 1.5, False),
    "page-phone": (390, 844, 2, True),
}


async def take(url: str, chromium: str, out: Path, query: str, seconds: float) -> None:
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
            for _ in range(300):
                if await page.evaluate("window.stylewire?.latency.count > 10"):
                    break
                await page.wait_for_timeout(100)
            else:
                raise SystemExit("the page shows no stream within 30 s; open it in a browser.")
            print(f"{name}: {seconds:g} s of stream first", flush=True)
            await page.wait_for_timeout(1000 * seconds)
            await page.screenshot(path=out / f"{name}.png")
            await page.close()
        await browser.close()


async def run(given: argparse.Namespace) -> None:
    if given.url is not None:
        await take(given.url, given.chromium, given.out, given.query, given.seconds)
        return
    port = free_port()
    command = [sys.executable, "-m", "realtime", "serve", "--model", given.model]
    async with Process(*command, "--port", str(port), port=port) as server:
        await take(server.url, given.chromium, given.out, given.query, given.seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench/screenshot.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="FOLDER")
    parser.add_argument("--model", default="default")
    parser.add_argument("--url", help="of a server that runs already, instead of starting one")
    parser.add_argument("--query", default="", help="e.g. '?codec=VP8'")
    parser.add_argument("--seconds", type=float, default=21.0, help="of stream before each")
    parser.add_argument("--chromium", help="path; else chromium or google-chrome on PATH")
    given = parser.parse_args(argv)
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
