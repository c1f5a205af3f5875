// From levels to colors. A level is a byte: 0 is missing, 1 to 255 lie between the ends of a scale.

import { make } from "./dom.js";

// Dark to light, so that they are legible without colors, too: attention, and scores before the softmax.
const HEAT = [[13, 11, 34], [70, 17, 99], [136, 34, 106], [196, 60, 78], [236, 105, 37], [251, 165, 44], [252, 247, 180]];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

/** Return the color between stops at a part of their range, as three numbers. */
export function mixed(stops, part) {
  const place = Math.max(0, Math.min(1, part)) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((value, index) => Math.round(value + (stops[low + 1][index] - value) * (place - low)));
}

/** Return a map of a set with its levels as bytes and its scale. */
export function mapOf(set, map, scores = false) {
  const levels = Uint8Array.from(atob(map.values), (letter) => letter.charCodeAt(0));
  return { ...map, levels, scores, low: set.low, high: set.high, largest: set.largest };
}

/** Return the strength of an element's color, between 0 and 1. */
export function strength(map, place) {
  const part = Math.max(0, (map.levels[place] - 1) / 254);
  // A few elements receive most of the attention: colors follow the square root, so that the rest can be told apart.
  return map.scores ? part : Math.sqrt(part);
}

/** Return the value of an element: a multiple of an even share, or a score. */
export function valueOf(map, place) {
  return map.numbers?.[place] ?? map.low + ((map.high - map.low) * Math.max(0, map.levels[place] - 1)) / 254;
}

/** Return the text of an element's value. */
export function valueText(map, place) {
  if (!map.levels[place]) return "";
  return map.scores ? valueOf(map, place).toFixed(2) : `${valueOf(map, place).toFixed(2)}×`;
}

/** Return a color of the scale of a map, in the colors of a function where it shows attention. */
export function colorOf(map, part, attention = heat) {
  return map.scores ? `rgb(${mixed(VIRIDIS, part).join(" ")})` : attention(part);
}

/** Return a color of the scale of attention. */
export function heat(part) {
  return `rgb(${mixed(HEAT, part).join(" ")})`;
}

/** Return a canvas with one pixel for each element from `start` on; missing elements are transparent. */
export function tile(map, rows, columns, { start = 0, upwards = false } = {}) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const element = start + (upwards ? rows - 1 - row : row) * columns + column;
      const place = 4 * (row * columns + column);
      const part = strength(map, element);
      image.data.set(mixed(map.scores ? VIRIDIS : HEAT, part), place);
      image.data[place + 3] = map.levels[element] ? (map.scores ? 255 : 255 * (0.2 + 0.7 * part)) : 0;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Return the color scale of a map with its ends and, of attention, the even share. */
export function legend(map, attention = heat) {
  const canvas = document.createElement("canvas");
  canvas.width = 254;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  for (let level = 0; level < 254; level += 1) {
    context.fillStyle = colorOf(map, level / 253, attention);
    context.fillRect(level, 0, 1, 1);
  }
  const scale = make("span", { class: "scale" }, [canvas]);
  if (map.scores) return make("span", { class: "legend" }, [map.low.toFixed(2), scale, map.high.toFixed(2)]);
  const even = make("span", { class: "even" }, "1×");
  even.style.setProperty("--part", Math.sqrt(1 / map.high));
  scale.append(even);
  const clipped = map.largest > map.high;
  const above = clipped ? ` Higher values, up to ${map.largest.toFixed(1)}×, have the last color.` : "";
  const title = `In multiples of the attention that each element would receive if all received the same.${above}`;
  return make("span", { class: "legend", title }, ["0", scale, `${clipped ? "≥" : ""}${map.high.toFixed(1)}× an even share`]);
}

/** Return an image without its colors and darker, so that the colors of a map stand out, on white too. */
export async function grayed(source) {
  const image = await loaded(source);
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let place = 0; place < pixels.data.length; place += 4) {
    const [red, green, blue] = pixels.data.subarray(place, place + 3);
    pixels.data.fill(0.75 * (0.3 * red + 0.59 * green + 0.11 * blue), place, place + 3);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Return an image once it is loaded. */
export async function loaded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}
