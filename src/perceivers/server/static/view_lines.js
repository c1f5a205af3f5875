// Recordings of several channels over time, arrays, letters and fields, with the map along them.

import { loaded, strength, timesOf } from "./colors.js";
import { make, named, redraw, sharp } from "./dom.js";
import { LEFT, RIGHT, drawBars, drawName, drawTicks } from "./lanes.js";

const LANE = 46;
const BARS = 70;
const TICKS = 22;

/** Return a canvas of some height, and what draws it again with other levels. */
function drawn(host, label, height, paint) {
  const canvas = make("canvas", { class: "drawn", role: "img", "aria-label": label });
  canvas.style.height = `${height}px`;
  host.append(canvas);
  let state = null;
  const draw = () => {
    if (state && canvas.clientWidth) paint(sharp(canvas, canvas.clientWidth, height), canvas.clientWidth, ...state);
  };
  redraw(canvas, draw);
  return (levels, shown) => {
    state = [levels, shown];
    draw();
  };
}

function drawLine(context, times, values, box) {
  const known = values.filter((value) => value !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const end = times.at(-1) || 1;
  context.strokeStyle = named("bar");
  context.lineWidth = 1.3;
  context.beginPath();
  let down = false;
  values.forEach((value, place) => {
    if (value === null) {
      down = false; // nothing is drawn where nothing was measured
      return;
    }
    const x = box.left + (times[place] / end) * box.width;
    const y = box.top + box.height * (0.92 - 0.84 * ((value - low) / (high - low || 1)));
    if (down) context.lineTo(x, y);
    else context.moveTo(x, y);
    down = true;
  });
  context.stroke();
}

/** Draw a recording: a lane for each channel, and the map beneath. */
export async function seriesView(view, host) {
  const lanes = view.channels.length * LANE;
  return drawn(host, `${view.input}: ${view.channels.join(", ")}, with the map beneath`, lanes + BARS + 12 + TICKS, (context, width, levels, shown) => {
    const wide = width - LEFT - RIGHT;
    view.channels.forEach((name, lane) => {
      drawLine(context, view.times, view.lines[lane], { left: LEFT, top: lane * LANE, width: wide, height: LANE });
      drawName(context, name, lane * LANE + LANE / 2);
    });
    if (shown) drawBars(context, levels, view.extent[0], { left: LEFT, top: lanes + 8, width: wide, height: BARS });
    drawName(context, "map", lanes + 8 + BARS / 2);
    drawTicks(context, width, lanes + BARS + 12, view.times.at(-1) || 1, view.unit === "step" ? "steps" : view.unit);
  });
}

/** Draw an array as shades of gray, element by element, and the map beneath. */
export async function arrayView(view, host) {
  const picture = await loaded(view.picture);
  const tall = Math.max(60, Math.min(240, 10 * view.height));
  const draw = drawn(host, `${view.input} with the map beneath`, tall + BARS + 12 + TICKS, (context, width, levels, shown) => {
    const wide = width - LEFT - RIGHT;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, LEFT, 0, wide, tall);
    drawName(context, "values", tall / 2);
    if (shown) drawBars(context, levels, view.extent[0], { left: LEFT, top: tall + 8, width: wide, height: BARS });
    drawName(context, "map", tall + 8 + BARS / 2);
    drawTicks(context, width, tall + BARS + 12, view.width, "");
  });
  host.append(make("p", { class: "quiet" }, `${view.width} elements of ${view.height} values from ${view.least} (dark) to ${view.most} (light).`));
  return draw;
}

/** Return the color behind a letter, for how strong it is drawn: none at all where it got nothing. */
export function marker(part) {
  return `rgb(240 130 40 / ${(0.8 * part).toFixed(3)})`;
}

/** Write a text; its letters have the color of the element that they belong to. */
export async function textView(view, host) {
  const passage = make("p", { class: "passage", tabindex: "0", "aria-label": view.input });
  const spans = [];
  for (const [text, element] of view.letters) {
    const mark = text.length > 1 && text.startsWith("[");
    const last = spans.at(-1);
    if (!mark && last && last.element === element && !last.mark) last.span.append(text);
    else spans.push({ element, mark, span: make("span", mark ? { class: "mark" } : {}, text) });
  }
  passage.append(...spans.map((one) => one.span));
  host.append(passage);
  return (levels, shown) => {
    for (const { element, span } of spans) {
      span.style.backgroundColor = shown ? marker(strength(levels[element])) : "transparent";
      span.title = shown ? `${timesOf(levels[element], view).toFixed(1)} × an even share` : "";
    }
  };
}

/** Write the fields of a row, each with a bar for what it got. */
export async function valuesView(view, host) {
  const fills = view.names.map(() => make("div", { class: "fill" }));
  const rows = view.names.map((name, place) => make("li", { class: "best" }, [
    make("span", {}, name),
    make("span", { class: "number" }, view.texts[place] || "missing"),
    make("div", { class: "track", "aria-hidden": "true" }, [fills[place]]),
  ]));
  host.append(make("ol", { class: "bars" }, rows));
  return (levels, shown) => {
    fills.forEach((fill, place) => fill.style.setProperty("--part", shown ? strength(levels[place]) : 0));
  };
}
