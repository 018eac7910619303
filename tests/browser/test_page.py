"""The page in a real Chromium, over a real server: pictures, figures, controls, layout."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.conftest import Opener, ServerProcess, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

PHONE = {"width": 390, "height": 844}
WHY = "cpu: fused kernels on the CPU in bf16; not cuda-graph or triton: torch finds no CUDA device"
# A few pixels of what is shown, as numbers.
PIXELS = """() => {
  const canvas = new OffscreenCanvas(32, 32);
  const context = canvas.getContext('2d');
  context.drawImage(document.getElementById('video'), 0, 0, 32, 32);
  return [...context.getImageData(0, 0, 32, 32).data];
}"""


def difference(one: list[int], other: list[int]) -> float:
    """Mean absolute difference of two pictures' pixels, 0..255."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


async def test_the_picture_moves_and_its_numbers_rise(open_tab: Opener) -> None:
    tab = await open_tab("?barcode=1")
    await tab.until("s.barcodes > 5", "no number was read")
    first, number = await tab.page.evaluate(PIXELS), await tab.state("barcode")
    await tab.until(f"s.barcode > {number} + 15", "the numbers do not rise")
    assert difference(first, await tab.page.evaluate(PIXELS)) > 2


async def test_latency_is_measured_and_its_stages_add_up(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.until("s.latency.count > 30", "no frame was matched with the server's stamps")
    latency = await tab.state("latency")
    assert 0 < latency["p50"] <= latency["p95"] < 2000
    samples = await tab.state("samples")
    assert len(samples) > 30
    for sample in samples:
        stages = [sample[name] for name in ("render", "encode", "network", "show")]
        assert sum(stages) == pytest.approx(sample["total"], abs=1e-6), sample
        # Within one clock time cannot run backwards; across two it may by their offset's error.
        render, encode, network, show = stages
        assert render > 0 and encode > 0 and show > 0 and network > -5, sample
    assert await tab.state("frameAgeMs") > latency["p50"]
    await tab.until("s.fps > 5", "no frame rate")
    for name in ("f-glass", "f-age", "f-fps", "f-ontime", "f-bitrate"):
        text = f"document.getElementById('{name}').textContent"
        await tab.until(f"/[0-9]/.test({text})", f"{name} shows no figure")
    assert len(await tab.page.inner_text("#bottleneck")) > 10


@pytest.mark.parametrize(
    "without",
    (
        "delete HTMLVideoElement.prototype.requestVideoFrameCallback",
        """{
          const whole = HTMLVideoElement.prototype.requestVideoFrameCallback;
          HTMLVideoElement.prototype.requestVideoFrameCallback = function (callback) {
            return whole.call(this, (now, { rtpTimestamp, ...rest }) => callback(now, rest));
          };
        }""",
    ),
    ids=("no frame callback", "no rtpTimestamp"),
)
async def test_a_browser_that_cannot_measure_says_so(open_tab: Opener, without: str) -> None:
    tab = await open_tab(wait=False, script=without)
    await tab.until("s.phase === 'live' && s.width > 0", "no picture without measuring")
    words = "document.getElementById('f-glass').textContent === 'not measured by this browser'"
    await tab.until(words, "it does not say that it cannot measure")
    assert await tab.page.is_hidden("#overlay")


async def test_the_plot_is_drawn(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.until("s.latency.count > 30", "no latency to plot")
    coloured = """() => {
      const canvas = document.getElementById('plot');
      const copy = new OffscreenCanvas(canvas.width, canvas.height);
      const context = copy.getContext('2d', { willReadFrequently: true });
      context.drawImage(canvas, 0, 0);
      const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 200) seen.add([data[i], data[i + 1], data[i + 2]].join());
      }
      return ['--render', '--encode', '--network', '--show'].filter((name) => {
        const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        return seen.has([1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join());
      });
    }"""
    end = asyncio.get_running_loop().time() + 20
    stages: list[str] = []
    while len(stages) < 3 and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.2)
        stages = await tab.page.evaluate(coloured)
    assert len(stages) >= 3, f"only {stages} are drawn"


async def test_thumbnails_are_asked_for_of_loaded_models_only(open_tab: Opener) -> None:
    """Also across a switch: the new model's come after it is drawn, and none is refused."""
    tab = await open_tab()
    refused: list[str] = []
    tab.page.on(
        "response",
        lambda answer: (
            refused.append(answer.url)
            if "/thumbnails/" in answer.url and answer.status >= 400
            else None
        ),
    )
    await tab.page.get_by_role("radio", name="tide", exact=True).check(force=True)
    await tab.until("s.model === 'tide'", "the model does not change", 60)
    loaded = "[...document.querySelectorAll(\".thumb img[src*='tide']\")]"
    await tab.until(f"{loaded}.some((one) => one.naturalWidth > 0)", "no thumbnail of the new one")
    assert not refused


async def test_seed_by_thumbnail_number_and_key(open_tab: Opener, server: ServerProcess) -> None:
    tab = await open_tab()
    loaded = "[...document.querySelectorAll('.thumb img')].some((one) => one.naturalWidth > 0)"
    await tab.until(loaded, "no thumbnail is loaded")
    before = await tab.page.evaluate(PIXELS)
    await tab.page.click(".thumb[data-seed='5']")
    await tab.until("s.controls.seed === 5", "a thumbnail does not set the seed")
    assert await tab.page.get_attribute(".thumb[data-seed='5']", "aria-pressed") == "true"
    await tab.page.keyboard.press("n")
    await tab.until("s.controls.seed === 6", "N does not go to the next seed")
    await tab.page.fill("#seed", "4294967295")
    await tab.page.keyboard.press("Enter")
    await tab.until("s.controls.seed === 4294967295", "a typed seed is not taken")
    session = await server.session(await tab.state("session"))
    assert session["controls"]["seed"] == 4294967295
    assert difference(before, await tab.page.evaluate(PIXELS)) > 1


async def test_sliders_move_by_keyboard_and_reach_the_server(
    open_tab: Opener, server: ServerProcess
) -> None:
    tab = await open_tab()
    await tab.page.focus("#control-psi")
    await tab.page.keyboard.press("ArrowRight")
    await tab.until("Math.abs(s.controls.psi - 0.71) < 1e-6", "an arrow key does not move psi")
    await tab.page.keyboard.press("End")
    await tab.until("s.controls.psi === 2", "End does not go to the end")
    assert "2.00" in await tab.page.inner_text("output[for='control-psi']")
    session = await server.session(await tab.state("session"))
    assert session["controls"]["psi"] == 2
    await tab.page.dblclick("#control-psi")
    await tab.until("Math.abs(s.controls.psi - 0.7) < 1e-6", "a double click does not reset it")
    await tab.page.focus("#control-bitrate")
    await tab.page.keyboard.press("Home")
    await tab.until("s.controls.bitrate <= 200000", "the bitrate does not follow its slider")
    await tab.page.click("#defaults")
    await tab.until("s.controls.bitrate === 2000000", "the reset does not reach the bitrate")


async def test_space_pauses_and_speed_turns_round(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.page.keyboard.press("Space")
    await tab.until("s.controls.pause === true", "space does not pause")
    # The server glides to a stand and then reports motion time once a second.
    await tab.until("s.stats !== null", "no figures come")
    first = await _settled_motion(tab)
    await asyncio.sleep(1.2)
    assert await tab.page.evaluate("window.stylewire.stats.motion_t") == pytest.approx(first)
    assert await tab.page.get_attribute("#pause", "aria-pressed") == "true"
    await tab.page.keyboard.press("Space")
    await tab.until(f"s.stats.motion_t > {first} + 0.5", "it does not go on")
    await tab.page.focus("#control-speed")
    await tab.page.keyboard.press("Home")
    await tab.until("s.controls.speed === -8", "the speed does not follow its slider")
    await tab.until(f"s.stats.motion_t < {first} - 2", "a negative speed does not run backwards")


async def _settled_motion(tab: Tab) -> float:
    """Motion time once two reports in a row agree."""
    last = None
    for _ in range(30):
        await asyncio.sleep(1.1)
        now = await tab.page.evaluate("window.stylewire.stats.motion_t")
        if now == last:
            return now
        last = now
    pytest.fail("motion time never stands still while paused")


async def test_the_page_says_what_draws_and_why(open_tab: Opener, server: ServerProcess) -> None:
    tab = await open_tab()
    await tab.until("s.stats !== null", "no figures come")
    name, models = await tab.state("model"), (await server.stats())["engine"]["models"]
    (model,) = [model for model in models if model["name"] == name]
    wanted = f"{model['backend']}: {model['backend_why']}"
    await tab.page.locator("#backend", has_text=wanted).wait_for()


@pytest.mark.parametrize("size", [(390, 844), (560, 800), (1280, 800)])
async def test_all_of_why_it_draws_can_be_read(open_tab: Opener, size: tuple[int, int]) -> None:
    width, height = size
    tab = await open_tab(viewport={"width": width, "height": height})
    # Set and measured at once: the next figures put their own words there.
    lines, shown, whole = await tab.page.evaluate(
        """(why) => {
      const words = document.getElementById('backend');
      words.textContent = why;
      const card = words.closest('.card').getBoundingClientRect();
      const lines = [...words.getClientRects()];
      const within = lines.every((line) => line.left >= card.left && line.right <= card.right);
      const sentence = words.parentElement;
      const cut = sentence.scrollWidth > sentence.clientWidth
        || sentence.scrollHeight > sentence.clientHeight;
      return [lines.length, within && !cut, document.documentElement.scrollHeight];
    }""",
        WHY,
    )
    assert lines > 1 and shown
    if size == (1280, 800):
        assert whole <= height  # nothing to scroll on a small desktop


async def test_scrubbing_moves_the_motion(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.page.focus("#scrub")
    await tab.page.keyboard.press("End")
    await tab.until("s.stats && s.stats.motion_t > 55", "scrubbing does not move the motion")


async def test_a_model_switch_does_not_stop_the_stream(open_tab: Opener) -> None:
    tab = await open_tab()
    assert await tab.page.is_hidden("#untrained")
    await tab.page.evaluate("""() => {
      window.longest = 0;
      setInterval(() => {
        const gap = performance.now() - window.stylewire.lastCalledMs;
        window.longest = Math.max(window.longest, gap);
      }, 20);
    }""")
    await tab.page.get_by_role("radio", name="aurora", exact=True).check(force=True)
    await tab.until("s.model === 'aurora'", "the model does not change", 60)
    frames = await tab.state("frames")
    await tab.until(f"s.frames > {frames} + 10", "no pictures of the new model")
    longest = await tab.page.evaluate("window.longest")
    assert longest < 2000, f"{longest:.0f} ms without a picture while the model changed"
    await tab.page.wait_for_selector("#untrained", state="visible")
    assert await tab.page.inner_text("#untrained") == "random weights"
    title = await tab.page.get_attribute("#untrained", "title")
    assert title and title.startswith("Random weights: seeded, not trained.")
    await tab.page.click("#untrained")  # where there is no pointer to rest on it
    assert await tab.state("notice") == title
    assert "seeded, not trained" in (await tab.page.text_content("#help-box") or "")
    assert await tab.state("connects") == 1


async def test_another_resolution_arrives_as_a_larger_picture(open_tab: Opener) -> None:
    tab = await open_tab()
    assert await tab.state("width") == 256
    await tab.page.get_by_role("radio", name="128", exact=True).check(force=True)
    await tab.until("s.width === 128 && s.height === 128", "the picture keeps its size")
    await tab.page.get_by_role("radio", name="512", exact=True).check(force=True)
    await tab.until("s.width === 512", "the picture does not grow again")
    assert await tab.state("connects") == 1


async def test_a_snapshot_is_the_picture(open_tab: Opener) -> None:
    tab = await open_tab()
    async with tab.page.expect_download() as coming:
        await tab.page.click("#snapshot")
    download = await coming.value
    assert download.suggested_filename == "stylewire-testcard-seed-0.png"
    head = await asyncio.to_thread(Path(await download.path()).read_bytes)
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (256, 256)


async def test_vp8_where_it_is_asked_for(open_tab: Opener) -> None:
    tab = await open_tab("?codec=VP8")
    assert await tab.state("codec") == "VP8"
    await tab.until("s.latency.count > 10", "VP8 frames are not matched")


async def test_a_second_viewer_shares_the_session(open_tab: Opener, server: ServerProcess) -> None:
    first = await open_tab()
    await first.page.click("#share")
    link = await first.page.input_value("#share-link")
    await first.page.keyboard.press("Escape")
    session = await first.state("session")
    assert link == f"{server.url}/?session={session}"
    second = await open_tab(link.removeprefix(server.url + "/"))
    assert await second.state("session") == session
    await second.page.keyboard.press("n")
    await first.until("s.controls.seed === 1", "the other viewer's change is not shown here")
    await first.page.wait_for_selector("#viewers", state="visible")
    assert await first.page.inner_text("#viewers") == "2 viewers"
    assert len((await server.session(session))["viewers"]) == 2
    await second.page.close()
    await first.page.wait_for_selector("#viewers", state="hidden")


@pytest.mark.parametrize(("status", "wait_s"), ((408, 0), (429, 2), (503, 0)))
async def test_a_passing_refusal_is_tried_again(open_tab: Opener, status: int, wait_s: int) -> None:
    """Not at once final, and not sooner than the server asks for."""
    tab = await open_tab("?session=not-yet", wait=False, first_offer=(status, wait_s))
    tab.expected = (str(status), "404")
    await tab.until("s.phase === 'waiting' && s.problem === 'Come again.'", "it is not waiting")
    await tab.until("s.phase === 'refused'", "it does not ask again")
    first, second = tab.offers
    assert second - first >= max(0.4, wait_s)


async def test_a_dead_link_is_a_sentence_with_a_next_step(open_tab: Opener) -> None:
    tab = await open_tab("?session=long-gone", wait=False)
    tab.expected = ("404",)
    await tab.until("s.phase === 'refused'", "a dead link is not refused")
    text = await tab.page.inner_text("#problem")
    assert text == await tab.state("problem") and text.endswith(".") and len(text) > 20
    await tab.page.click("#fresh")
    await tab.live()


async def test_nothing_overflows_on_a_phone(open_tab: Opener) -> None:
    tab = await open_tab(viewport=PHONE, has_touch=True, is_mobile=True)
    await tab.page.wait_for_selector(".thumb")
    await tab.page.wait_for_selector("#control-psi")
    wide = await tab.page.evaluate("""() => {
      const limit = document.documentElement.clientWidth;
      const inStrip = (one) => one.closest('.thumbs');
      return [...document.querySelectorAll('body *')]
        .filter((one) => one.checkVisibility() && !inStrip(one) && one.id !== 'ambient')
        .filter((one) => one.getBoundingClientRect().right > limit + 0.5)
        .map((one) => one.outerHTML.slice(0, 80));
    }""")
    assert not wide
    assert await tab.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    screen = await tab.page.locator("#screen").bounding_box()
    assert screen and screen["width"] > 0.9 * PHONE["width"] and screen["y"] < 100
    small = await tab.page.evaluate("""() => [...document.querySelectorAll('button, select')]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 28)
      .map((one) => one.id)""")
    assert not small, f"too small to touch: {small}"


async def test_the_keyboard_reaches_every_control(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.page.wait_for_selector(".thumb")
    # One stop per radio group; what is disabled or hidden needs none.
    wanted = await tab.page.evaluate("""() => {
      const all = document.querySelectorAll('button, select, input, a[href]');
      const usable = [...all].filter((one) => one.checkVisibility() && !one.disabled);
      window.nameOf = (one) => one.type === 'radio' ? `radio ${one.name}`
        : one.id || one.getAttribute('aria-label') || one.className;
      return [...new Set(usable.map(window.nameOf))];
    }""")
    reached, unseen = set(), set()
    for _ in range(3 * len(wanted)):
        await tab.page.keyboard.press("Tab")
        name, outlined = await tab.page.evaluate("""() => {
          const one = document.activeElement;
          const name = window.nameOf(one);
          const marked = one.type === 'radio' ? one.nextElementSibling : one;
          const style = getComputedStyle(marked);
          return [name, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
        }""")
        reached.add(name)
        if name and not outlined and name in wanted:
            unseen.add(name)
    assert not set(wanted) - reached, f"never focused: {set(wanted) - reached}"
    assert not unseen, f"focused without a visible mark: {unseen}"


async def test_every_control_has_a_name(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.page.wait_for_selector(".thumb")
    devtools = await tab.page.context.new_cdp_session(tab.page)
    tree = (await devtools.send("Accessibility.getFullAXTree"))["nodes"]
    roles = ("button", "slider", "radio", "spinbutton", "textbox", "combobox", "switch", "link")
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert len(controls) > 25
    assert not [role for role, name in controls if not name.strip()], controls
    sliders = {name for role, name in controls if role == "slider"}
    assert {"Truncation psi", "Speed", "Frame rate", "Bitrate"} <= sliders
    named = {name for role, name in controls if role == "button"}
    assert {"Pause the motion", "Full screen", "Seed 3", "Share this stream"} <= named


async def test_help_opens_by_key_and_shortcuts_can_be_off(open_tab: Opener) -> None:
    tab = await open_tab()
    await tab.page.keyboard.press("?")
    await tab.page.wait_for_selector("#help-box[open]")
    await tab.page.uncheck("#keys-on")
    await tab.page.keyboard.press("Escape")
    await tab.page.wait_for_selector("#help-box", state="hidden")
    seed = (await tab.state("controls"))["seed"]
    await tab.page.keyboard.press("n")
    await asyncio.sleep(0.5)
    assert (await tab.state("controls"))["seed"] == seed


async def test_less_motion_where_it_is_asked_for(open_tab: Opener) -> None:
    tab = await open_tab(reduced_motion="reduce")
    style = "getComputedStyle(document.getElementById('spinner')).animationName"
    assert await tab.page.evaluate(style) == "none"
