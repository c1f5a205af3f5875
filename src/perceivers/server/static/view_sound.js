// A sound: its waveform, its spectrogram in seconds and hertz with the map over it, and where it is playing.

import { loaded, tile } from "./colors.js";
import { make, named, redraw, sharp } from "./dom.js";
import { LEFT, RIGHT, drawBars, drawName, drawNow, drawTicks, seekable } from "./lanes.js";

const WAVE = 64;
const SPECTRUM = 220;
const BARS = 110;
const TICKS = 22;
const ROUND = [100, 250, 500, 1000, 2000, 4000, 8000, 16000];

/** Return the lowest and highest sample of each column of a clip, from the decoded file. */
function envelopeOf(clock, columns) {
  const { sound, offset, seconds } = clock;
  const samples = sound.getChannelData(0);
  const from = Math.round(offset * sound.sampleRate);
  const each = (seconds * sound.sampleRate) / columns;
  const found = { lowest: [], highest: [] };
  for (let column = 0; column < columns; column += 1) {
    const part = samples.subarray(from + Math.floor(column * each), from + Math.ceil((column + 1) * each));
    found.lowest.push(part.reduce((low, value) => Math.min(low, value), 0));
    found.highest.push(part.reduce((high, value) => Math.max(high, value), 0));
  }
  return found;
}

function drawWave(context, envelope, width) {
  const { lowest, highest } = envelope;
  const largest = Math.max(...highest, ...lowest.map((value) => -value), 1e-6);
  const each = (width - LEFT - RIGHT) / lowest.length;
  context.fillStyle = named("bar");
  for (let column = 0; column < lowest.length; column += 1) {
    const top = (WAVE / 2) * (1 - (0.94 * highest[column]) / largest);
    const bottom = (WAVE / 2) * (1 - (0.94 * lowest[column]) / largest);
    context.fillRect(LEFT + column * each, top, Math.max(each, 1), Math.max(bottom - top, 1));
  }
  drawName(context, "wave", WAVE / 2);
}

/** Write round frequencies beside the bands that they lie in. Those that would lie on each other are left out. */
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

function drawSpectrum(context, view, picture, map, width, top) {
  const wide = width - LEFT - RIGHT;
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, LEFT, top, wide, SPECTRUM);
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

/** Draw a sound; return what draws another map over it. */
export async function soundView(view, host, clock) {
  const picture = view.picture ? await loaded(view.picture) : null;
  const envelope = view.lowest ? view : clock.sound && envelopeOf(clock, 700);
  const top = envelope ? WAVE + 8 : 0;
  const height = top + (picture ? SPECTRUM : BARS) + TICKS;
  const canvas = make("canvas", { class: "drawn lane", role: "img", "aria-label": `${view.input} with the map over it` });
  canvas.style.height = `${height}px`;
  host.append(canvas);
  const rest = clock.sound ? clock.sound.duration - view.seconds : 0;
  if (rest > 0.05) host.append(make("p", { class: "quiet" }, `It hears ${view.seconds.toFixed(1)} s: the middle of ${clock.sound.duration.toFixed(1)} s.`));
  if (!clock.sound) host.append(make("p", { class: "quiet" }, "This browser cannot play this kind of file, so it is silent here."));
  let levels = null;
  let shown = true;
  let still = null; // everything but where it is playing
  const paint = () => {
    if (!levels || !canvas.clientWidth) return;
    const width = canvas.clientWidth;
    still = document.createElement("canvas");
    const context = sharp(still, width, height);
    if (envelope) drawWave(context, envelope, width);
    if (picture) drawSpectrum(context, view, picture, shown && tile(levels, ...view.axes, true), width, top);
    else if (shown) {
      drawBars(context, levels, view.extent[0], { left: LEFT, top, width: width - LEFT - RIGHT, height: BARS });
      drawName(context, "map", top + BARS / 2);
    }
    drawTicks(context, width, height - TICKS, view.seconds, "s");
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
  return (next, visible) => {
    levels = next;
    shown = visible;
    paint();
  };
}
