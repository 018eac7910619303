"""A sink that shows nobody anything: for benchmarks of the loop before it."""

from __future__ import annotations

from realtime.frame import Frame


class NullSink:
    """Counts frames and keeps the last one's stamps."""

    def __init__(self) -> None:
        self.frames = 0
        self.late = 0
        self.stamps: dict[str, int] = {}

    def offer(self, frame: Frame) -> None:
        self.frames += 1
        self.late += frame.late
        self.stamps = frame.stamps

    async def aclose(self) -> None:
        """Nothing to end."""
