"""No session ever shows another's pixels. The test card carries a colour for each seed."""

import asyncio

import numpy as np
import pytest
from peers import Client, config, served

from realtime.test_card import colour_in, colour_of

SEEDS = (0, 1, 2, 3)
NEAR = 30.0  # distance in U and V that coding may cost; neighbouring seeds are 90 and more apart


def distance(picture: np.ndarray, seed: int) -> float:
    _, u, v = colour_in(picture)
    _, wanted_u, wanted_v = colour_of(seed)
    return float(np.hypot(u - wanted_u, v - wanted_v))


def shows(picture: np.ndarray) -> int:
    """The seed whose colour is nearest, which must be near."""
    nearest = min(SEEDS, key=lambda seed: distance(picture, seed))
    assert distance(picture, nearest) < NEAR, [distance(picture, seed) for seed in SEEDS]
    return nearest


class Watcher(Client):
    """Notes the seed that each decoded picture shows."""

    def __init__(self, served) -> None:
        super().__init__(served)
        self.seen: list[int] = []

    async def _watch(self, track) -> None:
        while True:
            frame = await track.recv()
            self.picture = frame.to_ndarray(format="yuv420p")
            self.seen.append(shows(self.picture))
            self.frames += 1
            self._news.set()


def test_the_colours_of_the_seeds_lie_apart() -> None:
    colours = [np.array(colour_of(seed)[1:]) for seed in SEEDS]
    for i, one in enumerate(colours):
        for other in colours[i + 1 :]:
            assert np.linalg.norm(one - other) > 2 * NEAR


def test_a_foreign_colour_would_be_noticed() -> None:
    picture = np.empty((192, 128), np.uint8)
    from realtime.test_card import TestCard

    TestCard(128).draw(1.0, picture, seed=2)
    assert shows(picture) == 2


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_sessions_side_by_side_show_their_own_pixels(codec: str) -> None:
    """Four sessions of one size, two viewers in one of them: each frame of each is its own."""
    async with served(config({"resolution": 128, "fps": 15})) as s:
        watchers = [Watcher(s) for _ in range(len(SEEDS) + 1)]
        try:
            for seed, watcher in zip(SEEDS, watchers, strict=False):
                await watcher.connect(codec=codec, controls={"seed": seed})
            await watchers[-1].connect(codec=codec, session=watchers[0].answer["session"])
            await asyncio.gather(
                *(w.until(lambda w=w: len(w.seen) >= 30 or _failed(w)) for w in watchers)
            )
        finally:
            for watcher in watchers:
                await watcher.close()
        assert len({watcher.answer["session"] for watcher in watchers}) == len(SEEDS)
    for seed, watcher in zip((*SEEDS, SEEDS[0]), watchers, strict=True):
        assert set(watcher.seen) == {seed}


def _failed(watcher: Watcher) -> bool:
    if watcher._watching is not None and watcher._watching.done():
        watcher._watching.result()
    return False


async def test_a_change_in_one_session_does_not_show_in_another() -> None:
    async with (
        served(config({"resolution": 128, "fps": 15})) as s,
        Watcher(s) as first,
        Watcher(s) as second,
    ):
        await first.connect(controls={"seed": 0})
        await second.connect(controls={"seed": 1})
        await first.message("hello")
        await first.until(lambda: len(first.seen) > 5)
        first.send(type="set", seed=2)
        await first.until(lambda: first.seen[-1] == 2 or _failed(first))
        first.send(type="set", resolution=64)
        await first.until(lambda: first.picture.shape == (96, 64) or _failed(first))
        count, frames = len(first.seen), len(second.seen)
        await first.until(lambda: len(first.seen) > count + 5 or _failed(first))
        await second.until(lambda: len(second.seen) > frames + 15 or _failed(second))
        assert set(second.seen) == {1}
        assert set(first.seen) == {0, 2}


async def test_a_foreign_picture_fails_its_watcher_also_when_nobody_looks() -> None:
    class Wrong(Watcher):
        async def _watch(self, track) -> None:
            await track.recv()
            raise AssertionError("a foreign picture")

    async with served(config({"resolution": 128, "fps": 15})) as s:
        client = await Wrong(s).connect()
        await client.until(lambda: client._watching is not None and client._watching.done())
        with pytest.raises(AssertionError, match="foreign"):
            await client.close()
