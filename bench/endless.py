"""A million frames of simulated streaming: does anything drift, grow, or depend on the way here?

    python bench/endless.py                        a million frames, ten minutes
    python bench/endless.py --frames 20000 --json out.json

The server's own clock ticks (30 a second, without waiting), its own timeline turns presentation
into motion time, at speeds that change between 1, -1 and 3.7, and the motion is sampled for each
tick: that of a face's tracks and that of published StyleGAN-V. Checked are

- ticks: their times are index / rate exactly, to the last one;
- random access: at every 5000th frame the code of a fresh source at that time is equal bit for bit,
  and so are the pictures drawn of the two by a packed network;
- memory: the process has grown by less than 4 MB since its first 10,000 frames;
- drift: mean and spread of the head's pose are in the last tenth what they are in the first, within
  five standard errors.

Nothing is timed but the whole. Motion does not depend on what a network has learned, so where no
trained model of faces ships, one with random weights serves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

FPS = 30
SPEEDS = (1.0, -1.0, 3.7)
STRETCHES = 12  # of one speed each
DRAWN_EVERY = 5000
SETTLED = 10_000  # frames after which the process has all it needs
MOST_GROWTH_MB = 4.0
MOST_ERRORS = 5.0  # standard errors between two stretches of one motion
KNOT_S = 2.1  # between independent values of the slowest part of a pose


@dataclass
class Stream:
    """One model's motion, played."""

    name: str
    system: Any
    seed: int
    source: Any = None
    executor: Any = None
    who: Any = None
    compared: int = 0
    differing: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        import torch

        from models.fused import pack

        self.source = self.system.motion(seed=self.seed)
        self.who = self.system.identity(seed=self.seed, psi=0.7)
        packed = pack(self.system.synthesizer, torch.device("cpu"), torch.float32)
        self.executor = packed.executor()

    def compare(self, index: int, code: Any) -> None:
        """This frame by a source that has seen no other, code and picture."""
        import torch

        again = self.system.motion(seed=self.seed).sample(code.t)
        same = all(torch.equal(value, again.tensors[key]) for key, value in code.tensors.items())
        if not (same and np.array_equal(self._drawn(code), self._drawn(again))):
            self.differing.append(index)
        self.compared += 1

    def _drawn(self, code: Any) -> np.ndarray:
        import torch

        side = self.executor.resolution
        out = torch.empty(1, side, side, 3)
        self.executor.put(0, self.who, code)
        self.executor.draw(out)
        return out.numpy()


def streams(seed: int) -> list[Stream]:
    """The motion of faces, and the published one."""
    from models import registry

    names = registry.names()
    face = registry.load_model("visage") if "visage" in names else unlearned_face()
    return [Stream("tracks", face, seed), Stream("published", registry.load_model("tide"), seed)]


def unlearned_face() -> Any:
    """The embedded model of faces, with random weights."""
    import torch

    from models import registry
    from models.checkpoint import Checkpoint
    from models.presets import VISAGE
    from models.stylegan_v.networks import Generator

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = Generator(**VISAGE).state_dict()
    return registry.build(Checkpoint("stylegan_v", VISAGE, state, {"trained": False}))


def resident_mb() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def play(frames: int, seed: int, progress: Any = None) -> dict[str, Any]:
    """Plays it all and says what was found.

    Args:
        progress: Called with the number of frames so far, now and then.
    """
    from realtime.clock import FrameClock
    from realtime.timeline import MotionTimeline

    playing = streams(seed)
    clock, timeline = FrameClock(FPS, 0), MotionTimeline(speed=SPEEDS[0])
    poses = np.empty((frames, 3), np.float32)
    times = np.empty(frames)
    wrong_ticks, before, now_ns, started = 0, math.nan, 0, time.monotonic()
    for index in range(frames):
        tick = clock.next_tick(now_ns)
        now_ns = tick.deadline_ns
        wrong_ticks += tick.index != index or tick.t != float(Fraction(index, FPS))
        if index and index % max(frames // STRETCHES, 1) == 0:
            speed = SPEEDS[index // max(frames // STRETCHES, 1) % len(SPEEDS)]
            timeline.set_speed(speed, tick.t)
        times[index] = timeline.at(tick.t)
        for stream in playing:
            code = stream.source.sample(float(times[index]))
            if stream.name == "tracks":
                poses[index] = code.tensors["v"][0, :3]
            if index % DRAWN_EVERY == 0:
                stream.compare(index, code)
        if index + 1 == min(SETTLED, frames // 2):
            before = resident_mb()
        if progress is not None and index % DRAWN_EVERY == 0:
            progress(index)
    return {
        "frames": frames,
        "seconds": round(time.monotonic() - started, 1),
        "wrong_ticks": wrong_ticks,
        "compared": {stream.name: stream.compared for stream in playing},
        "differing": {stream.name: stream.differing for stream in playing},
        "growth_mb": round(resident_mb() - before, 2),
        "errors": round(apart(poses, times), 2),
        "motion_s": [round(float(times.min()), 1), round(float(times.max()), 1)],
    }


def apart(poses: np.ndarray, times: np.ndarray) -> float:
    """How many standard errors the poses of the first and the last tenth are apart, at most, in
    mean and in spread.
    """
    tenth = len(poses) // 10
    parts = []
    for where in (slice(0, tenth), slice(-tenth, None)):
        seen = poses[where].astype(np.float64)
        # As many independent values as there are knots in the motion time that went by.
        count = max(np.ptp(times[where]) / KNOT_S, 1.0)
        parts.append((seen.mean(0), seen.std(0), count))
    (mean_a, sd_a, count_a), (mean_b, sd_b, count_b) = parts
    spread = np.sqrt((sd_a**2 + sd_b**2) / 2)
    error = spread * math.sqrt(1 / count_a + 1 / count_b)
    return float(max((abs(mean_a - mean_b) / error).max(), (abs(sd_a - sd_b) / error).max()))


def faults(found: dict[str, Any]) -> list[str]:
    """What is not as it should be, in words."""
    wrong = []
    if found["wrong_ticks"]:
        wrong.append(f"{found['wrong_ticks']} ticks were not at index / {FPS}")
    for name, indices in found["differing"].items():
        if indices:
            wrong.append(
                f"{name}: {len(indices)} frames differ from a fresh source's: {indices[:5]}"
            )
    if not found["growth_mb"] < MOST_GROWTH_MB:
        wrong.append(f"the process grew by {found['growth_mb']} MB; {MOST_GROWTH_MB} may be")
    if not found["errors"] < MOST_ERRORS:
        wrong.append(f"the pose has moved by {found['errors']} standard errors")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/endless.py", description=__doc__.split("\n")[0])
    p.add_argument("--frames", type=int, default=1_000_000, help="how many; 1000 or more")
    p.add_argument("--seed", type=int, default=3, help="of people and motion")
    p.add_argument("--json", metavar="FILE", help="write what was found here as well")
    args = p.parse_args(argv)
    if args.frames < 1000:
        p.error(f"--frames is {args.frames}; 1000 or more are needed")

    def progress(index: int) -> None:
        if index % (20 * DRAWN_EVERY) == 0:
            print(f"{index:9,d} of {args.frames:,d} frames", file=sys.stderr, flush=True)

    found = play(args.frames, args.seed, progress)
    wrong = faults(found)
    print(
        f"{found['frames']:,d} frames at {FPS} a second ({found['frames'] / FPS / 3600:.1f} hours,"
        f" motion from {found['motion_s'][0]:,.0f} s to {found['motion_s'][1]:,.0f} s) in"
        f" {found['seconds']:,.0f} s"
    )
    compared = ", ".join(f"{count} of {name}" for name, count in found["compared"].items())
    print(f"compared with fresh sources, code and picture: {compared}")
    print(
        f"memory grew by {found['growth_mb']} MB; pose moved by {found['errors']} standard errors"
    )
    for sentence in wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    if args.json:
        Path(args.json).write_text(json.dumps({**found, "faults": wrong}, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
