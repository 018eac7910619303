"""StyleGAN-V's motion as an endless stream: any time, any order, any rate, in bounded memory.

A frame at time t (frames of the training data) needs the noise codes L .. L + 2K - 1 only, with
L = floor(t / d). Noise comes from a generator keyed by (seed, code), so a segment of d frames is a
pure function of (seed, L): it is computed once (`segments.py`), and then each frame costs 2 n
sines. Play, seek and reverse play share the routine, so they agree bit for bit.

While one segment plays, the next one is worked off a few stages per frame, so that no frame pays
for a whole segment.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contracts import MotionCode
from models.errors import BadConfig
from models.noise import Domain, normals
from models.stylegan_v.segments import NoiseSource, Segment, SegmentEncoder, Stages

__all__ = ["NoiseSource", "SegmentEncoder", "StreamedMotion", "given_codes"]

_KEPT_SEGMENTS = 3
_LEAST_STEP = 1e-3  # training frames between two samples; slower play is not planned more finely


class StreamedMotion:
    """Motion source with codes `v` [1, 2 * frequencies].

    Args:
        encoder: The generator's weights for segments.
        fps: Frames per second of the training data.
        seed: 0 .. 2^64 - 1.
        label: [1, c_dim]; None if the encoder is unconditional.
        noise: Given noise codes in place of keyed ones, e.g. `given_codes(motion_z)`.
    Raises:
        BadConfig: The seed is out of range, or the label does not fit the encoder.
    """

    def __init__(
        self,
        encoder: SegmentEncoder,
        *,
        fps: float,
        seed: int = 0,
        label: Tensor | None = None,
        noise: NoiseSource | None = None,
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
        self.seed, self.fps = seed, float(fps)
        self._encoder = encoder
        self._label = encoder.label(label)
        self._distance = encoder.config.distance
        self._noise = noise or self._keyed
        self._endless = noise is None
        self._segments: OrderedDict[int, Segment] = OrderedDict()
        self._ahead: tuple[int, Stages] | None = None  # the segment being prepared
        self._stages_left = 0
        self._last: float | None = None  # frames

    def sample(self, t: float) -> MotionCode:
        """Motion code at time `t`.

        Args:
            t: Seconds, in any order, negative and fractional too.
        Returns:
            `v`: [1, 2 * frequencies] float32 on the CPU; it is small, and whoever draws moves it.
        Raises:
            BadConfig: `t` is not finite.
        Source: Skorokhodov et al., StyleGAN-V (CVPR 2022), Sec. 3.1.
        """
        frames = float(t) * self.fps
        if not math.isfinite(frames):
            raise BadConfig(f"t is {t} s; it must be finite")
        # Of a tiny negative time the remainder is rounded up to the distance: the segment's right
        # end, which is as good a place as the next one's left end.
        whole, tau = divmod(frames, self._distance)
        index = int(whole)
        v = self._segment(index).at(tau)
        self._prepare(index, tau, frames)
        return MotionCode({"v": torch.from_numpy(v)}, t)

    def _segment(self, index: int) -> Segment:
        segment = self._segments.get(index)
        if segment is not None:
            self._segments.move_to_end(index)
            return segment
        if self._ahead is not None and self._ahead[0] == index:
            stages = self._ahead[1]
            self._ahead = None
        else:
            stages = self._encoder.run(index, self._noise, self._label)
        while True:
            try:
                next(stages)
            except StopIteration as done:
                return self._keep(index, done.value)

    def _prepare(self, index: int, tau: float, frames: float) -> None:
        """Works off a share of the stages of the segment that play is heading for."""
        step = 0.0 if self._last is None else frames - self._last
        self._last = frames
        # Paused; or jumping, so that there is no next one; or given codes, which may end here.
        if step == 0.0 or abs(step) > self._distance or not self._endless:
            return
        target = index + (1 if step > 0 else -1)
        if target in self._segments:
            return
        if self._ahead is None or self._ahead[0] != target:
            self._ahead = (target, self._encoder.run(target, self._noise, self._label))
            self._stages_left = self._encoder.stages
        frames_left = (self._distance - tau if step > 0 else tau) / max(abs(step), _LEAST_STEP)
        for _ in range(math.ceil(self._stages_left / max(1, math.floor(frames_left)))):
            self._stages_left -= 1
            try:
                next(self._ahead[1])
            except StopIteration as done:
                self._ahead = None
                self._keep(target, done.value)
                return

    def _keep(self, index: int, segment: Segment) -> Segment:
        self._segments[index] = segment
        if len(self._segments) > _KEPT_SEGMENTS:
            self._segments.popitem(last=False)
        return segment

    def _keyed(self, first: int, count: int) -> npt.NDArray[np.float32]:
        size = self._encoder.config.z_dim
        return normals(self.seed, first, count, size, domain=Domain.STYLEGAN_V_MOTION)


def given_codes(motion_z: Tensor) -> NoiseSource:
    """Noise codes of a tensor [n, z_dim]: for parity tests, and for one clip's motion on another.

    The source raises `BadConfig` where a time needs a code that is not there.
    """
    codes = motion_z.detach().to("cpu", torch.float32).numpy()

    def source(first: int, count: int) -> npt.NDArray[np.float32]:
        if first < 0 or first + count > len(codes):
            raise BadConfig(
                f"codes {first} .. {first + count - 1} are needed, {len(codes)} were given;"
                " give more noise or ask for an earlier time"
            )
        return codes[first : first + count]

    return source
