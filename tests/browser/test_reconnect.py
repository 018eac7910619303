"""The server dies and comes back; the page says so, and goes on by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.conftest import Opener, ServerProcess

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# What the browser itself prints for a request that nobody answers, or that the new server refuses.
REFUSED = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "404", "ERR_INCOMPLETE")


async def test_it_comes_back_by_itself_with_its_values(
    open_tab: Opener, server: ServerProcess
) -> None:
    tab = await open_tab()
    tab.expected = REFUSED
    await tab.page.evaluate("window.notReloaded = true")
    await tab.page.fill("#seed", "77")
    await tab.page.keyboard.press("Enter")
    await tab.page.focus("#control-psi")
    await tab.page.keyboard.press("End")
    await tab.until("s.controls.seed === 77 && s.controls.psi === 2", "the values are not taken")
    old_session = await tab.state("session")

    await asyncio.to_thread(server.kill)
    await tab.until("s.phase === 'waiting' && /does not answer/.test(s.problem)", "no sentence")
    sentence = await tab.page.inner_text("#problem")
    assert "start it again" in sentence and "reconnects by itself" in sentence
    assert await tab.page.is_visible("#retry")
    assert await tab.page.inner_text("#status-text") == "Reconnecting"
    assert await tab.page.is_visible("#still"), "the last picture is not kept"
    assert await tab.page.is_disabled("#control-psi")

    await asyncio.to_thread(server.start)
    await tab.until("s.phase === 'live' && s.connects === 2", "it does not come back")
    frames = await tab.state("frames")
    await tab.until(f"s.frames > {frames} + 10", "no pictures after it came back")
    assert await tab.page.evaluate("window.notReloaded")
    assert await tab.state("session") != old_session
    await tab.until("s.controls.seed === 77 && s.controls.psi === 2", "the values are lost")
    controls = (await server.session(await tab.state("session")))["controls"]
    assert (controls["seed"], controls["psi"]) == (77, 2)
    assert await tab.page.is_hidden("#overlay") and await tab.page.is_hidden("#still")
    await tab.until("s.latency.count > 10", "latency is not measured any more")


async def test_an_orderly_stop_is_told_at_once(open_tab: Opener, server: ServerProcess) -> None:
    tab = await open_tab()
    tab.expected = REFUSED
    await asyncio.to_thread(server.stop)
    await tab.until("s.phase === 'waiting' && s.problem.endsWith('.')", "no sentence")
    await asyncio.to_thread(server.start)
    await tab.page.click("#retry")
    await tab.until("s.phase === 'live' && s.connects === 2", "it does not come back")
