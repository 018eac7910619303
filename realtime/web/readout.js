// The live figures, the bar of stages and the sentence on the bottleneck.

import { formatBitrate } from './controls.js';
import { STAGES } from './latency.js';

const NAMES = { render: 'Render', encode: 'Encode', network: 'Network', show: 'Decode' };
const UNMEASURED = 'not measured by this browser';

function ms(value) {
  if (!Number.isFinite(value)) return null;
  return value < 100 ? value.toFixed(1) : value.toFixed(0);
}

/** What the figures say, in plain words; the server's own sentence comes first where it has one. */
export function explain({ stats, summary, fps, wantedFps }) {
  if (stats?.bottleneck) return stats.bottleneck;
  if (!summary.count) return 'Waiting for the first frames.';
  const [stage, value] = Object.entries(summary.stages).sort((a, b) => b[1] - a[1])[0];
  const share = `${NAMES[stage]} takes ${ms(value)} of the ${ms(summary.p50)} ms.`;
  return fps < 0.9 * wantedFps ? `Fewer frames arrive than are wanted. ${share}` : share;
}

export class Readout {
  constructor(byId, plot, tracker) {
    this.byId = byId;
    this.plot = plot;
    this.tracker = tracker;
    this.last = null;
    this.segments = STAGES.map((stage) => {
      const segment = document.createElement('span');
      segment.className = `stage-${stage}`;
      byId('share-bar').append(segment);
      return segment;
    });
    this.keys = STAGES.map((stage) => {
      const item = document.createElement('li');
      item.className = `key-${stage}`;
      const value = document.createElement('b');
      item.append(NAMES[stage], ' ', value);
      byId('legend').append(item);
      return value;
    });
  }

  stats(message) {
    this.last = message;
  }

  update(nowMs, { live, controls }) {
    const { tracker } = this;
    tracker.trim(nowMs);
    const summary = tracker.summary(nowMs);
    const fps = live && tracker.frames ? tracker.fps(nowMs) : NaN;
    this.byId('plot').closest('.card').dataset.live = live;
    this.figure('f-fps', Number.isFinite(fps) ? fps.toFixed(1) : null);
    if (tracker.unsupported) {
      this.figure('f-glass', UNMEASURED, '', true);
      this.figure('f-age', UNMEASURED, '', true);
    } else {
      this.figure('f-glass', ms(summary.p50), 'ms');
      this.figure('f-age', live ? ms(tracker.frameAge(nowMs)) : null, 'ms');
    }
    const stats = live ? this.last : null;
    this.figure('f-ontime', stats && Number.isFinite(stats.on_time) ? (100 * stats.on_time).toFixed(1) : null, '%');
    const [rate, unit] = stats ? formatBitrate(stats.bitrate).split(' ') : [null];
    this.figure('f-bitrate', rate, unit);
    this.figure('f-render', ms(stats?.render_ms?.p50), 'ms');
    this.bar(summary);
    this.drawnBy(stats);
    const sentence = live ? explain({ stats: this.last, summary, fps, wantedFps: controls.fps ?? 30 }) : 'No stream at the moment.';
    if (this.byId('bottleneck').textContent !== sentence) this.byId('bottleneck').textContent = sentence;
    if (!document.hidden) this.plot.draw(tracker.samples, nowMs, tracker.unsupported ? `Latency is ${UNMEASURED}.` : 'Latency of each frame appears here.');
  }

  /** Which backend draws, and why that one. */
  drawnBy(stats) {
    const element = this.byId('backend');
    const text = stats?.backend ? `${stats.backend}: ${stats.backend_why || 'no reason given'}` : '–';
    if (element.textContent !== text) element.textContent = text;
  }

  figure(id, value, unit = '', words = false) {
    const element = this.byId(id);
    const text = value === null || value === undefined ? '–' : value;
    const key = `${text}|${unit}`;
    if (element.dataset.key === key) return;
    element.dataset.key = key;
    element.classList.toggle('words', words);
    element.replaceChildren(text);
    if (unit && text !== '–') {
      const small = document.createElement('small');
      small.textContent = ` ${unit}`;
      element.append(small);
    }
  }

  /** A bar whose parts are the medians of the stages. */
  bar(summary) {
    const values = STAGES.map((stage) => Math.max(0, summary.stages[stage] || 0));
    values.forEach((value, i) => {
      this.segments[i].style.setProperty('--part', value.toFixed(2));
      this.keys[i].textContent = summary.count ? values[i].toFixed(1) : '–';
    });
    const words = STAGES.map((stage, i) => `${NAMES[stage]} ${values[i].toFixed(1)} ms`).join(', ');
    this.byId('share-bar').setAttribute('aria-label', summary.count ? `Where the milliseconds go: ${words}` : 'Where the milliseconds go: not measured yet');
  }
}
