// Series, arrays, texts and rows of tables: content along one axis, with the map below or behind it.

import { colorOf, loaded, strength, valueText } from "./colors.js";
import { make, named, redraw, sharp } from "./dom.js";
import { BARS, LEFT, RIGHT, TICKS, drawMapLane, drawName } from "./lanes.js";

const LANE = 46;

/** Add a canvas of some height; return a function that draws it with another map. */
function drawn(host, label, height, paint) {
  const canvas = make("canvas", { class: "drawn", role: "img", "aria-label": label });
  canvas.style.height = `${height}px`;
  host.append(canvas);
  let shown = null;
  const draw = () => {
    if (canvas.clientWidth) paint(sharp(canvas, canvas.clientWidth, height), canvas.clientWidth, shown);
  };
  redraw(canvas, draw);
  return (map) => {
    shown = map;
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
      down = false; // a gap where nothing was measured
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

/** Draw a series: a lane for each channel, and the map below. */
export async function seriesView(view, host) {
  const lanes = view.channels.length * LANE;
  return drawn(host, `${view.input}: ${view.channels.join(", ")}, with the map below`, lanes + BARS + 12 + TICKS, (context, width, map) => {
    const wide = width - LEFT - RIGHT;
    view.channels.forEach((name, lane) => {
      drawLine(context, view.times, view.lines[lane], { left: LEFT, top: lane * LANE, width: wide, height: LANE });
      drawName(context, name, lane * LANE + LANE / 2);
    });
    drawMapLane(context, map, view, width, lanes + 8, view.times.at(-1) || 1, view.unit === "step" ? "steps" : view.unit);
  });
}

/** Draw an array as shades of gray, element by element, and the map below. */
export async function arrayView(view, host) {
  const image = await loaded(view.image);
  const tall = Math.max(60, Math.min(240, 10 * view.height));
  const draw = drawn(host, `${view.input} with the map below`, tall + BARS + 12 + TICKS, (context, width, map) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(image, LEFT, 0, width - LEFT - RIGHT, tall);
    drawName(context, "values", tall / 2);
    drawMapLane(context, map, view, width, tall + 8, view.width, "");
  });
  host.append(make("p", { class: "quiet" }, `${view.width} elements of ${view.height} values from ${view.lowest} (dark) to ${view.highest} (light).`));
  return draw;
}

/** Draw the map of a modality without a view of its own, element by element. */
export async function elementsView(view, host) {
  return drawn(host, `attention to the elements of ${view.input}`, BARS + 4 + TICKS, (context, width, map) => {
    drawMapLane(context, map, view, width, 0, view.axes.reduce((a, b) => a * b), "");
  });
}

/** Return the color behind a character of some strength: none without attention. */
export function marker(part) {
  return `rgb(240 130 40 / ${(0.8 * part).toFixed(3)})`;
}

/** Write a text; its characters have the color of their strongest element. */
export async function textView(view, host) {
  const passage = make("p", { class: "passage", tabindex: "0", "aria-label": view.input });
  const spans = [];
  for (const [text, first, end] of view.characters) {
    const mark = text.length > 1 && text.startsWith("[");
    const last = spans.at(-1);
    if (!mark && last && last.first === first && last.end === end && !last.mark) last.span.append(text);
    else spans.push({ first, end, mark, span: make("span", mark ? { class: "mark" } : {}, text) });
  }
  passage.append(...spans.map((one) => one.span));
  host.append(passage);
  return (map) => {
    for (const { first, end, span } of spans) {
      let place = first;
      for (let one = first; map && one < end; one += 1) if (map.levels[one] > map.levels[place]) place = one;
      span.style.backgroundColor = map && map.levels[place] ? colorOf(map, strength(map, place), marker) : "transparent";
      span.title = map ? valueText(map, place) : "";
    }
  };
}

/** Write the fields of a row, each with a bar for its attention. */
export async function tableView(view, host) {
  const fills = view.names.map(() => make("div", { class: "fill" }));
  const numbers = view.names.map(() => make("span", { class: "number" }));
  const rows = view.names.map((name, place) => make("li", { class: "best" }, [
    make("span", {}, `${name} = ${view.texts[place] || "(missing)"}`),
    numbers[place],
    make("div", { class: "track", "aria-hidden": "true" }, [fills[place]]),
  ]));
  host.append(make("ol", { class: "bars" }, rows));
  return (map) => {
    fills.forEach((fill, place) => {
      fill.style.setProperty("--part", map ? strength(map, place) : 0);
      numbers[place].textContent = map ? valueText(map, place) : "";
    });
  };
}
