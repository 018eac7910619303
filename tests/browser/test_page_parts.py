"""The page's modules one by one, in the real browser, with figures of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from realtime.controls import SCHEMA

if TYPE_CHECKING:
    from tests.browser.conftest import Opener

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_the_clocks_offset_is_that_of_this_connection(open_tab: Opener) -> None:
    tab = await open_tab()
    p50 = await tab.page.evaluate("""async () => {
      const { ClockOffset, LatencyTracker } = await import('/latency.js');
      const clock = new ClockOffset();
      const tracker = new LatencyTracker(clock);
      const connect = (offset, trips) => {
        clock.reset();
        tracker.reset();
        for (let at = 0; at < 500 * trips; at += 500) clock.add(at, at + 2, at + 1 + offset);
        for (let at = 0; at < 20; at += 1) {
          const server = 40 * at + offset;
          tracker.onRows([[at, at, server, server, server + 4, server + 5, server + 6, 900, 0]]);
          const shown = { rtpTimestamp: at, presentedFrames: at, presentationTime: 40 * at + 9 };
          tracker.onFrame(shown, 40 * at + 10);
        }
        return tracker.summary(800).p50;
      };
      return [connect(9e8, 120), connect(3e3, 3), connect(7e10, 3)];
    }""")
    assert p50 == pytest.approx([9, 9, 9], abs=1e-3)


async def test_the_plots_labels_fit(open_tab: Opener) -> None:
    """Each text that is drawn lies inside the canvas, at small and at large figures."""
    tab = await open_tab()
    outside = await tab.page.evaluate("""async () => {
      const { LatencyPlot } = await import('/plot.js');
      const found = [];
      const cases = [[8.8, 300], [88.8, 500], [154, 583], [1540, 320], [7777, 320]];
      for (const [total, width] of cases) {
        const canvas = document.createElement('canvas');
        canvas.style.cssText = `display: block; width: ${width}px; height: 128px`;
        document.body.append(canvas);
        const plot = new LatencyPlot(canvas);
        const g = plot.context;
        const draw = g.fillText.bind(g);
        let drawn = 0;
        g.fillText = (text, x, y) => {
          const box = g.measureText(text);
          const [left, right] = [x - box.actualBoundingBoxLeft, x + box.actualBoundingBoxRight];
          if (left < 0 || right > width) found.push([text, left, right, width]);
          drawn += 1;
          draw(text, x, y);
        };
        const part = { render: total / 4, encode: total / 4, network: total / 4, show: total / 4 };
        plot.draw([1, 2, 3].map((at) => ({ atMs: 1000 * at, total, ...part })), 4000);
        if (drawn < 7) found.push([`${drawn} labels`]);
        canvas.remove();
      }
      return found;
    }""")
    assert not outside


async def test_a_model_that_is_not_loaded_shows_numbers(open_tab: Opener) -> None:
    """No request that can only fail; as soon as the model is drawn, the numbers become pictures."""
    tab = await open_tab()
    asked = await tab.page.evaluate("""async () => {
      const { SeedStrip } = await import('/seeds.js');
      const box = (name) => document.createElement(name);
      const thumbs = document.getElementById('thumbs').cloneNode();
      document.getElementById('thumbs').after(thumbs);
      const [back, on, dice] = [box('button'), box('button'), box('button')];
      const strip = new SeedStrip({ thumbs, number: box('input'), back, on, dice }, () => {});
      const all = () => [...thumbs.querySelectorAll('img')];
      const images = () => all().map((one) => one.getAttribute('src'));
      strip.setLoaded('testcard');
      strip.setModel('elsewhere');
      const [before, numbers] = [images(), thumbs.innerText.trim().split('\\n')];
      const inMiddle = getComputedStyle(thumbs.querySelector('span')).placeItems;
      strip.setModel('testcard');
      const known = images();
      thumbs.remove();
      return { before, numbers, known, inMiddle };
    }""")
    assert asked["before"] == []
    assert asked["numbers"] == [str(seed) for seed in range(12)]
    assert asked["inMiddle"] == "center"
    assert len(asked["known"]) == 12 and asked["known"][3] == "thumbnails/testcard/3.jpg"


async def test_there_is_a_widget_for_every_type_of_the_schema(open_tab: Opener) -> None:
    tab = await open_tab()
    schema = [
        {"name": "whole", "type": "int", "min": 0, "max": 9, "default": 3, "choices": []},
        {"name": "number", "type": "float", "min": 0, "max": 1, "default": 0.5, "choices": []},
        {"name": "switch", "type": "bool", "default": False, "choices": []},
        {"name": "few", "type": "choice", "default": "a", "choices": ["a", "b"]},
        {"name": "many", "type": "choice", "default": "a", "choices": list("abcdef")},
    ]
    assert {row["type"] for row in schema} == {row["type"] for row in SCHEMA}
    kinds, values = await tab.page.evaluate(
        """async (schema) => {
          const { ControlPanel } = await import('/controls.js');
          const changed = {};
          const form = document.createElement('form');
          const panel = new ControlPanel(form, (name, value) => { changed[name] = value; });
          panel.build(schema);
          panel.show({ whole: 4, number: 0.25, switch: false, few: 'a', many: 'a' });
          const inputs = [...form.querySelectorAll('input:not([value="a"]), select')];
          const kinds = inputs.map((one) => [one.type, one.step ?? '', one.value]);
          for (const one of inputs) {
            if (one.type === 'range') one.value = one.max;
            else if (one.tagName === 'SELECT') one.selectedIndex = 5;
            else one.checked = true;
            one.dispatchEvent(new Event('input'));
            one.dispatchEvent(new Event('change'));
          }
          return [kinds, changed];
        }""",
        schema,
    )
    assert kinds == [
        ["range", "1", "4"],
        ["range", "0.01", "0.25"],
        ["checkbox", "", "on"],
        ["radio", "", "b"],
        ["select-one", "", "a"],
    ]
    assert values == {"whole": 9, "number": 1, "switch": True, "few": "b", "many": "f"}
