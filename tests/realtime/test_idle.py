"""A process that draws with several threads and has nothing to draw costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
from realtime.__main__ import let_threads_sleep
let_threads_sleep()
import asyncio, time
import torch
from realtime.config import RenderConfig
from realtime.engine import Engine
from realtime.messages import Look, RenderRequest, Tick

async def main():
    async with Engine(RenderConfig(model="aurora", device="cpu", threads=2)) as engine:
        await engine.load("aurora", 256)
        await engine.open("a", 256)
        look = Look(model="aurora", resolution=256)
        for k in range(5):
            ask = RenderRequest("a", Tick(k, k / 30, 3000 * k, time.monotonic_ns()), look, k / 30)
            (await engine.render(ask)).release()
        burnt = time.process_time()
        time.sleep(1.0)  # the event loop rests too
        print("burnt", time.process_time() - burnt)

asyncio.run(main())
"""


def test_threads_that_wait_for_the_next_frame_sleep():
    told = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=told,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    burnt = float(done.stdout.split("burnt")[1])
    assert burnt < 0.05, f"{burnt:.3f} s of CPU time in a second without a frame"
