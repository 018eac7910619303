// Where a frame's milliseconds went. Pure bookkeeping: times come in as arguments, nothing is drawn.
//
// The server stamps each frame on its monotonic clock and sends the stamps over the data channel
// ("frames"); the browser knows each shown frame's rtpTimestamp and its own times
// (requestVideoFrameCallback). ClockOffset joins the two clocks, LatencyTracker the two halves.

const AGE_MS = 1500; // what the frame age is averaged over

export const STAGES = ['render', 'encode', 'network', 'show'];

/** The `q` quantile (0..1) of `values`, nearest rank; NaN of nothing. */
export function quantile(values, q) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))];
}

/**
 * server monotonic ms = performance.now() + offset.
 * Median of the shortest trips: a long trip says only that something waited, not where.
 */
export class ClockOffset {
  constructor(keep = 120) {
    this.keep = keep;
    this.trips = []; // [trip ms, offset ms], oldest first
  }

  add(sentMs, receivedMs, serverMs) {
    this.trips.push([receivedMs - sentMs, serverMs - (sentMs + receivedMs) / 2]);
    if (this.trips.length > this.keep) this.trips.shift();
    const shortest = [...this.trips].sort((a, b) => a[0] - b[0]);
    const best = shortest.slice(0, Math.max(3, Math.floor(shortest.length / 10)));
    this.offsetMs = quantile(best.map((trip) => trip[1]), 0.5);
    this.tripMs = best[0][0];
  }

  /** Of a new connection: the server's machine may have been restarted, and its clock with it. */
  reset() {
    this.trips.length = 0;
    this.offsetMs = this.tripMs = undefined;
  }

  get ready() {
    return this.trips.length >= 3;
  }

  toPage(serverMs) {
    return serverMs - this.offsetMs;
  }
}

/** Joins shown frames with the server's stamps by RTP timestamp, whichever half comes first. */
export class LatencyTracker {
  constructor(clock, windowMs = 20000, pendingLimit = 512) {
    this.clock = clock;
    this.windowMs = windowMs;
    this.pendingLimit = pendingLimit;
    this.stamps = new Map(); // rtp timestamp -> row, not yet shown
    this.shown = new Map(); // rtp timestamp -> the browser's times, stamps not yet here
    this.samples = []; // joined frames of the last window, in order of being shown
    this.recent = []; // [called ms, presentedFrames] of the last 2 s
    this.frames = 0; // callbacks seen
    this.lastCalledMs = NaN;
    this.nameless = 0; // callbacks in a row without an rtpTimestamp
  }

  /** One requestVideoFrameCallback: its metadata and the time the callback was entered. */
  onFrame(metadata, calledMs) {
    this.frames += 1;
    this.lastCalledMs = calledMs;
    this.recent.push([calledMs, metadata.presentedFrames]);
    while (calledMs - this.recent[0][0] > 2000) this.recent.shift();
    if (metadata.rtpTimestamp === undefined) {
      this.nameless += 1;
      return;
    }
    this.nameless = 0;
    const times = { presented: metadata.presentationTime, received: metadata.receiveTime, called: calledMs };
    const row = this.stamps.get(metadata.rtpTimestamp);
    if (row) this.join(row, times);
    else remember(this.shown, metadata.rtpTimestamp, times, this.pendingLimit);
  }

  /** Rows of a "frames" message: [rtp, index, due, sampled, rendered, encoded, sent, bytes, key]. */
  onRows(rows) {
    for (const row of rows) {
      const times = this.shown.get(row[0]);
      if (times) this.join(row, times);
      else remember(this.stamps, row[0], row, this.pendingLimit);
    }
  }

  /** Whether this browser leaves rtpTimestamp out; one frame without it (an ending track) says nothing. */
  get unsupported() {
    return this.nameless > 10;
  }

  join(row, times) {
    this.stamps.delete(row[0]);
    this.shown.delete(row[0]);
    if (!this.clock.ready) return;
    const [, index, due, sampled, rendered, encoded, sent, bytes, key] = row;
    const toServer = this.clock.offsetMs;
    const presented = times.presented + toServer;
    const received = times.received === undefined ? NaN : times.received + toServer;
    this.samples.push({
      index,
      bytes,
      key: Boolean(key),
      atMs: times.presented,
      calledMs: times.called,
      total: presented - sampled,
      age: times.called + toServer - due,
      render: rendered - sampled,
      encode: sent - rendered,
      // Without receiveTime the two last stages cannot be told apart: all of it is "network".
      network: (Number.isNaN(received) ? presented : received) - sent,
      show: Number.isNaN(received) ? 0 : presented - received,
    });
    this.trim(times.presented);
  }

  trim(nowMs) {
    while (this.samples.length && nowMs - this.samples[0].atMs > this.windowMs) this.samples.shift();
  }

  /** Frames a second over the last 2 s, also counting frames whose callback came too late. */
  fps(nowMs) {
    const recent = this.recent.filter(([at]) => nowMs - at < 2000);
    if (recent.length < 2) return 0;
    const [first, last] = [recent[0], recent[recent.length - 1]];
    const frames = last[1] > first[1] ? last[1] - first[1] : recent.length - 1;
    // Until the next frame is overdue the span ends at the last one; then it grows, and fps falls.
    const interval = (last[0] - first[0]) / frames;
    const span = Math.max(last[0] - first[0], nowMs - first[0] - 2 * interval);
    return (frames * 1000) / span;
  }

  /**
   * How old the visible picture is, in ms, averaged over the last AGE_MS: from the moment it
   * depicts (its due time) to now, including the time it stays on the screen.
   */
  frameAge(nowMs) {
    const last = this.samples[this.samples.length - 1];
    if (!last) return NaN;
    const shownFor = nowMs - this.lastCalledMs;
    if (shownFor > 500) return last.age + (nowMs - last.calledMs);
    let weighted = 0;
    let span = 0;
    for (let i = this.samples.length - 1; i > 0 && nowMs - this.samples[i].calledMs < AGE_MS; i--) {
      const stay = this.samples[i].calledMs - this.samples[i - 1].calledMs;
      weighted += stay * (this.samples[i - 1].age + stay / 2);
      span += stay;
    }
    return span ? weighted / span : last.age;
  }

  /** p50 and p95 of sample-to-glass and the p50 of each stage over the last `spanMs`. */
  summary(nowMs, spanMs = 5000) {
    const recent = this.samples.filter((sample) => nowMs - sample.atMs < spanMs);
    const totals = recent.map((sample) => sample.total);
    const stages = Object.fromEntries(
      STAGES.map((stage) => [stage, quantile(recent.map((sample) => sample[stage]), 0.5)]),
    );
    return { count: recent.length, p50: quantile(totals, 0.5), p95: quantile(totals, 0.95), stages };
  }

  reset() {
    this.stamps.clear();
    this.shown.clear();
    this.samples.length = 0;
    this.recent.length = 0;
    this.lastCalledMs = NaN;
  }
}

function remember(map, key, value, limit) {
  map.set(key, value);
  if (map.size > limit) map.delete(map.keys().next().value); // the oldest: a Map keeps its order
}
