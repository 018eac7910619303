// Evaluated in a blank page of the measured server's origin: plays one stream and records every
// presented frame. Called with { codec, controls, seconds, warmup, gather, reader }, both times in
// seconds from the first picture on; gives plain data back.
async ({ codec, controls, seconds, warmup, gather, reader }) => {
  const { makeReader } = await import(reader);
  const video = document.createElement('video');
  Object.assign(video, { autoplay: true, muted: true, playsInline: true });
  document.body.replaceChildren(video);
  const read = makeReader();
  const rows = [];
  const clocks = [];
  const stamps = [];
  const onFrame = (_, frame) => {
    const called = performance.now();
    video.requestVideoFrameCallback(onFrame);
    rows.push({
      number: read(video),
      presented: frame.presentationTime,
      received: frame.receiveTime ?? null,
      called,
    });
  };
  video.requestVideoFrameCallback(onFrame);

  const begun = performance.now();
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const channel = pc.createDataChannel('control');
  channel.onmessage = (event) => {
    const back = performance.now();
    const message = JSON.parse(event.data);
    if (message.type === 'pong') clocks.push([message.t, back, message.server_ms]);
    if (message.type === 'frames') stamps.push(...message.rows);
  };
  const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
  const all = RTCRtpReceiver.getCapabilities('video').codecs;
  // aiortc knows one H.264 that Chromium offers: constrained baseline, packetization mode 1.
  const fits = (one) =>
    one.mimeType === `video/${codec}` &&
    (codec !== 'H264' || (/packetization-mode=1/.test(one.sdpFmtpLine) && /profile-level-id=42e0/i.test(one.sdpFmtpLine)));
  transceiver.setCodecPreferences([...all.filter(fits), ...all.filter((one) => one.mimeType === 'video/rtx')]);
  pc.ontrack = (event) => (video.srcObject = new MediaStream([event.track]));
  await pc.setLocalDescription();
  while (gather && pc.iceGatheringState !== 'complete') {
    await new Promise((done) => pc.addEventListener('icegatheringstatechange', done, { once: true }));
  }
  const response = await fetch('/offer', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ sdp: pc.localDescription.sdp, codec, barcode: true, controls }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  await pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });

  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!rows.length && performance.now() - begun < 20000) await sleep(5);
  if (!rows.length) throw new Error('no picture within 20 s');
  const received = async () => [...(await pc.getStats()).values()].find((report) => report.type === 'inbound-rtp');
  const first = performance.now();
  let atStart = null; // the measured window's two ends, for the rate between them
  while (performance.now() < first + seconds * 1000) {
    if (!atStart && performance.now() >= first + warmup * 1000) atStart = await received();
    if (channel.readyState === 'open') channel.send(JSON.stringify({ type: 'ping', t: performance.now() }));
    await sleep(100);
  }
  const atEnd = await received();
  await sleep(400); // the last pictures, and their stamps, which come four times a second
  pc.close();
  return { rows, clocks, stamps, begun, session: answer.session, viewer: answer.viewer, atStart, atEnd };
}
