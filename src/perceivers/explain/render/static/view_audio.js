// Audio: its waveform, its spectrogram in seconds and hertz with the map over it, and the position that is playing.

import { loaded, tile } from "./colors.js";
import { make, named, redraw, sharp } from "./dom.js";
import { BARS, LEFT, RIGHT, TICKS, drawMapLane, drawName, drawNow, drawTicks, seekable } from "./lanes.js";

const WAVE = 64;
const SPECTRUM = 220;
const ROUND = [100, 250, 500, 1000, 2000, 4000, 8000, 16000];

/** Return the lowest and highest sample of each column of a clip, from the decoded file. */
function envelopeOf(clock, columns) {
  const { sound, offset, seconds } = clock;
  const samples = sound.getChannelData(0);
  const from = Math.round(offset * sound.sampleRate);
  const each = (seconds * sound.sampleRate) / columns;
  const found = { low: [], high: [] };
  for (let column = 0; column < columns; column += 1) {
    const part = samples.subarray(from + Math.floor(column * each), from + Math.ceil((column + 1) * each));
    found.low.push(part.reduce((low, value) => Math.min(low, value), 0));
    found.high.push(part.reduce((high, value) => Math.max(high, value), 0));
  }
  return found;
}

function drawWave(context, { low, high }, width, top) {
  const largest = Math.max(...high, ...low.map((value) => -value), 1e-6);
  const each = (width - LEFT - RIGHT) / low.length;
  context.fillStyle = named("bar");
  for (let column = 0; column < low.length; column += 1) {
    const above = (WAVE / 2) * (1 - (0.94 * high[column]) / largest);
    const below = (WAVE / 2) * (1 - (0.94 * low[column]) / largest);
    context.fillRect(LEFT + column * each, top + above, Math.max(each, 1), Math.max(below - above, 1));
  }
  drawName(context, "wave", top + WAVE / 2);
}

/** Write round frequencies beside their bands. Those that would overlap are left out. */
function drawHertz(context, hertz, top) {
  let last = Infinity;
  for (const wanted of ROUND) {
    const above = hertz.findIndex((one) => one >= wanted);
    if (above <= 0) continue;
    const place = above - (hertz[above] - wanted) / (hertz[above] - hertz[above - 1]);
    const y = top + SPECTRUM * (1 - (place + 0.5) / hertz.length);
    if (last - y < 18) continue;
    drawName(context, wanted < 1000 ? `${wanted} Hz` : `${wanted / 1000} kHz`, y);
    last = y;
  }
}

function drawSpectrum(context, view, image, map, width, top) {
  const wide = width - LEFT - RIGHT;
  context.imageSmoothingEnabled = false;
  context.drawImage(image, LEFT, top, wide, SPECTRUM);
  if (map) {
    const [high, along] = view.extent;
    context.save();
    context.beginPath();
    context.rect(LEFT, top, wide, SPECTRUM);
    context.clip();
    context.drawImage(map, LEFT, top + SPECTRUM * (1 - high), wide * along, SPECTRUM * high);
    context.restore();
  }
  drawHertz(context, view.hertz, top);
}

/** Draw a clip; return a function that draws another map over it. */
export async function audioView(view, host, clock) {
  const image = view.image ? await loaded(view.image) : null;
  const waves = view.channels ?? (clock.sound ? [envelopeOf(clock, 700)] : []);
  const top = waves.length * (WAVE + 8);
  const height = top + (image ? SPECTRUM : BARS + 4) + TICKS;
  const canvas = make("canvas", { class: "drawn lane", role: "img", "aria-label": `${view.input} with the map over it` });
  canvas.style.height = `${height}px`;
  host.append(canvas);
  const rest = clock.sound ? clock.sound.duration - view.seconds : 0;
  if (rest > 0.05) host.append(make("p", { class: "quiet" }, `The model received ${view.seconds.toFixed(1)} s: the middle of ${clock.sound.duration.toFixed(1)} s.`));
  if (clock.isSilent) host.append(make("p", { class: "quiet" }, "This browser cannot play this kind of file, so it is silent here."));
  let shown = null;
  let still = null; // everything but the position that is playing
  const paint = () => {
    if (!canvas.clientWidth) return;
    const width = canvas.clientWidth;
    still = document.createElement("canvas");
    const context = sharp(still, width, height);
    waves.forEach((wave, channel) => drawWave(context, wave, width, channel * (WAVE + 8)));
    if (image) {
      drawSpectrum(context, view, image, shown && tile(shown, ...view.axes, { upwards: true }), width, top);
      drawTicks(context, width, height - TICKS, view.seconds, "s");
    } else drawMapLane(context, shown, view, width, top, view.seconds, "s");
    move();
  };
  const move = () => {
    if (!still) return;
    const context = sharp(canvas, canvas.clientWidth, height);
    context.drawImage(still, 0, 0, canvas.clientWidth, height);
    drawNow(context, canvas.clientWidth, height - TICKS, clock.now / clock.seconds);
  };
  seekable(canvas, clock);
  redraw(canvas, paint);
  clock.listen(move);
  return (map) => {
    shown = map;
    paint();
  };
}
