"""bench/screenshot.py: no picture of figures that still show how the stream began."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from bench import screenshot

if TYPE_CHECKING:
    from tests.browser.conftest import Opener

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_it_waits_for_so_much_stream(
    open_tab: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    tab = await open_tab(wait=False)
    await screenshot.settle(tab.page, 2.0)
    assert time.monotonic() - begun >= 2
    assert await tab.page.evaluate(screenshot.STREAMED_S) >= 2
    monkeypatch.setattr(screenshot, "PATIENCE_S", -9.0)
    with pytest.raises(SystemExit, match="of stream, not 10"):
        await screenshot.settle(tab.page, 10.0)


@pytest.mark.parametrize("seconds", ("3", "21"))
async def test_too_short_or_too_long_a_wait_is_refused(seconds: str) -> None:
    with pytest.raises(SystemExit):
        screenshot.main(["--seconds", seconds, "--chromium", "unused"])
