"""Record a clip with the library: who is seen, how they move, frame by frame into an MP4.

Run it from anywhere: python examples/clip_to_file.py --out clip.mp4
"""

import argparse
import asyncio
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from realtime.config import RenderConfig
from realtime.engine import resolve
from realtime.record import RecordConfig, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clip.mp4"))
    parser.add_argument("--model", default="default", help="a shipped model, or a checkpoint")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--resolution", type=int, default=256)
    given = parser.parse_args()

    config = RecordConfig(
        out=given.out,
        seconds=given.seconds,
        seed=given.seed,
        resolution=given.resolution,
        render=RenderConfig(model=resolve(given.model)),
    )
    done = asyncio.run(record(config))
    weights = "trained" if done.model.trained else "seeded, not trained"
    print(f"{done.path}: {done.frames} frames of {done.model.name} ({weights})")


if __name__ == "__main__":
    main()
