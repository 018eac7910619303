// The seed strip: thumbnails to pick from, a number to type, a die to roll.

const PER_PAGE = 12;
export const SEED_LIMIT = 2 ** 32;

export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

export class SeedStrip {
  constructor({ thumbs, number, back, on, dice }, onPick) {
    Object.assign(this, { thumbs, number, back, on, dice, onPick });
    this.first = 0;
    this.seed = 0;
    this.model = null;
    this.loaded = new Set(); // models that the server can draw thumbnails of
    number.addEventListener('change', () => this.pick(number.valueAsNumber));
    dice.addEventListener('click', () => this.random());
    back.addEventListener('click', () => this.turn(-1));
    on.addEventListener('click', () => this.turn(1));
  }

  /** Wrap around rather than refuse: after the last seed comes the first. */
  pick(seed) {
    if (!Number.isFinite(seed)) {
      this.number.value = this.seed;
      return;
    }
    const whole = ((Math.round(seed) % SEED_LIMIT) + SEED_LIMIT) % SEED_LIMIT;
    this.show(whole);
    this.onPick(whole);
  }

  step(by) {
    this.pick(this.seed + by);
  }

  random() {
    this.pick(randomSeed());
  }

  turn(pages) {
    this.first = Math.min(SEED_LIMIT - PER_PAGE, Math.max(0, this.first + pages * PER_PAGE));
    this.render();
  }

  /** The seed shown now; the strip turns to its page. */
  show(seed) {
    this.seed = seed;
    if (document.activeElement !== this.number) this.number.value = seed;
    const page = Math.min(SEED_LIMIT - PER_PAGE, Math.floor(seed / PER_PAGE) * PER_PAGE);
    if (page !== this.first && (seed < this.first || seed >= this.first + PER_PAGE)) {
      this.first = page;
      this.render();
    }
    this.mark();
  }

  /** Thumbnails belong to a model: another one redraws them. */
  setModel(model) {
    if (model === this.model) return;
    this.model = model;
    this.render();
  }

  /** This model can be drawn from now on: its placeholders become thumbnails. */
  setLoaded(model) {
    if (this.loaded.has(model)) return;
    this.loaded.add(model);
    if (model === this.model) this.render();
  }

  setDisabled(disabled) {
    for (const control of [this.number, this.dice]) control.disabled = disabled;
    for (const button of this.thumbs.children) button.disabled = disabled;
    this.disabled = disabled;
  }

  render() {
    if (this.model === null) return;
    const focused = [...this.thumbs.children].indexOf(document.activeElement);
    this.thumbs.replaceChildren(...Array.from({ length: PER_PAGE }, (_, i) => this.thumb(this.first + i)));
    if (focused >= 0) this.thumbs.children[focused].focus();
    this.back.disabled = this.first === 0;
    this.on.disabled = this.first >= SEED_LIMIT - PER_PAGE;
    this.mark();
  }

  thumb(seed) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'thumb';
    button.dataset.seed = seed;
    button.disabled = Boolean(this.disabled);
    button.setAttribute('aria-label', `Seed ${seed}`);
    button.title = `Seed ${seed}`;
    const number = document.createElement('span');
    number.textContent = seed < 1e5 ? seed : `…${String(seed).slice(-4)}`; // the end tells them apart
    button.append(number);
    if (this.loaded.has(this.model)) button.prepend(this.image(seed));
    button.addEventListener('click', () => this.pick(seed));
    return button;
  }

  image(seed) {
    const image = document.createElement('img');
    image.alt = '';
    image.width = image.height = 64;
    image.decoding = 'async';
    image.loading = 'lazy';
    image.draggable = false;
    image.src = `thumbnails/${encodeURIComponent(this.model)}/${seed}.jpg`;
    image.addEventListener('error', () => image.remove(), { once: true }); // the number remains
    return image;
  }

  mark() {
    for (const button of this.thumbs.children) {
      button.setAttribute('aria-pressed', String(Number(button.dataset.seed) === this.seed));
    }
  }
}
