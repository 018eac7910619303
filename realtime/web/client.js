// The page: joins the connection, the controls and the read-outs. No build step, no library.

import { makeReader } from './barcode.js';
import { Connection } from './connection.js';
import { ControlPanel } from './controls.js';
import { listenForKeys, shareDialog } from './dialogs.js';
import { ClockOffset, LatencyTracker } from './latency.js';
import { fullscreen, snapshot, Still } from './picture.js';
import { LatencyPlot } from './plot.js';
import { Readout } from './readout.js';
import { SeedStrip } from './seeds.js';
import { Transport } from './transport.js';

const SEND_MS = 33; // a dragged slider sends at most once a frame
const READOUT_MS = 250;
const NOTICE_MS = 5000;

const query = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);
const video = byId('video');

const clock = new ClockOffset();
const tracker = new LatencyTracker(clock);
const readout = new Readout(byId, new LatencyPlot(byId('plot')), tracker);
const panel = new ControlPanel(byId('panel'), change);
const seeds = new SeedStrip(
  { thumbs: byId('thumbs'), number: byId('seed'), back: byId('seeds-back'), on: byId('seeds-on'), dice: byId('dice') },
  (seed) => change('seed', seed),
);
const transport = new Transport({ pause: byId('pause'), scrub: byId('scrub'), clock: byId('clock') }, change);

const still = new Still(video, byId('still'), byId('ambient'));

const state = { phase: 'connecting', problem: '', controls: {}, model: null, trained: null, barcode: -1, barcodes: 0, untilMs: null };
const desired = {}; // what was set here, or by another viewer: survives a restart of the server

// ---------------------------------------------------------------- controls out

let outbox = {};
let outboxTimer = null;

/** A person moved a control. Changes within one frame travel together. */
function change(name, value) {
  if (name !== 'scrub') desired[name] = value; // a place in time is not a setting
  if (name in panel.values) panel.values[name] = value;
  outbox[name] = value;
  panel.hold(name);
  outboxTimer ??= setTimeout(flush, SEND_MS);
}

function flush() {
  outboxTimer = null;
  const changes = outbox;
  outbox = {};
  connection.send({ type: 'set', ...changes });
}

/** What anybody has changed is what this page wants back after a restart. */
function remember(controls) {
  for (const [name, value] of Object.entries(controls)) {
    if (name === 'scrub' || panel.isHeld(name)) continue;
    if (name in desired || value !== state.controls[name]) desired[name] = value;
  }
}

/** The look of a shared stream, wanted back should this page get a stream of its own. */
function adopt({ scrub, ...controls }) {
  Object.assign(desired, controls);
}

/** After a reconnect: each value on its own, so that one refused value does not take the others along. */
function resend(controls) {
  for (const [name, value] of Object.entries(desired)) {
    if (controls[name] !== value) connection.send({ type: 'set', [name]: value });
  }
}

// ---------------------------------------------------------------- messages in

const handlers = {
  hello(message) {
    panel.build(message.schema);
    state.codec = message.codec;
    listModels(message.models);
    show(message.controls);
    if (connection.joining) adopt(message.controls);
    else resend(message.controls);
    setDisabled(false);
  },
  state(message) {
    if (message.models) listModels(message.models);
    remember(message.controls);
    show(message.controls);
  },
  frames(message) {
    tracker.onRows(message.rows);
  },
  stats(message) {
    state.stats = message;
    readout.stats(message);
    transport.anchor(message);
    seeds.setLoaded(message.model);
    setTrained(message.trained);
    const viewers = message.viewers ?? 1;
    byId('viewers').hidden = viewers < 2;
    byId('viewers').textContent = `${viewers} viewers`;
  },
  notice(message) {
    notify(message.text, message.level);
    if (message.level === 'error') refused();
  },
  error(message) {
    notify(message.message, 'error');
    refused();
  },
};

/** What the server offers; thumbnails are asked for only of what it has loaded. */
function listModels(models) {
  state.models = models;
  for (const model of models) if (model.resolution !== null) seeds.setLoaded(model.name);
}

function show(controls) {
  state.controls = { ...state.controls, ...controls };
  panel.show(controls);
  if (!panel.isHeld('seed') && Number.isFinite(controls.seed)) seeds.show(controls.seed);
  if (controls.model !== undefined) {
    seeds.setModel(controls.model);
    state.model = controls.model;
    setTrained(state.models?.find((model) => model.name === controls.model)?.trained);
  }
  transport.show(controls, panel.isHeld('pause'));
  document.title = controls.pause ? 'Paused · Stylewire' : 'Stylewire';
}

/** The server did not take a value: show its own. */
function refused() {
  panel.release(state.controls);
  show(state.controls);
}

function setTrained(trained) {
  if (typeof trained !== 'boolean') return;
  state.trained = trained;
  byId('untrained').hidden = trained;
}

function setDisabled(disabled) {
  panel.setDisabled(disabled);
  seeds.setDisabled(disabled);
  transport.setDisabled(disabled);
  for (const id of ['share', 'defaults']) byId(id).disabled = disabled;
}

let noticeTimer = null;
function notify(text, level = 'info', stayMs = level === 'error' ? 2 * NOTICE_MS : NOTICE_MS) {
  const box = byId('notice');
  box.textContent = text;
  box.dataset.level = level;
  box.hidden = false;
  state.notice = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (box.hidden = true), stayMs);
}

// ---------------------------------------------------------------- the connection's phases

const PHASES = { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting', refused: 'Stopped' };

function phase(name, { problem = null, untilMs = null, again = false, parted = false } = {}) {
  const wasDown = state.problem !== '';
  // Between two tries the last sentence stays up: it should not flicker with each attempt.
  if (name !== 'connecting') state.problem = problem?.message ?? '';
  state.phase = name;
  state.untilMs = untilMs;
  byId('status').dataset.phase = name === 'connecting' && wasDown ? 'waiting' : name;
  byId('status-text').textContent = name === 'connecting' && wasDown ? PHASES.waiting : PHASES[name];
  byId('overlay').hidden = name === 'live' && state.pictured;
  byId('spinner').hidden = name === 'refused';
  if (byId('problem').textContent !== state.problem) byId('problem').textContent = state.problem;
  byId('retry').hidden = !state.problem || name === 'live';
  byId('fresh').hidden = name !== 'refused' || !query.has('session');
  if (name !== 'live') {
    state.pictured = false;
    setDisabled(true);
  }
  if (name === 'live') {
    tracker.reset();
    clock.reset();
    if (parted) part();
    else if (again) notify('Connected again.');
  }
  countDown();
}

/** The shared stream is gone, and the link to it with it. */
function part() {
  const here = new URL(location.href);
  here.searchParams.delete('session');
  query.delete('session');
  history.replaceState(null, '', here);
  notify('The shared stream has ended. This is now a stream of your own: what you change is no longer seen by the others.', 'info', 15000);
}

function countDown() {
  const next = byId('next');
  if (state.phase === 'waiting') {
    const left = Math.max(0, Math.ceil((state.untilMs - performance.now()) / 1000));
    next.textContent = left ? `Next try in ${left} s.` : 'Trying again.';
  } else if (state.phase === 'connecting') next.textContent = state.problem ? 'Trying again.' : 'Connecting to the stream.';
  else if (state.phase === 'live') next.textContent = 'Waiting for the first picture.';
  else next.textContent = '';
}

// ---------------------------------------------------------------- the picture

const read = query.has('barcode') ? makeReader() : null;

function onFrame(calledMs, metadata) {
  video.requestVideoFrameCallback(onFrame);
  tracker.onFrame(metadata, performance.now());
  if (read) {
    const number = read(video);
    if (number >= 0) {
      state.barcode = number;
      state.barcodes += 1;
    }
  }
  if (!state.pictured && state.phase === 'live') pictured(); // an ending track shows one black frame
}

function pictured() {
  state.pictured = true;
  if (state.phase === 'live') byId('overlay').hidden = true;
  still.hide();
  byId('play').hidden = true;
  byId('snapshot').disabled = false;
}

async function onTrack(track) {
  video.srcObject = new MediaStream([track]);
  try {
    await video.play();
  } catch (error) {
    if (error.name !== 'NotAllowedError') return; // a newer track replaced this one before it played
    byId('problem').textContent = 'The browser wants a click before it plays video.';
    byId('play').hidden = false;
  }
}

function describePicture() {
  const chip = byId('picture');
  chip.hidden = !video.videoWidth;
  const name = state.model ? `${state.model} · ` : '';
  chip.textContent = `${name}${video.videoWidth} × ${video.videoHeight}${state.codec ? ` · ${state.codec === 'H264' ? 'H.264' : state.codec}` : ''}`;
}

async function save() {
  const name = `stylewire-${state.model ?? 'picture'}-seed-${state.controls.seed ?? 0}.png`;
  const saved = await snapshot(video, name);
  if (saved) notify(`Saved ${name}.`);
  else notify('There is no picture yet; wait for the stream to start.', 'error');
}

async function enlarge() {
  const problem = await fullscreen(byId('screen'), video);
  if (problem) notify(problem, 'error');
}

// ---------------------------------------------------------------- keys and buttons

const share = shareDialog(byId, () => {
  const link = new URL(location.pathname, location.href);
  link.searchParams.set('session', connection.session);
  if (connection.codec) link.searchParams.set('codec', connection.codec);
  return link.href;
});
const help = () => byId('help-box').showModal();

listenForKeys({
  isOn: (key) => byId('keys-on').checked && (state.phase === 'live' || 'f?'.includes(key)),
  actions: {
    ' ': () => transport.toggle(),
    n: () => seeds.step(1),
    p: () => seeds.step(-1),
    r: () => seeds.random(),
    s: () => byId('snapshot').disabled || save(),
    f: enlarge,
    '?': help,
  },
});

function resetAll() {
  const { model, pause, ...values } = panel.defaults(); // what is shown, and whether it moves, stay
  for (const [name, value] of Object.entries(values)) change(name, value);
  panel.set(values);
  seeds.show(values.seed);
  notify('All controls are back at their defaults.');
}

// ---------------------------------------------------------------- start

const connection = new Connection({
  codec: query.get('codec')?.toUpperCase() ?? null,
  session: query.get('session'),
  barcode: query.has('barcode'),
  controls: () => ({ ...desired }),
  on: {
    phase,
    track: onTrack,
    ending: () => state.pictured && still.freeze(),
    pong: (sentMs, receivedMs, serverMs) => clock.add(sentMs, receivedMs, serverMs),
    message: (message) => handlers[message.type]?.(message),
  },
});

byId('snapshot').addEventListener('click', save);
byId('fullscreen').addEventListener('click', enlarge);
byId('share').addEventListener('click', share);
byId('help').addEventListener('click', help);
byId('untrained').addEventListener('click', () => notify(byId('untrained').title));
byId('retry').addEventListener('click', () => connection.retry());
byId('play').addEventListener('click', () => video.play());
byId('defaults').addEventListener('click', resetAll);
video.addEventListener('resize', describePicture);
window.addEventListener('online', () => connection.retry());
window.addEventListener('pagehide', () => connection.leave());
window.addEventListener('pageshow', (event) => event.persisted && connection.drop());
if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(onFrame);
else {
  tracker.nameless = Infinity;
  video.addEventListener('playing', pictured);
}

setInterval(() => {
  const now = performance.now();
  readout.update(now, { live: state.phase === 'live', controls: state.controls });
  transport.tick(now, state.phase === 'live');
  describePicture();
  countDown();
  if (state.pictured && !document.hidden) still.glow();
}, READOUT_MS);

/** Read-only figures, for tests and for the curious. */
window.stylewire = Object.freeze({
  get phase() { return state.phase; },
  get problem() { return state.problem; },
  get notice() { return state.notice ?? ''; },
  get connects() { return connection.connects; },
  get session() { return connection.session; },
  get viewer() { return connection.viewer ?? null; },
  get controls() { return { ...state.controls }; },
  get desired() { return { ...desired }; },
  get model() { return state.model; },
  get trained() { return state.trained; },
  get codec() { return state.codec ?? null; },
  get stats() { return state.stats ? { ...state.stats } : null; },
  get frames() { return tracker.frames; },
  get samples() { return tracker.samples.map((sample) => ({ ...sample })); },
  get fps() { return tracker.fps(performance.now()); },
  get frameAgeMs() { return tracker.frameAge(performance.now()); },
  get latency() { return tracker.summary(performance.now()); },
  get clockOffsetMs() { return clock.offsetMs ?? NaN; },
  get motionS() { return transport.motionAt(performance.now()); },
  get lastCalledMs() { return tracker.lastCalledMs; },
  get barcode() { return state.barcode; },
  get barcodes() { return state.barcodes; },
  get width() { return video.videoWidth; },
  get height() { return video.videoHeight; },
});

connection.run();
