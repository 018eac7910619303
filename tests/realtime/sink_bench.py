"""A browser sink under test: frames to offer, viewers that pull, an encoder to interfere with."""

import asyncio
import contextlib
import threading
import time

import av

from realtime import barcode
from realtime.config import StreamConfig
from realtime.frame import FramePool
from realtime.messages import Tick
from realtime.sinks.webrtc import WebRtcSink
from realtime.test_card import TestCard

DECODERS = {"H264": "h264", "VP8": "vp8"}
SIZE, FPS = 128, 30
PATIENCE_S = 20.0  # a bound for a hung test on a busy machine, not an expectation


class Bench:
    """A sink, frames to offer, and what it published."""

    def __init__(self, size=SIZE, slots=4, **stream):
        self.pool = FramePool(size, size, slots)
        self.card = TestCard(size)
        self.index, self.fps, self.pts = 0, FPS, 0
        self.published = []
        self._news = asyncio.Event()
        self.sink = WebRtcSink(
            StreamConfig(**{"resolution": size, "bitrate": 1_000_000, **stream}),
            on_stats=self._on_stats,
        )

    def _on_stats(self, codec, coded):
        self.published.append((codec, coded))
        self._news.set()

    def frame(self):
        tick = Tick(self.index, self.pts / 90_000, self.pts, 0)
        frame = self.pool.acquire(tick)
        assert frame is not None, "the sink keeps frames"
        self.card.draw(tick.t, frame.i420)
        barcode.stamp(frame.planes[0], tick.index)
        frame.stamps.update(due=0, sampled=1, rendered=time.monotonic_ns())
        self.index += 1
        self.pts += round(90_000 / self.fps)
        return frame

    def offer(self):
        frame = self.frame()
        try:
            self.sink.offer(frame)
        finally:
            frame.release()
        return frame.tick.index

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.05):  # some conditions come without news
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def show(self, count=1, codecs=1):
        """Offer `count` frames, each after the one before was published. Returns their indices."""
        shown = []
        for _ in range(count):
            before = len(self.published)
            shown.append(self.offer())
            await self.until(lambda before=before: len(self.published) >= before + codecs)
        return shown


@contextlib.asynccontextmanager
async def benches():
    """Yields a maker of benches; at the end all are closed, and nothing may be left of them."""
    made = []

    def make(*args, **settings):
        made.append(Bench(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.sink.aclose()
        assert one.pool.free == one.pool.slots  # every frame came back
    assert not [t for t in threading.enumerate() if t.name.startswith("encode ")]


class Viewer:
    """Pulls a track as a sender does and decodes what comes."""

    def __init__(self, sink, codec="H264"):
        self.track = sink.subscribe(codec)
        self._decoder = av.CodecContext.create(DECODERS[codec], "r")
        self.packets, self.numbers, self.sizes = [], [], []

    async def pull(self):
        packet = await self.track.recv()
        self.packets.append(packet)
        for frame in self._decoder.decode(packet):
            luma = frame.to_ndarray()[: frame.height]
            self.numbers.append(barcode.read(luma))
            self.sizes.append((frame.width, frame.height))

    async def join(self, bench):
        """The first pull: its transport is up. Returns with its first picture."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            pull = group.create_task(self.pull())
            while not pull.done():
                await asyncio.sleep(0.01)
                if not pull.done():
                    await bench.show()

    async def drain(self):
        while self.track.waiting:
            await self.pull()


class Spied:
    """A real encoder that can be held up or made to fail."""

    def __init__(self, real):
        self.real, self.gate, self.failures, self.reopened = real, threading.Event(), [], 0
        self.opened = (real.width, real.height)
        self.gate.set()
        self.entered = threading.Event()

    def encode(self, *args, **settings):
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.failures and (error := self.failures.pop(0)) is not None:
            raise error
        return self.real.encode(*args, **settings)

    def reopen(self):
        self.reopened += 1
        self.real.reopen()

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        if name in ("fps", "bitrate", "ceiling"):
            setattr(self.real, name, value)
        else:
            object.__setattr__(self, name, value)
