// The latency plot: one thin stacked column per frame over the last 20 s, in the stages' colours,
// with lines at p50 and p95. Drawn a few times a second, not per frame: it must not cost the picture.

import { STAGES, quantile } from './latency.js';

const WINDOW_MS = 20000;
const TOP = 10;
const BOTTOM = 18;
const GAP = 6; // between a label and its line

/** The next "round" number at or above `value`: 10, 20, 50, 100, ... with some air. */
export function niceCeiling(value) {
  const steps = [5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000];
  return steps.find((step) => step >= value) ?? 10000;
}

function axisLabel(value, withUnit) {
  return `${+value.toFixed(1)}${withUnit ? ' ms' : ''}`;
}

function markLabel(name, value) {
  return `${name} ${value < 100 ? value.toFixed(1) : value.toFixed(0)}`;
}

export class LatencyPlot {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    const style = getComputedStyle(document.documentElement);
    this.colours = Object.fromEntries(
      STAGES.map((stage) => [stage, style.getPropertyValue(`--${stage}`).trim()]),
    );
    this.ink = style.getPropertyValue('--dim').trim();
    this.line = style.getPropertyValue('--line').trim();
    this.bright = style.getPropertyValue('--ink').trim();
    this.font = `11px ${style.getPropertyValue('--sans')}`;
    this.ceiling = 20;
  }

  /** Samples as of LatencyTracker, newest last; `nowMs` is the right edge. */
  draw(samples, nowMs, message = '') {
    const { width, height, ratio } = this.fit();
    const g = this.context;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = this.font;
    g.textBaseline = 'middle';
    const shown = samples.filter((sample) => nowMs - sample.atMs < WINDOW_MS);
    const totals = shown.map((sample) => sample.total);
    const p95 = quantile(totals, 0.95);
    this.rescale(totals.length ? Math.max(p95 * 1.3, quantile(totals, 0.99) * 1.05) : 20);
    const plot = this.frame(width, height, p95);
    this.grid(plot);
    if (!shown.length) {
      g.fillStyle = this.ink;
      g.textAlign = 'center';
      g.fillText(message, (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2);
      return;
    }
    this.columns(plot, shown, nowMs);
    this.marks(plot, quantile(totals, 0.5), p95);
  }

  /** The space that the labels leave; as wide as they are in the font that the browser found. */
  frame(width, height, p95) {
    const wide = (texts) => Math.ceil(Math.max(...texts.map((text) => this.context.measureText(text).width)));
    return {
      left: wide([axisLabel(this.ceiling, true), '150 ms']) + GAP,
      right: width - wide([markLabel('p95', p95), 'p95 88.8']) - GAP,
      top: TOP,
      bottom: height - BOTTOM,
    };
  }

  /** Follow the element's size and the screen's density. */
  fit() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = this.canvas.clientWidth;
    const height = this.canvas.clientHeight;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.height = Math.round(height * ratio);
    }
    return { width, height, ratio };
  }

  /** Grow at once, shrink only when the plot would be less than half full: a calm axis. */
  rescale(wanted) {
    const nice = niceCeiling(wanted);
    if (nice > this.ceiling || nice <= this.ceiling / 2) this.ceiling = nice;
  }

  y(plot, value) {
    const part = Math.min(1, Math.max(0, value / this.ceiling));
    return plot.bottom - part * (plot.bottom - plot.top);
  }

  grid(plot) {
    const g = this.context;
    g.strokeStyle = this.line;
    g.fillStyle = this.ink;
    g.lineWidth = 1;
    g.textAlign = 'right';
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(this.y(plot, part * this.ceiling)) + 0.5;
      g.beginPath();
      g.moveTo(plot.left, y);
      g.lineTo(plot.right, y);
      g.stroke();
      g.fillText(axisLabel(part * this.ceiling, part === 1), plot.left - GAP, y);
    }
    g.textAlign = 'left';
    g.fillText('20 s ago', plot.left, plot.bottom + 11);
    g.textAlign = 'right';
    g.fillText('now', plot.right, plot.bottom + 11);
  }

  columns(plot, shown, nowMs) {
    const g = this.context;
    const perMs = (plot.right - plot.left) / WINDOW_MS;
    const interval = (shown[shown.length - 1].atMs - shown[0].atMs) / Math.max(1, shown.length - 1);
    const breadth = Math.max(1, Math.min(4, interval * perMs));
    for (const stage of STAGES) {
      g.fillStyle = this.colours[stage];
      for (const sample of shown) {
        const x = plot.right - (nowMs - sample.atMs) * perMs;
        let below = 0;
        for (const earlier of STAGES) {
          if (earlier === stage) break;
          below += sample[earlier];
        }
        const top = this.y(plot, below + sample[stage]);
        g.fillRect(x - breadth, top, breadth, Math.max(0, this.y(plot, below) - top));
      }
    }
  }

  marks(plot, p50, p95) {
    const g = this.context;
    g.textAlign = 'left';
    g.setLineDash([3, 4]);
    g.lineWidth = 1;
    let above = Infinity;
    for (const [name, value] of [['p50', p50], ['p95', p95]]) {
      const y = this.y(plot, value);
      g.strokeStyle = g.fillStyle = this.bright;
      g.globalAlpha = name === 'p50' ? 0.9 : 0.6;
      g.beginPath();
      g.moveTo(plot.left, y);
      g.lineTo(plot.right, y);
      g.stroke();
      const label = Math.max(plot.top, Math.min(y, above - 12)); // the two labels never overlap
      g.fillText(markLabel(name, value), plot.right + GAP, label);
      above = label;
    }
    g.globalAlpha = 1;
    g.setLineDash([]);
  }
}
