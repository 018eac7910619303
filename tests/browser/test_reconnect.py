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

DAYS_MS = 1e9
# The first server's clock has run for days more, as on a machine that is then restarted.
OTHER_CLOCK = """{
  const whole = RTCPeerConnection.prototype.createDataChannel;
  let connections = 0;
  RTCPeerConnection.prototype.createDataChannel = function (...args) {
    const channel = whole.apply(this, args);
    const more = connections++ ? 0 : 1e9;
    Object.defineProperty(channel, 'onmessage', {
      set: (heard) => channel.addEventListener('message', ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === 'pong' && more) {
          message.server_ms += more;
          message.t = performance.now() - 0.01; // the shortest trips, so the ones that are believed
        }
        for (const row of message.rows ?? []) for (let at = 2; at < 7; at++) row[at] += more;
        heard({ data: JSON.stringify(message) });
      }),
    });
    return channel;
  };
}"""


async def test_it_comes_back_by_itself_with_its_values(
    open_tab: Opener, server: ServerProcess
) -> None:
    tab = await open_tab(script=OTHER_CLOCK)
    tab.expected = REFUSED
    await tab.until("s.latency.count > 30", "latency is not measured")
    assert (await tab.state("latency"))["p50"] < 2000
    old_offset = await tab.state("clockOffsetMs")
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
    assert await tab.state("clockOffsetMs") == pytest.approx(old_offset - DAYS_MS, abs=500)
    assert 0 < (await tab.state("latency"))["p50"] < 2000


async def test_an_orderly_stop_is_told_at_once(open_tab: Opener, server: ServerProcess) -> None:
    """Also to one who came by a link: the shared stream is gone, and the page says so."""
    tab = await open_tab()
    guest = await open_tab(f"?session={await tab.state('session')}")
    tab.expected = guest.expected = REFUSED
    await guest.page.keyboard.press("n")
    await tab.until("s.controls.seed === 1", "they do not share a stream")
    await asyncio.to_thread(server.stop)
    await tab.until("s.phase === 'waiting' && s.problem.endsWith('.')", "no sentence")
    await asyncio.to_thread(server.start)
    await tab.page.click("#retry")
    await tab.until("s.phase === 'live' && s.connects === 2", "it does not come back")
    assert await tab.state("notice") == "Connected again."
    await guest.until("s.phase === 'live' && s.connects === 2", "the guest does not come back")
    assert "a stream of your own" in await guest.state("notice")
    assert await guest.page.is_visible("#notice")
    assert await guest.state("session") != await tab.state("session")
    assert "session=" not in guest.page.url
    await guest.until("s.controls.seed === 1", "the look of the shared stream is lost")
