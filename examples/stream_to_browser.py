"""Serve a model to a browser: a shipped one, or a system of your own, live and with controls.

Run it from anywhere: python examples/stream_to_browser.py --model rings
"""

import argparse
import asyncio
import math
import sys
from contextlib import closing, suppress
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from your_own_system import Rings  # beside this file

from realtime.config import RenderConfig, ServerConfig
from realtime.engine import Engine, resolve
from realtime.server import running
from realtime.signaling import bind, listening


def engine_of(config: RenderConfig) -> Engine:
    if config.model == "rings":  # anything that keeps models.contracts.System
        return Engine(config, load=lambda name: Rings(), names=["rings"])
    return Engine(config)


async def main(model: str, port: int, seconds: float) -> None:
    backend = "eager" if model == "rings" else "auto"  # the plain forward: nothing fuses it
    render = RenderConfig(model=resolve(model), backend=backend)
    config = ServerConfig(port=port, render=render)
    with closing(bind(config.host, config.port)) as sock:  # a taken port is told before loading
        async with engine_of(config.render) as engine:
            await engine.load(config.render.model, config.stream.resolution)
            async with running(config, engine) as server, listening(server, sock) as url:
                print(f"Watch {config.render.model} at {url} and end with Ctrl-C", flush=True)
                await asyncio.sleep(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a shipped model, or rings")
    parser.add_argument("--port", type=int, default=8080, help="0: any free one")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end by itself")
    given = parser.parse_args()
    with suppress(KeyboardInterrupt):  # sessions and the engine have ended in order by then
        asyncio.run(main(given.model, given.port, given.seconds))
