"""Train with the library: made-up clips, the smallest configuration, and a frame of the result.

Run it from anywhere: python examples/train_tiny.py --out tiny-run --steps 40
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from models.__main__ import main as stylewire
from models.training.config import load


def make_clips(root: Path, videos: int = 6, frames: int = 32) -> None:
    """Discs that swing, each with a colour and a beat of its own: a folder of frames per video."""
    for video in range(videos):
        folder = root / f"disc-{video}"
        folder.mkdir(parents=True, exist_ok=True)
        colour = np.random.default_rng(video).integers(80, 256, 3).tolist()
        for n in range(frames):
            picture = np.full((16, 16, 3), 30, np.uint8)
            cv2.circle(picture, (8, int(8 + 4 * np.sin(n / 4 + video))), 3, colour, -1)
            cv2.imwrite(str(folder / f"{n:04d}.png"), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tiny-run"))
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()

    make_clips(given.out / "clips")
    config = load("tiny")
    changes = {
        "data.source": given.out / "clips",
        "run.total_kimg": given.steps * config.images_per_step / 1000,
    }
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    run = given.out / "run"
    # The same as `stylewire train tiny --run-dir ... --resume`; a second call trains on.
    status = stylewire(["train", "tiny", "--run-dir", str(run), "--resume", *sets])
    if status == 0:
        newest = max(run.glob("model-0*.json"))
        stylewire(["sample", "--model", str(newest), "--out", str(given.out / "sample.png")])
    sys.exit(status)


if __name__ == "__main__":
    main()
