// What can be done with the picture besides showing it: save it, enlarge it, keep it, glow.

/** Save what is shown now as a PNG called `name`; resolves with whether there was a picture. */
export async function snapshot(video, name) {
  if (!video.videoWidth) return false;
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return true;
}

/** Into or out of full screen; resolves with a sentence where the browser does not do it. */
export async function fullscreen(element, video) {
  try {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (element.requestFullscreen) await element.requestFullscreen();
    else if (video.webkitEnterFullscreen) video.webkitEnterFullscreen(); // iPhones: videos only
    else return 'This browser has no full screen for pages; turn the phone instead.';
  } catch {
    return "The browser refused full screen; use the browser's own menu.";
  }
  return '';
}

/** The last picture while there is no stream, and the light around the picture while there is. */
export class Still {
  constructor(video, canvas, ambient) {
    Object.assign(this, { video, canvas });
    this.ambient = ambient.getContext('2d');
    this.calm = matchMedia('(prefers-reduced-motion: reduce)');
    this.lit = false;
  }

  /** Keep the last picture: the video turns black when its connection ends. */
  freeze() {
    if (!this.video.videoWidth) return;
    this.canvas.width = this.video.videoWidth;
    this.canvas.height = this.video.videoHeight;
    this.canvas.getContext('2d').drawImage(this.video, 0, 0);
    this.canvas.hidden = false;
  }

  hide() {
    this.canvas.hidden = true;
  }

  /**
   * The picture's colours as a soft light behind it: twelve by twelve pixels, which the compositor
   * stretches. Mixed in slowly; once only for those who asked for less motion.
   */
  glow() {
    if (this.calm.matches && this.lit) return;
    this.ambient.globalAlpha = this.lit ? 0.12 : 1;
    this.ambient.drawImage(this.video, 0, 0, 12, 12);
    this.lit = true;
  }
}
