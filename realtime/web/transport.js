// The player bar: pause, and a playhead over motion time that can be dragged.

const WINDOW_S = 60; // the bar shows one minute at a time

/** 83.46 -> "1:23.4", also below zero. */
export function formatTime(seconds) {
  const tenths = Math.floor(Math.abs(seconds) * 10 + 1e-6);
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, '0');
  return `${seconds < 0 && tenths ? '−' : ''}${minutes}:${rest}`;
}

export class Transport {
  constructor({ pause, scrub, clock }, onChange) {
    Object.assign(this, { pause, scrub, clock, onChange });
    this.paused = false;
    this.speed = 1;
    this.at = { motionS: 0, pageMs: performance.now() };
    this.draggedMs = -Infinity;
    this.window = 0; // motion time at the left end of the bar
    pause.addEventListener('click', () => this.toggle());
    scrub.addEventListener('input', () => this.drag());
  }

  toggle() {
    if (this.pause.disabled) return;
    this.setPaused(!this.paused);
    this.onChange('pause', this.paused);
  }

  drag() {
    const motionS = this.window + Number(this.scrub.value);
    this.draggedMs = performance.now();
    this.at = { motionS, pageMs: this.draggedMs };
    this.onChange('scrub', motionS);
    this.paint(motionS);
  }

  setPaused(paused) {
    this.reanchor();
    this.paused = paused;
    this.pause.setAttribute('aria-pressed', String(paused));
    const text = paused ? 'Go on' : 'Pause the motion';
    this.pause.setAttribute('aria-label', text);
    this.pause.title = `${text} (space)`;
  }

  /** Values from the server. */
  show(controls, held) {
    if (Number.isFinite(controls.speed) && controls.speed !== this.speed) {
      this.reanchor();
      this.speed = controls.speed;
    }
    if (!held && typeof controls.pause === 'boolean' && controls.pause !== this.paused) this.setPaused(controls.pause);
  }

  /** The server's own motion time, where its statistics carry it; between two of them we extrapolate. */
  anchor({ motion_t: motionS }) {
    const now = performance.now();
    if (Number.isFinite(motionS) && now - this.draggedMs > 1500) this.at = { motionS, pageMs: now };
  }

  reanchor() {
    const now = performance.now();
    this.at = { motionS: this.motionAt(now), pageMs: now };
  }

  motionAt(nowMs) {
    return this.at.motionS + (this.paused ? 0 : (this.speed * (nowMs - this.at.pageMs)) / 1000);
  }

  tick(nowMs, live) {
    if (!live || nowMs - this.draggedMs < 400) return;
    const motionS = this.motionAt(nowMs);
    if (motionS < this.window || motionS >= this.window + WINDOW_S) this.window = Math.floor(motionS / WINDOW_S) * WINDOW_S;
    this.scrub.value = motionS - this.window;
    this.paint(motionS);
  }

  paint(motionS) {
    this.clock.textContent = formatTime(motionS);
    this.scrub.setAttribute('aria-valuetext', `${motionS.toFixed(1)} seconds`);
    this.scrub.style.setProperty('--fill', `${((100 * Number(this.scrub.value)) / WINDOW_S).toFixed(2)}%`);
  }

  setDisabled(disabled) {
    this.pause.disabled = this.scrub.disabled = disabled;
    if (disabled) this.reanchor();
  }
}
