// Controls built from the server's schema: one widget per entry, chosen by its type.
//
// The server's values win, except for a control that the person holds right now: its own echo, a
// round trip old, would pull the thumb back.

const HOLD_MS = 700;
const SWITCH_MS = 60000; // a model has to warm up first; the server says when it is shown, or why not

/** Values with a place of their own in the page (player bar, seed strip), not in the panel. */
const ELSEWHERE = new Set(['seed', 'scrub', 'pause']);

/** Values that the server takes on only after some work. */
const SWITCHED = new Set(['model', 'resolution']);

/** What only the page knows: how a number is best shown and moved. Unknown names need no entry. */
const HINTS = {
  psi: { digits: 2, note: 'how far from the average picture' },
  speed: { digits: 2, unit: '×', note: 'negative runs backwards' },
  fps: { digits: 0, unit: ' fps', min: 1, max: 60, note: 'pictures per second' },
  bitrate: { log: true, note: 'the most that is sent', format: formatBitrate },
  resolution: { format: (value) => `${value}` },
};

export function formatBitrate(bps) {
  if (!Number.isFinite(bps)) return '–';
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(bps < 1e7 ? 2 : 1)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

export class ControlPanel {
  /** `onChange(name, value)` is called for each movement by the person. */
  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    this.widgets = new Map();
    this.held = new Map(); // name -> until when the person's value stands
    this.values = {}; // as the server last said
    form.addEventListener('submit', (event) => event.preventDefault());
  }

  /** Rebuild only when the schema differs, so that a reconnect does not steal the focus. */
  build(schema) {
    const key = JSON.stringify(schema);
    if (key === this.built) return;
    this.built = key;
    this.widgets.clear();
    this.form.replaceChildren();
    this.schema = new Map(schema.map((entry) => [entry.name, entry]));
    for (const entry of schema) {
      if (ELSEWHERE.has(entry.name)) continue;
      const widget = makeWidget(entry, (value) => this.change(entry.name, value));
      if (!widget) continue;
      this.widgets.set(entry.name, widget);
      this.form.append(widget.element);
    }
  }

  change(name, value) {
    this.hold(name);
    this.values = { ...this.values, [name]: value };
    this.onChange(name, value);
  }

  hold(name) {
    this.held.set(name, performance.now() + (SWITCHED.has(name) ? SWITCH_MS : HOLD_MS));
    clearTimeout(this.settle);
    this.settle = setTimeout(() => this.show(this.values), HOLD_MS + 20);
  }

  isHeld(name) {
    return performance.now() < (this.held.get(name) ?? 0);
  }

  /** Put the widgets to `values` at once, held or not. */
  set(values) {
    this.values = { ...this.values, ...values };
    for (const [name, widget] of this.widgets) if (name in values) widget.set(values[name]);
  }

  /** What was held and refused is to show the server's values again. */
  release(values) {
    this.held.clear();
    this.show(values);
  }

  /** Values from the server. */
  show(values) {
    for (const name of SWITCHED) if (values[name] === this.values[name]) this.held.delete(name);
    const kept = Object.fromEntries(Object.keys(this.values).filter((name) => this.isHeld(name)).map((name) => [name, this.values[name]]));
    this.values = { ...values, ...kept };
    for (const [name, widget] of this.widgets) {
      if (name in values && !this.isHeld(name)) widget.set(values[name]);
    }
  }

  setDisabled(disabled) {
    for (const widget of this.widgets.values()) widget.disable(disabled);
  }

  /** { name: default } of everything whose default is known. */
  defaults() {
    const known = [...(this.schema?.values() ?? [])].filter((entry) => entry.default !== null && entry.default !== undefined);
    return Object.fromEntries(known.map((entry) => [entry.name, entry.default]));
  }
}

function makeWidget(entry, onChange) {
  const { choices } = entry;
  if (entry.type === 'choice') return choices.length <= 5 ? segments(entry, choices, onChange) : menu(entry, choices, onChange);
  if (entry.type === 'bool') return toggle(entry, onChange);
  if (Number.isFinite(entry.min) && Number.isFinite(entry.max)) return slider(entry, onChange);
  return null; // nothing a person could move sensibly
}

function row(entry, control, { value = null, labelFor = null } = {}) {
  const hint = HINTS[entry.name] ?? {};
  const element = document.createElement('div');
  element.className = 'control';
  const label = document.createElement(labelFor ? 'label' : 'span');
  label.className = 'label';
  label.id = `label-${entry.name}`;
  label.textContent = entry.label ?? entry.name;
  if (labelFor) label.htmlFor = labelFor;
  element.append(label);
  if (hint.note) element.title = `${label.textContent}: ${hint.note}`;
  if (value) element.append(value);
  element.append(control);
  return element;
}

function slider(entry, onChange) {
  const hint = HINTS[entry.name] ?? {};
  const min = Math.max(entry.min, hint.min ?? -Infinity);
  const max = Math.min(entry.max, hint.max ?? Infinity);
  const whole = entry.type === 'int';
  const toValue = (position) => (hint.log ? Math.round(min * (max / min) ** (position / 1000) / 1000) * 1000 : position);
  const toPosition = (value) => (hint.log ? (1000 * Math.log(value / min)) / Math.log(max / min) : value);
  const format = hint.format ?? ((value) => `${value.toFixed(hint.digits ?? (whole ? 0 : 2))}${hint.unit ?? (entry.unit ? ` ${entry.unit}` : '')}`);

  const input = document.createElement('input');
  input.type = 'range';
  input.id = `control-${entry.name}`;
  input.min = hint.log ? 0 : min;
  input.max = hint.log ? 1000 : max;
  input.step = hint.log ? 5 : (entry.step ?? (whole ? 1 : 0.01));
  const value = document.createElement('output');
  value.className = 'value';
  value.htmlFor = input.id;
  const paint = (number) => {
    value.textContent = format(number);
    input.setAttribute('aria-valuetext', format(number));
    fill(input, hint.log ? 0 : min < 0 && max > 0 ? 0 : min);
  };
  const clamp = (number) => Math.min(max, Math.max(min, number));
  const set = (number) => {
    input.value = toPosition(clamp(number));
    paint(number);
  };
  input.addEventListener('input', () => {
    const number = clamp(toValue(Number(input.value)));
    paint(number);
    onChange(number);
  });
  input.addEventListener('dblclick', () => {
    if (!Number.isFinite(entry.default)) return;
    set(entry.default);
    onChange(entry.default);
  });
  return {
    element: row(entry, input, { value, labelFor: input.id }),
    set,
    disable: (disabled) => (input.disabled = disabled),
  };
}

/** Colour the track between `origin` and the thumb; an axis with a zero inside is filled from there. */
function fill(input, origin) {
  const part = (value) => (100 * (value - input.min)) / (input.max - input.min);
  const ends = [part(origin), part(Number(input.value))].sort((a, b) => a - b);
  input.style.setProperty('--from', `${ends[0].toFixed(2)}%`);
  input.style.setProperty('--fill', `${ends[1].toFixed(2)}%`);
}

/** A few choices side by side: radio buttons, so arrows move between them. */
function segments(entry, choices, onChange) {
  const group = document.createElement('div');
  group.className = 'segments';
  group.setAttribute('role', 'radiogroup');
  group.setAttribute('aria-labelledby', `label-${entry.name}`);
  const format = HINTS[entry.name]?.format ?? String;
  const inputs = choices.map((choice) => {
    const label = document.createElement('label');
    const input = document.createElement('input');
    input.type = 'radio';
    input.name = entry.name;
    input.value = choice;
    input.addEventListener('change', () => input.checked && onChange(choice));
    const text = document.createElement('span');
    text.textContent = format(choice);
    label.append(input, text);
    group.append(label);
    return input;
  });
  return {
    element: row(entry, group),
    set: (value) => inputs.forEach((input, i) => (input.checked = choices[i] === value)),
    disable: (disabled) => inputs.forEach((input) => (input.disabled = disabled)),
  };
}

function menu(entry, choices, onChange) {
  const select = document.createElement('select');
  select.id = `control-${entry.name}`;
  for (const choice of choices) select.add(new Option(String(choice), String(choice)));
  select.addEventListener('change', () => onChange(choices[select.selectedIndex]));
  return {
    element: row(entry, select, { labelFor: select.id }),
    set: (value) => (select.selectedIndex = choices.indexOf(value)),
    disable: (disabled) => (select.disabled = disabled),
  };
}

function toggle(entry, onChange) {
  const input = document.createElement('input');
  input.type = 'checkbox';
  input.id = `control-${entry.name}`;
  input.setAttribute('role', 'switch');
  input.addEventListener('change', () => onChange(input.checked));
  return {
    element: row(entry, input, { labelFor: input.id }),
    set: (value) => (input.checked = Boolean(value)),
    disable: (disabled) => (input.disabled = disabled),
  };
}
