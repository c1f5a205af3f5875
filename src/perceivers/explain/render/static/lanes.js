// Lanes along one axis: bars of attention, ticks, names, and the position of a clip that is playing.

import { colorOf, heat, strength } from "./colors.js";
import { named } from "./dom.js";

export const LEFT = 64; // room for the name of a lane
export const RIGHT = 10;
export const BARS = 90; // height of bars of attention
export const TICKS = 22; // height of ticks

/** Return about five round numbers from 0 to an end. */
export function ticksTo(end) {
  const rough = end / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough);
  const ticks = [];
  for (let tick = 0; tick <= end * 1.0001; tick += step) ticks.push(Number(tick.toPrecision(6)));
  return ticks;
}

/** Write times below a lane; the last has the unit. */
export function drawTicks(context, width, top, end, unit) {
  context.fillStyle = named("quiet");
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "top";
  const ticks = ticksTo(end);
  for (const tick of ticks) {
    const x = LEFT + (tick / end) * (width - LEFT - RIGHT);
    const last = tick === ticks.at(-1);
    context.textAlign = last && x > width - 60 ? "right" : "center";
    context.fillText(last ? `${tick} ${unit}` : String(tick), last && x > width - 60 ? width - 2 : x, top + 4);
    context.fillRect(x, top, 1, 3);
  }
}

/** Draw a map along an axis as bars: height and color show the strength of an element. */
export function drawBars(context, map, extent, box) {
  const count = map.levels.length;
  const wide = (box.width * extent) / count;
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  context.fillStyle = named("line");
  context.fillRect(box.left, box.top + box.height - 1, box.width, 1);
  for (let place = 0; place < count; place += 1) {
    if (!map.levels[place]) continue;
    const part = strength(map, place);
    context.fillStyle = colorOf(map, map.scores ? part : 0.2 + 0.65 * part, heat);
    const high = Math.max(1, part * box.height);
    context.fillRect(box.left + place * wide, box.top + box.height - high, Math.max(wide + 0.3, 0.8), high);
  }
  context.restore();
}

/** Draw a map below lanes, with its name, and ticks below it. */
export function drawMapLane(context, map, view, width, top, end, unit) {
  if (map) drawBars(context, map, view.extent[0], { left: LEFT, top, width: width - LEFT - RIGHT, height: BARS });
  drawName(context, "attention", top + BARS / 2);
  drawTicks(context, width, top + BARS + 4, end, unit);
}

/** Write a name beside a lane. */
export function drawName(context, text, middle) {
  context.fillStyle = named("quiet");
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText(text, LEFT - 6, middle, LEFT - 8);
}

/** Draw the position of a clip that is playing. */
export function drawNow(context, width, height, part) {
  const x = LEFT + part * (width - LEFT - RIGHT);
  context.fillStyle = "#000"; // black and white: seen on every color of a map
  context.fillRect(x - 2, 0, 4, height);
  context.fillStyle = "#fff";
  context.fillRect(x - 1, 0, 2, height);
}

/** Move a clip's clock to the position of the finger or mouse. */
export function seekable(canvas, clock) {
  const seek = (event) => {
    const box = canvas.getBoundingClientRect();
    const part = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    clock.seek(Math.max(0, Math.min(1, part)) * clock.seconds);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    seek(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) seek(event);
  });
}
