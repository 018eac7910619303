// One viewer's connection: offer, answer, data channel, and coming back after whatever happens.
//
// The offer goes out straight after setLocalDescription: the server answers with all its candidates
// and finds this browser by the browser's own checks, so there is no gathering to wait for.

const BACKOFF_MS = [500, 1000, 2000, 4000, 5000];
const CONNECT_LIMIT_MS = 10000;
const SILENCE_MS = 3500; // without a pong; the page pings twice a second
const PING_MS = 500;
const TRANSIENT = new Set([408, 429, 503]); // too slow, too often, too many: later it may be well
const LONGEST_WAIT_MS = 60000; // whatever Retry-After says
const FIRST_PINGS_MS = [0, 40, 80, 120, 160, 240, 320]; // the clock offset is wanted at once

/** Why there is no stream, as a sentence; `final` problems are not tried again by themselves. */
export class Problem extends Error {
  constructor(message, { final = false, code = '', status = 0, waitMs = 0 } = {}) {
    super(message);
    Object.assign(this, { final, code, status, waitMs });
  }

  /** Whether the server refused this offer as such, so that only another one may be taken. */
  get refused() {
    return this.status >= 400 && this.status < 500 && !TRANSIENT.has(this.status);
  }
}

/**
 * Callbacks in `on`: phase(name, details), track(MediaStreamTrack), message(object),
 * pong(sent ms, received ms, server ms), ending() while the last picture can still be read.
 * Phases: "connecting", "live", "waiting" (tries again by itself), "refused" (needs a person).
 */
export class Connection {
  constructor({ codec = null, session = null, barcode = false, controls = () => ({}), on }) {
    Object.assign(this, { codec, session, barcode, controls, on });
    this.joining = session !== null; // a shared link: the session is someone else's
    this.parted = false; // the shared session is gone, and this page has one of its own instead
    this.everLive = false;
    this.connects = 0;
    this.failures = 0;
    this.channel = null;
    this.skipWait = () => {};
    this.drop = () => {};
  }

  /** Connect, and connect again, for as long as the page lives. */
  async run() {
    for (;;) {
      let problem;
      try {
        this.on.phase('connecting', { again: this.everLive });
        problem = await this.attempt();
      } catch (error) {
        if (!(error instanceof Problem)) console.error(error);
        problem =
          error instanceof Problem ? error : new Problem(`The browser could not connect: ${error.message}. Reload the page.`);
      }
      await this.pauseAfter(problem);
    }
  }

  /** Try again now instead of at the end of the wait. */
  retry() {
    this.skipWait();
  }

  send(message) {
    if (this.channel?.readyState !== 'open') return false;
    this.channel.send(JSON.stringify(message));
    return true;
  }

  async pauseAfter(problem) {
    const backoffMs = BACKOFF_MS[Math.min(this.failures, BACKOFF_MS.length - 1)] * (0.9 + 0.2 * Math.random());
    const waitMs = Math.max(backoffMs, problem.waitMs); // never before the time that the server asked for
    this.failures += 1;
    const phase = problem.final ? 'refused' : 'waiting';
    this.on.phase(phase, { problem, untilMs: problem.final ? null : performance.now() + waitMs });
    await new Promise((resolve) => {
      this.skipWait = resolve;
      if (!problem.final) setTimeout(resolve, waitMs);
    });
    this.skipWait = () => {};
  }

  /** One life of the connection. Resolves with the Problem that ended it. */
  async attempt() {
    if (!window.RTCPeerConnection) {
      throw new Problem('This browser has no WebRTC; open the page in a current Chrome, Edge, Firefox or Safari.', { final: true });
    }
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const timers = [];
    try {
      const lost = this.watch(pc, timers);
      await this.negotiate(pc);
      return await lost;
    } finally {
      timers.forEach(clearInterval);
      this.channel = null;
      this.on.ending();
      pc.close();
      this.leave();
    }
  }

  /** A promise of the Problem that ends this connection; sets up channel and track on the way. */
  watch(pc, timers) {
    const channel = pc.createDataChannel('control');
    let heard = performance.now();
    let open = false;
    return new Promise((resolve) => {
      const end = (text) => resolve(new Problem(text));
      this.drop = () => end('The stream was closed by this page.');
      channel.onopen = () => {
        open = true;
        heard = performance.now();
        this.channel = channel;
        for (const wait of FIRST_PINGS_MS) timers.push(setTimeout(() => this.ping(), wait));
        timers.push(setInterval(() => this.ping(), PING_MS));
      };
      channel.onclose = () => end('The server closed the stream.');
      channel.onmessage = (event) => {
        heard = performance.now();
        this.receive(JSON.parse(event.data), heard);
      };
      pc.ontrack = (event) => this.on.track(event.track);
      pc.onconnectionstatechange = () => {
        if (pc.connectionState === 'failed' || pc.connectionState === 'closed') {
          end(open ? 'The connection to the server was lost.' : unreachable());
        }
      };
      const begun = performance.now();
      let ticked = begun;
      timers.push(
        setInterval(() => {
          const now = performance.now();
          if (now - ticked > 2000) heard = Math.max(heard, now - 1000); // this tab slept, not the server
          ticked = now;
          if (open && now - heard > SILENCE_MS) end('The server has gone quiet.');
          if (!open && now - begun > CONNECT_LIMIT_MS) end(unreachable());
        }, PING_MS),
      );
    });
  }

  ping() {
    this.send({ type: 'ping', t: performance.now() });
  }

  receive(message, receivedMs) {
    if (message.type === 'pong') {
      this.on.pong(message.t, receivedMs, message.server_ms);
      return;
    }
    if (message.type === 'hello') {
      this.session = message.session ?? this.session;
      this.viewer = message.viewer ?? this.viewer;
      this.failures = 0;
      this.connects += 1;
      this.on.phase('live', { again: this.everLive, parted: this.parted });
      this.parted = false;
      this.everLive = true;
    }
    this.on.message(message);
  }

  async negotiate(pc) {
    const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
    if (this.codec) preferCodec(transceiver, this.codec);
    await pc.setLocalDescription();
    const answer = await this.offer(pc.localDescription.sdp);
    this.session = answer.session;
    this.viewer = answer.viewer;
    await pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
  }

  /** Post the offer; where the last session is gone or its values are refused, ask for a new one. */
  async offer(sdp) {
    const body = { sdp };
    if (this.codec) body.codec = this.codec;
    if (this.barcode) body.barcode = true;
    try {
      return await post('offer', this.session ? { ...body, session: this.session } : { ...body, controls: this.controls() });
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.refused) throw problem;
      if (this.session) {
        if (!this.everLive) throw new Problem(`${problem.message}`, { ...problem, final: true });
        this.session = null;
        this.parted = this.joining; // told once the stream runs
        this.joining = false;
        return this.offer(sdp);
      }
      // A server started with other models may refuse a value that the last one accepted.
      if (Object.keys(this.controls()).length && this.everLive) return post('offer', body);
      throw new Problem(problem.message, { ...problem, final: true });
    }
  }

  /** Tell the server that this viewer is gone; it would notice by itself, some seconds later. */
  leave() {
    if (!this.session || !this.viewer) return;
    const path = `sessions/${encodeURIComponent(this.session)}/viewers/${encodeURIComponent(this.viewer)}`;
    this.viewer = null;
    fetch(path, { method: 'DELETE', keepalive: true }).catch(() => {}); // it may be the server that is gone
  }
}

function unreachable() {
  return `The server answers, but no video comes through: a firewall or VPN may block UDP to ${location.hostname}. Allow it, or open the page on the server's own machine.`;
}

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(CONNECT_LIMIT_MS),
    });
  } catch {
    throw new Problem('The server does not answer. If you stopped it, start it again; this page reconnects by itself.');
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const text = answer.message ?? `The server refused the stream with status ${response.status}; its log says why.`;
  throw new Problem(text, { code: answer.error ?? '', status: response.status, waitMs: retryAfterMs(response) });
}

/** Retry-After, in ms from now: seconds or a date; 0 where there is none. */
function retryAfterMs(response) {
  const said = response.headers.get('Retry-After') ?? '';
  const ms = /^\d+$/.test(said) ? 1000 * Number(said) : Date.parse(said) - Date.now();
  return Math.min(LONGEST_WAIT_MS, Math.max(0, ms || 0));
}

function preferCodec(transceiver, codec) {
  const all = RTCRtpReceiver.getCapabilities?.('video')?.codecs ?? [];
  const wanted = all.filter((one) => one.mimeType.toUpperCase() === `VIDEO/${codec}`);
  if (!wanted.length) {
    throw new Problem(`This browser cannot decode ${codec}; open the page without ?codec=, or with ?codec=VP8.`, { final: true });
  }
  const repair = all.filter((one) => one.mimeType === 'video/rtx');
  transceiver.setCodecPreferences([...wanted, ...repair]);
}
