// The frame number drawn into the top edge of a picture: 24 bits, then 8 bits of CRC, one block of
// width/32 each, dark or light in luma. The writing side is realtime/barcode.py.

const NUMBER_BITS = 24;
const CRC_BITS = 8;
const CELLS = NUMBER_BITS + CRC_BITS;
const CELL_PX = 3; // of the small canvas; its middle pixel is read, away from the edges of the block

/** CRC-8 (polynomial x^8 + x^2 + x + 1, start 0xff) of the three bytes of `number`. */
export function crc8(number) {
  let crc = 0xff;
  for (const shift of [16, 8, 0]) {
    crc ^= (number >> shift) & 0xff;
    for (let i = 0; i < 8; i++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
  }
  return crc;
}

/** The number in 32 light values (0..255), or -1 where the CRC disagrees. */
export function decode(lights) {
  let number = 0;
  let crc = 0;
  for (let i = 0; i < CELLS; i++) {
    const bit = lights[i] > 128 ? 1 : 0;
    if (i < NUMBER_BITS) number = number * 2 + bit;
    else crc = crc * 2 + bit;
  }
  return crc8(number) === crc ? number : -1;
}

/** BT.601 luma. Green alone would not do: the picture's own colours remain under the number. */
function luma(pixels, at) {
  return 0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2];
}

/**
 * A function (video) => number or -1. Only the top strip is copied, into 96x3 pixels: reading back
 * the whole picture would cost more than decoding it.
 */
export function makeReader() {
  const canvas = document.createElement('canvas');
  canvas.width = CELLS * CELL_PX;
  canvas.height = CELL_PX;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  const lights = new Uint8Array(CELLS);
  return (video) => {
    const width = video.videoWidth;
    if (!width) return -1;
    context.drawImage(video, 0, 0, width, width / CELLS, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 1, canvas.width, 1).data;
    for (let i = 0; i < CELLS; i++) lights[i] = luma(pixels, (i * CELL_PX + 1) * 4);
    return decode(lights);
  };
}
